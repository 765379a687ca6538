//! Uploads.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use kiln_image::Digest;
use kiln_registry::{BlobSource, ErrorKind};

use crate::support::{Reply, Server, blob, client, descriptor};

/// A registry that takes whole uploads (unless told otherwise) and chunks.
fn taking(whole_status: u16) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let stored: Arc<Mutex<Vec<u8>>> = Arc::default();
    let store = Arc::clone(&stored);
    let server = Server::start(move |seen| {
        let mut store = store.lock().unwrap();
        match (seen.method.as_str(), seen.body.is_empty()) {
            ("POST", _) => {
                store.clear();
                Reply::new(202).with("Location", "/upload/1?state=x%2Fy")
            }
            ("PATCH", _) => {
                store.extend_from_slice(&seen.body);
                Reply::new(202).with("Location", "/upload/1?state=z")
            }
            ("PUT", false) if whole_status == 201 => {
                store.extend_from_slice(&seen.body);
                Reply::new(201)
            }
            ("PUT", true) => Reply::new(201),
            _ => Reply::new(whole_status),
        }
    });
    (server, stored)
}

#[test]
fn a_blob_goes_whole() {
    let bytes = blob(200_000);
    let (server, stored) = taking(201);
    let last = std::cell::Cell::new(0);
    client()
        .put_blob(&server.reference("app"), &descriptor(&bytes), &bytes, &|count| {
            last.set(count);
        })
        .unwrap();
    assert!(*stored.lock().unwrap() == bytes);
    assert_eq!(last.get(), 200_000);
    assert_eq!(server.lines(), ["POST /v2/app/blobs/uploads/", "PUT /upload/1"]);
    let put = &server.seen()[1];
    let digest = Digest::sha256_of(&bytes).to_string().replace(':', "%3A");
    assert_eq!(put.query, format!("state=x%2Fy&digest={digest}"));
    assert_eq!(put.header("content-length"), Some("200000"));
}

#[test]
fn a_blob_goes_in_chunks_where_it_may_not_go_whole() {
    let bytes = blob(20 * 1024 * 1024);
    let (server, stored) = taking(413);
    client()
        .put_blob(&server.reference("app"), &descriptor(&bytes), &bytes, &|_| {})
        .unwrap();
    assert!(*stored.lock().unwrap() == bytes);
    let ranges: Vec<String> = server
        .seen()
        .iter()
        .filter_map(|seen| seen.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["0-8388607", "8388608-16777215", "16777216-20971519"]);
}

#[test]
fn wrong_content_is_not_sent_twice() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/upload"),
        _ => Reply::json(
            400,
            r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#,
        ),
    });
    let error = client()
        .put_blob(
            &server.reference("app"),
            &descriptor(b"abc"),
            &b"abd".to_vec(),
            &|_| {},
        )
        .unwrap_err();
    assert_eq!(error.failure().code.as_deref(), Some("DIGEST_INVALID"));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn an_empty_blob_can_be_uploaded() {
    let (server, _) = taking(201);
    client()
        .put_blob(&server.reference("app"), &descriptor(b""), &Vec::new(), &|_| {})
        .unwrap();
}

#[test]
fn trouble_on_the_way_starts_a_new_upload() {
    let bytes = blob(1000);
    let server = Server::start(|seen| match (seen.method.as_str(), seen.nth) {
        ("POST", _) => Reply::new(202).with("Location", "/upload"),
        ("PUT", 0) => Reply::new(502),
        _ => Reply::new(201),
    });
    client()
        .put_blob(&server.reference("app"), &descriptor(&bytes), &bytes, &|_| {})
        .unwrap();
    assert_eq!(
        server.lines(),
        [
            "POST /v2/app/blobs/uploads/",
            "PUT /upload",
            "POST /v2/app/blobs/uploads/",
            "PUT /upload"
        ]
    );
    assert!(server.seen()[3].body == bytes);
}

#[test]
fn a_token_that_runs_out_during_an_upload_is_replaced() {
    let bytes = blob(1000);
    let server = Server::start(|seen| {
        let current = |seen: &crate::support::Seen| seen.header("authorization") == Some("Bearer t1");
        match seen.method.as_str() {
            "GET" => Reply::json(200, &format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.nth)),
            "POST" if seen.header("authorization").is_some() => Reply::new(202).with("Location", "/upload"),
            "PUT" if current(seen) => Reply::new(201),
            _ => {
                let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host").unwrap());
                Reply::new(401).with("WWW-Authenticate", &realm)
            }
        }
    });
    client()
        .put_blob(&server.reference("app"), &descriptor(&bytes), &bytes, &|_| {})
        .unwrap();
    assert!(
        server
            .seen()
            .iter()
            .any(|seen| seen.query.contains("repository%3Aapp%3Apull%2Cpush"))
    );
}

