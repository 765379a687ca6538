//! Names and manifests: HEAD, GET, digests, limits.

use kiln_image::Digest;
use kiln_registry::{ACCEPT_MANIFESTS, ErrorKind};

use crate::support::{MANIFEST_TYPE, MakeReply, Reply, Server, client, manifest_reply};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

#[test]
fn a_tag_is_resolved_by_head_alone() {
    let server = Server::start(|_| manifest_reply(MANIFEST));
    let resolved = client()
        .resolve(&server.reference("org/app:1"), ACCEPT_MANIFESTS)
        .unwrap();
    assert_eq!(resolved.digest, Digest::sha256_of(MANIFEST));
    assert_eq!(resolved.media_type, MANIFEST_TYPE);
    assert_eq!(resolved.size, Some(MANIFEST.len() as u64));
    assert_eq!(resolved.bytes, None);
    assert_eq!(server.lines(), ["HEAD /v2/org/app/manifests/1"]);
    let seen = server.seen();
    let accept = seen[0].header("accept").unwrap();
    for media_type in ACCEPT_MANIFESTS {
        assert!(accept.contains(media_type), "{accept}");
    }
    assert!(seen[0].header("user-agent").unwrap().starts_with("kiln/"));
}

#[test]
fn get_stands_in_when_head_does_not_do() {
    let heads: &[(&str, MakeReply)] = &[
        ("no digest", || {
            Reply::ok(MANIFEST).with("Content-Type", MANIFEST_TYPE)
        }),
        ("digest of another algorithm", || {
            Reply::ok(MANIFEST)
                .with("Content-Type", MANIFEST_TYPE)
                .with("Docker-Content-Digest", "sha512:00")
        }),
        ("no type", || {
            Reply::ok(MANIFEST).with("Docker-Content-Digest", &Digest::sha256_of(b"").to_string())
        }),
        ("405", || Reply::new(405)),
        ("501", || Reply::new(501)),
        ("404", || Reply::new(404)),
    ];
    for (name, head) in heads {
        let head = *head;
        let server = Server::start(move |seen| {
            if seen.method == "HEAD" {
                head()
            } else {
                Reply::ok(MANIFEST).with("Content-Type", "application/json")
            }
        });
        let resolved = client()
            .resolve(&server.reference("app"), ACCEPT_MANIFESTS)
            .expect(name);
        assert_eq!(resolved.digest, Digest::sha256_of(MANIFEST), "{name}");
        assert_eq!(resolved.bytes.as_deref(), Some(MANIFEST), "{name}");
        // Typed by its shape, as the header said nothing.
        assert_eq!(resolved.media_type, MANIFEST_TYPE, "{name}");
        assert_eq!(server.seen().len(), 2, "{name}");
    }
}

#[test]
fn what_is_not_there_is_explained_with_the_registrys_words() {
    let server = Server::start(|_| {
        Reply::json(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        )
    });
    let error = client()
        .resolve(&server.reference("app:nope"), ACCEPT_MANIFESTS)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let failure = error.failure();
    assert_eq!(failure.status, Some(404));
    assert_eq!(failure.code.as_deref(), Some("MANIFEST_UNKNOWN"));
    let text = error.to_string();
    for part in ["app:nope", &server.host(), "not found", "manifest unknown"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn manifests_are_verified() {
    let other = Digest::sha256_of(b"other");
    // By digest: the digest that was asked for counts.
    let server = Server::start(|_| manifest_reply(MANIFEST));
    let error = client()
        .manifest_by_digest(&server.reference("app"), &other)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
    let good = client()
        .manifest_by_digest(&server.reference("app"), &Digest::sha256_of(MANIFEST))
        .unwrap();
    assert_eq!(good.bytes, MANIFEST);
    // By tag: what the server claims counts.
    let server = Server::start(move |_| {
        Reply::ok(MANIFEST)
            .with("Content-Type", MANIFEST_TYPE)
            .with("Docker-Content-Digest", &other.to_string())
    });
    let error = client().manifest(&server.reference("app:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
}

#[test]
fn a_head_that_lies_about_a_pinned_digest_is_not_believed() {
    let server = Server::start(|_| manifest_reply(MANIFEST));
    let pinned = server.reference("app").with_digest(Digest::sha256_of(b"other"));
    let error = client().resolve(&pinned, ACCEPT_MANIFESTS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
}

#[test]
fn huge_manifests_are_refused() {
    let replies: &[(&str, MakeReply)] = &[
        ("announced", || {
            Reply::cut(b"{", 5 * 1024 * 1024).with("Content-Type", MANIFEST_TYPE)
        }),
        ("not announced", || {
            Reply::endless().with("Content-Type", MANIFEST_TYPE)
        }),
    ];
    for (name, reply) in replies {
        let reply = *reply;
        let server = Server::start(move |_| reply());
        let error = client().manifest(&server.reference("app")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
        assert!(error.to_string().contains("4 MiB"), "{name}: {error}");
        assert_eq!(server.seen().len(), 1, "{name}");
    }
}

#[test]
fn a_web_page_is_no_manifest() {
    let server = Server::start(|_| Reply::ok("<html>"));
    let error = client().manifest(&server.reference("app")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[test]
fn a_cut_manifest_is_fetched_again() {
    let server = Server::start(|seen| match seen.nth {
        0 => Reply::cut(&MANIFEST[..10], MANIFEST.len()).with("Content-Type", MANIFEST_TYPE),
        _ => manifest_reply(MANIFEST),
    });
    assert_eq!(
        client().manifest(&server.reference("app")).unwrap().bytes,
        MANIFEST
    );
}

#[test]
fn tags_are_collected_over_pages() {
    let server = Server::start(|seen| match seen.query.as_str() {
        "" => Reply::json(200, r#"{"name":"app","tags":["a","b"]}"#)
            .with("Link", "</v2/app/tags/list?last=b>; rel=\"next\""),
        "last=b" => Reply::json(200, r#"{"name":"app","tags":["c"]}"#),
        _ => Reply::new(400),
    });
    assert_eq!(client().tags(&server.reference("app")).unwrap(), ["a", "b", "c"]);
    let server = Server::start(|_| Reply::json(200, r#"{"name":"app","tags":null}"#));
    assert!(client().tags(&server.reference("app")).unwrap().is_empty());
}

#[test]
fn a_tag_list_that_never_ends_is_given_up() {
    let server = Server::start(|seen| {
        Reply::json(200, r#"{"tags":[]}"#).with("Link", &format!("<{}>; rel=next", seen.path))
    });
    let error = client().tags(&server.reference("app")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[test]
fn a_tag_list_that_would_not_fit_in_memory_is_given_up() {
    let server = Server::start(|seen| {
        let page = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(6 << 20));
        Reply::json(200, &page).with("Link", &format!("<{}>; rel=next", seen.path))
    });
    let error = client().tags(&server.reference("app")).unwrap_err().to_string();
    assert!(error.contains("more than 16 MiB"), "{error}");
}
