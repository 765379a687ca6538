//! Mirrors, fall-through, unreachable and untrusted hosts.

use std::net::TcpListener;

use kiln_image::Reference;
use kiln_registry::{ACCEPT_MANIFESTS, Client, ClientConfig, ErrorKind, Mirror, Unreachable};

use crate::support::{Reply, Server, TestClock, blob, config, descriptor, manifest_reply};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn mirrored(registry: &str, mirrors: &[String]) -> Client {
    let mirrors = mirrors.iter().map(|url| Mirror::from(url.as_str())).collect();
    let config = ClientConfig {
        mirrors: [(registry.to_owned(), mirrors)].into(),
        ..config(&TestClock::new())
    };
    Client::new(config).unwrap()
}

/// A port on which nobody listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn an_official_image_comes_from_a_mirror_under_either_name() {
    for name in ["library/python", "python"] {
        let path = format!("/v2/{name}/manifests/3.11-slim");
        let server = Server::start(move |seen| {
            if seen.path == path {
                manifest_reply(MANIFEST)
            } else {
                Reply::not_found()
            }
        });
        let client = mirrored("docker.io", &[format!("http://{}", server.host())]);
        let reference: Reference = "python:3.11-slim".parse().unwrap();
        client.resolve(&reference, ACCEPT_MANIFESTS).unwrap();
        assert_eq!(client.manifest(&reference).unwrap().bytes, MANIFEST);
    }
}