#[test]
fn uploads_to_another_host_carry_no_credentials() {
    let storage = Server::start(|_| Reply::new(201));
    let target = format!("http://{}/bucket?signature=x", storage.host());
    let server = Server::start(
        move |seen| match (seen.path.as_str(), seen.header("authorization")) {
            ("/token", _) => Reply::json(200, r#"{"token":"t1"}"#),
            (_, Some("Bearer t1")) => Reply::new(202).with("Location", &target),
            _ => {
                let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host").unwrap());
                Reply::new(401).with("WWW-Authenticate", &realm)
            }
        },
    );
    client()
        .put_blob(
            &server.reference("app"),
            &descriptor(b"abc"),
            &b"abc".to_vec(),
            &|_| {},
        )
        .unwrap();
    assert_eq!(storage.seen()[0].header("authorization"), None);
    assert_eq!(storage.seen()[0].body, b"abc");
}

struct Failing;

impl BlobSource for Failing {
    fn open(&self, _: u64) -> io::Result<Box<dyn Read + '_>> {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is on fire"))
            }
        }
        Ok(Box::new(Broken))
    }
}

#[test]
fn a_source_that_fails_or_is_too_short_is_the_callers_trouble() {
    let bytes = blob(100_000);
    let short = bytes[..50_000].to_vec();
    let sources: [(&dyn BlobSource, &str); 2] = [(&Failing, "on fire"), (&short, "shorter")];
    for (source, words) in sources {
        let (server, _) = taking(201);
        let error = client()
            .put_blob(&server.reference("app"), &descriptor(&bytes), source, &|_| {})
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn existing_blobs_are_seen() {
    let bytes = blob(10);
    let digest = Digest::sha256_of(&bytes).to_string();
    let server = Server::start(move |seen| {
        if seen.path.ends_with(&digest) {
            Reply::ok(blob(10))
        } else {
            Reply::new(404)
        }
    });
    let client = client();
    assert!(
        client
            .blob_exists(&server.reference("app"), &descriptor(&bytes))
            .unwrap()
    );
    assert!(
        !client
            .blob_exists(&server.reference("app"), &descriptor(b"other"))
            .unwrap()
    );
}

#[test]
fn mounting() {
    let server = Server::start(
        |seen| match (seen.method.as_str(), seen.query.contains("from=base%2Fone")) {
            ("POST", true) => Reply::new(201),
            ("POST", false) => Reply::new(202).with("Location", "/upload/abandoned"),
            _ => Reply::new(204),
        },
    );
    let client = client();
    let digest = Digest::sha256_of(b"x");
    assert!(
        client
            .mount_blob(&server.reference("app"), &digest, &server.reference("base/one"))
            .unwrap()
    );
    assert!(
        !client
            .mount_blob(&server.reference("app"), &digest, &server.reference("base/two"))
            .unwrap()
    );
    assert_eq!(server.lines().last().unwrap(), "DELETE /upload/abandoned");
    let elsewhere = "other.example/base/one".parse().unwrap();
    assert!(
        !client
            .mount_blob(&server.reference("app"), &digest, &elsewhere)
            .unwrap()
    );
}

#[test]
fn manifests_go_under_their_tag_and_the_answer_is_checked() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/app/manifests/1" => Reply::new(201).with(
            "Docker-Content-Digest",
            &Digest::sha256_of(&seen.body).to_string(),
        ),
        _ => Reply::new(201).with(
            "Docker-Content-Digest",
            &Digest::sha256_of(b"changed").to_string(),
        ),
    });
    let digest = client()
        .put_manifest(&server.reference("app:1"), "a/b", b"{}")
        .unwrap();
    assert_eq!(digest, Digest::sha256_of(b"{}"));
    assert_eq!(server.seen()[0].header("content-type"), Some("a/b"));
    let error = client()
        .put_manifest(&server.reference("app:2"), "a/b", b"{}")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
}

/// Two that push the same blobs at the same time disturb each other in some registries.
#[test]
fn a_manifest_is_sent_again_when_the_registry_was_disturbed() {
    let disturbed = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
    let server = Server::start(move |seen| match (seen.path.as_str(), seen.nth) {
        ("/v2/app/manifests/1", 0) => Reply::json(400, disturbed),
        ("/v2/app/manifests/1", _) => Reply::new(201),
        _ => Reply::json(400, disturbed),
    });
    client()
        .put_manifest(&server.reference("app:1"), "a/b", b"{}")
        .unwrap();
    let error = client()
        .put_manifest(&server.reference("app:2"), "a/b", b"{}")
        .unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
}