#[test]
fn the_first_that_has_it_serves_and_blobs_come_from_there() {
    let bytes = blob(100);
    let served = bytes.clone();
    let empty = Server::start(|_| Reply::not_found());
    let full = Server::start(move |seen| {
        if seen.path.starts_with("/v2/hub/org/app/blobs/") {
            Reply::ok(served.clone())
        } else {
            manifest_reply(MANIFEST)
        }
    });
    let registry = Server::start(|_| Reply::new(500));
    let down = closed_port();
    let client = mirrored(
        &registry.host(),
        &[
            format!("http://{down}"),
            empty.host(),
            format!("http://{}/hub/", full.host()),
        ],
    );
    let reference = registry.reference("org/app:1");
    client.manifest(&reference).unwrap();
    assert_eq!(full.lines(), ["GET /v2/hub/org/app/manifests/1"]);
    let before = empty.seen().len();
    let mut sink = Vec::new();
    client
        .fetch_blob(&reference, &descriptor(&bytes), &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
    assert_eq!(
        empty.seen().len(),
        before,
        "the mirror without the image was asked for its blob"
    );
    assert!(registry.seen().is_empty());
}

#[test]
fn a_blob_goes_on_at_the_next_endpoint_where_the_first_broke_off() {
    let bytes = blob(50_000);
    let (first, second) = (bytes.clone(), bytes.clone());
    let broken = Server::start(move |seen| match seen.range() {
        None => Reply::cut(&first[..20_000], first.len()),
        Some(_) => Reply::not_found(),
    });
    let registry = Server::start(move |seen| Reply::partial(&second, seen.range().unwrap()));
    let client = mirrored(&registry.host(), &[broken.host()]);
    let mut sink = Vec::new();
    client
        .fetch_blob(
            &registry.reference("app"),
            &descriptor(&bytes),
            &mut sink,
            &|_| {},
        )
        .unwrap();
    assert!(sink == bytes);
    assert_eq!(registry.seen()[0].header("range"), Some("bytes=20000-"));
}

#[test]
fn a_mirror_with_damaged_content_does_no_harm() {
    let bytes = blob(5000);
    let served = bytes.clone();
    let damaged = Server::start(|_| Reply::ok(vec![0; 5000]));
    let registry = Server::start(move |_| Reply::ok(served.clone()));
    let client = mirrored(&registry.host(), &[damaged.host()]);
    let mut sink = Vec::new();
    client
        .fetch_blob(
            &registry.reference("app"),
            &descriptor(&bytes),
            &mut sink,
            &|_| {},
        )
        .unwrap();
    assert!(sink == bytes);
}

#[test]
fn damaged_first_bytes_of_a_mirror_do_not_spoil_the_registrys_blob() {
    let bytes = blob(50_000);
    let served = bytes.clone();
    let damaged = Server::start(|seen| match seen.range() {
        None => Reply::cut(&vec![0; 20_000], 50_000),
        Some(_) => Reply::not_found(),
    });
    let registry = Server::start(move |seen| match seen.range() {
        None => Reply::ok(served.clone()),
        Some(start) => Reply::partial(&served, start),
    });
    let client = mirrored(&registry.host(), &[damaged.host()]);
    let mut sink = Vec::new();
    client
        .fetch_blob(
            &registry.reference("app"),
            &descriptor(&bytes),
            &mut sink,
            &|_| {},
        )
        .unwrap();
    assert!(sink == bytes);
    assert_eq!(registry.seen().len(), 2);
}

#[test]
fn the_error_names_every_endpoint_with_its_cause() {
    let busy = Server::start(|_| Reply::new(503));
    let registry = Server::start(|_| Reply::not_found());
    let down = closed_port();
    let client = mirrored(&registry.host(), &[down.clone(), busy.host()]);
    let error = client.manifest(&registry.reference("app:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let kinds: Vec<ErrorKind> = error.failures().map(|failure| failure.kind).collect();
    assert_eq!(
        kinds,
        [
            ErrorKind::Unreachable(Unreachable::Connect),
            ErrorKind::Server,
            ErrorKind::NotFound
        ]
    );
    let text = error.to_string();
    for part in [
        &down,
        &busy.host(),
        &registry.host(),
        "connection refused",
        "503",
        "NAME_UNKNOWN",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn a_refused_connection_is_tried_twice_only() {
    let clock = TestClock::new();
    let client = Client::new(config(&clock)).unwrap();
    let reference: Reference = format!("{}/app", closed_port()).parse().unwrap();
    let error = client.manifest(&reference).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable(Unreachable::Connect));
    assert_eq!(clock.sleeps().len(), 1);
}

#[test]
fn an_unknown_host_is_named() {
    let client = Client::new(config(&TestClock::new())).unwrap();
    // Reserved never to exist (RFC 6761).
    let error = client
        .manifest(&"registry.invalid/app".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unreachable(Unreachable::Dns),
        "{error:?}"
    );
    assert!(error.to_string().contains("registry.invalid"), "{error}");
}

#[test]
fn an_insecure_host_is_asked_over_https_and_then_over_http() {
    // Speaks plain HTTP only: the TLS handshake gets an HTTP error for an answer.
    let server = Server::start(|_| manifest_reply(MANIFEST));
    let config = ClientConfig {
        insecure: [server.host()].into(),
        ..config(&TestClock::new())
    };
    let client = Client::new(config).unwrap();
    client.manifest(&server.reference("app")).unwrap();
    client.manifest(&server.reference("app")).unwrap();
    let plain = server
        .lines()
        .iter()
        .filter(|line| *line == "GET /v2/app/manifests/latest")
        .count();
    assert_eq!(plain, 2);
}

#[test]
fn https_to_a_plain_http_server_says_tls() {
    let server = Server::start(|_| manifest_reply(MANIFEST));
    let client = mirrored("docker.io", &[format!("https://{}", server.host())]);
    let error = client.manifest(&"docker.io/library/x".parse().unwrap());
    let kinds: Vec<ErrorKind> = match &error {
        Ok(_) => panic!("a TLS handshake with plain text succeeded"),
        Err(error) => error.failures().map(|failure| failure.kind).collect(),
    };
    assert_eq!(kinds[0], ErrorKind::Unreachable(Unreachable::Tls), "{error:?}");
}

#[test]
fn the_proxy_is_used_except_for_loopback() {
    let proxy = Server::start(|_| Reply::new(403));
    let mut settings = config(&TestClock::new());
    settings.proxies.https = Some(format!("http://user:hunter2@{}", proxy.host()));
    settings.proxies.http = settings.proxies.https.clone();
    settings.proxies.no_proxy = vec![".direct.invalid".to_owned()];
    let client = Client::new(settings).unwrap();
    let error = client
        .manifest(&"registry.invalid/app".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unreachable(Unreachable::Proxy),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(
        proxy
            .seen()
            .iter()
            .all(|seen| seen.method == "CONNECT" && seen.header("proxy-authorization").is_some())
    );

    let before = proxy.seen().len();
    let error = client
        .manifest(&"a.direct.invalid/app".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable(Unreachable::Dns));
    let server = Server::start(|_| manifest_reply(MANIFEST));
    client.manifest(&server.reference("app")).unwrap();
    assert_eq!(proxy.seen().len(), before);
}
