//! Downloads against a server that does what a test says.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a helper is a failed test"
)]

#[path = "../../registry/tests/support/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of registries, which need more of it"
)]
mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_image::Digest;
use kiln_registry::{Client, ClientConfig, RetryPolicy};
use kiln_remote::http::{Download, Downloaded, HttpError, HttpErrorKind, Outcome, Validators, fetch};
use kiln_remote::{Caller, Credentials, SecretError};
use support::{Reply, Seen, Server, TestClock};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const OLD: &str = "Sun, 06 Nov 1994 08:40:00 GMT";

fn client() -> Client {
    let config = ClientConfig {
        clock: TestClock::new(),
        retry: RetryPolicy {
            attempts: 3,
            stall_timeout: std::time::Duration::from_millis(300),
            ..RetryPolicy::default()
        },
        ..ClientConfig::default()
    };
    Client::new(config).expect("a client")
}

fn temporary() -> File {
    let path = std::env::temp_dir().join(format!(
        "kiln-remote-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a file");
    std::fs::remove_file(path).expect("the file's name goes");
    file
}

fn get(url: &str, known: Option<&Validators>, limit: u64) -> (Result<Outcome, HttpError>, Vec<u8>) {
    get_as(url, known, limit, Caller::default())
}

fn get_as(
    url: &str,
    known: Option<&Validators>,
    limit: u64,
    caller: Caller<'_>,
) -> (Result<Outcome, HttpError>, Vec<u8>) {
    let mut file = temporary();
    let outcome = fetch(&client(), &Download { url, known, limit }, &mut file, caller);
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    (outcome, bytes)
}

fn downloaded(url: &str) -> (Downloaded, Vec<u8>) {
    match get(url, None, u64::MAX) {
        (Ok(Outcome::Downloaded(downloaded)), bytes) => (downloaded, bytes),
        (other, _) => panic!("{other:?}"),
    }
}

fn refused(url: &str, limit: u64) -> HttpError {
    match get(url, None, limit) {
        (Err(error), _) => error,
        (Ok(outcome), _) => panic!("{outcome:?}"),
    }
}

fn blob() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| (number % 251) as u8).collect()
}

#[test]
fn a_download_says_what_the_file_is() {
    let server = Server::start(|_| {
        Reply::ok("hello")
            .with("ETag", "\"v1\"")
            .with("Last-Modified", OLD)
            .with("Date", DATE)
            .with("Content-Type", "text/plain")
            .with("Content-Disposition", "attachment; filename=\"../x.txt\"")
    });
    let (file, bytes) = downloaded(&format!("http://{}/dir/name?token=secret", server.host()));
    assert_eq!(bytes, b"hello");
    assert_eq!(file.digest, Digest::sha256_of(b"hello"));
    assert_eq!(file.suggested_name.as_deref(), Some("x.txt"));
    assert_eq!(file.media_type.as_deref(), Some("text/plain"));
    assert_eq!(file.validators.modified(), Some(784_111_200));
    assert_eq!((file.validators.size, file.validators.settled), (5, true));
    assert_eq!(
        server.lines(),
        ["GET /dir/name"],
        "one request and no HEAD before the first download"
    );
}

fn known() -> Validators {
    Validators {
        etag: Some("\"v1\"".to_owned()),
        last_modified: Some(OLD.to_owned()),
        settled: true,
        size: 5,
    }
}

fn without_tag(settled: bool) -> Validators {
    Validators {
        etag: None,
        settled,
        ..known()
    }
}

/// What servers answer to HEAD and GET, what is known, whether the file counts as unchanged, and the requests.
type Revalidation = (
    &'static str,
    fn(&Seen) -> Reply,
    Validators,
    bool,
    &'static [&'static str],
);

#[test]
fn a_known_version_is_not_downloaded_again() {
    let cases: [Revalidation; 9] = [
        (
            "HEAD with the same tag",
            |_| Reply::new(200).with("ETag", "\"v1\""),
            known(),
            true,
            &["HEAD /f"],
        ),
        (
            "a weak form of it",
            |_| Reply::new(200).with("ETag", "W/\"v1\""),
            known(),
            true,
            &["HEAD /f"],
        ),
        (
            "304 without a tag",
            |_| Reply::new(304),
            known(),
            true,
            &["HEAD /f"],
        ),
        (
            "no HEAD",
            |seen| {
                if seen.method == "HEAD" {
                    Reply::new(405)
                } else {
                    Reply::new(304).with("ETag", "\"v1\"")
                }
            },
            known(),
            true,
            &["HEAD /f", "GET /f"],
        ),
        (
            "another tag",
            |_| Reply::ok("world").with("ETag", "\"v2\""),
            known(),
            false,
            &["HEAD /f", "GET /f"],
        ),
        (
            "304 for a tag that is not ours",
            |seen| {
                if seen.header("if-none-match").is_some() {
                    Reply::new(304).with("ETag", "\"v9\"")
                } else {
                    Reply::ok("world")
                }
            },
            known(),
            false,
            &["HEAD /f", "GET /f", "GET /f"],
        ),
        (
            "the same time and size",
            |_| Reply::ok("hello").with("Last-Modified", OLD),
            without_tag(true),
            true,
            &["HEAD /f"],
        ),
        (
            "the same time, which was new then",
            |_| Reply::ok("world").with("Last-Modified", OLD),
            without_tag(false),
            false,
            &["HEAD /f", "GET /f"],
        ),
        (
            "the same time, another size",
            |_| Reply::ok("world!").with("Last-Modified", OLD),
            without_tag(true),
            false,
            &["HEAD /f", "GET /f"],
        ),
    ];
    for (name, answer, known, unchanged, requests) in cases {
        let server = Server::start(answer);
        let (outcome, bytes) = get(&format!("http://{}/f", server.host()), Some(&known), 100);
        let outcome = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(matches!(outcome, Outcome::Unchanged), unchanged, "{name}");
        assert_eq!(bytes.is_empty(), unchanged, "{name}");
        assert_eq!(server.lines(), requests, "{name}");
    }
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke() {
    let body = blob();
    let (full, whole) = (body.clone(), body.len());
    let server = Server::start(move |seen| match (seen.nth, seen.range()) {
        (0, _) => Reply::cut(&full[..1_500_000], whole).with("ETag", "\"v1\""),
        (1, Some(start)) => Reply::partial(&full, start),
        _ => Reply::new(500),
    });
    let (file, bytes) = downloaded(&format!("http://{}/f", server.host()));
    assert_eq!(file.digest, Digest::sha256_of(&body));
    assert!(bytes == body);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("if-range"), Some("\"v1\""));
    assert!(
        seen[1]
            .range()
            .is_some_and(|start| start > 0 && start <= 1_500_000)
    );
}

/// What a server answers to a request.
type Answer = fn(&Seen) -> Reply;

#[test]
fn without_a_sign_of_the_version_a_cut_transfer_begins_anew() {
    let cases: [(&str, Answer); 4] = [
        ("no validator", |seen| {
            if seen.nth == 0 {
                Reply::cut(b"first", 100)
            } else {
                Reply::ok("second")
            }
        }),
        ("the file changed", |seen| {
            if seen.nth == 0 {
                Reply::cut(b"first", 100).with("ETag", "\"a\"")
            } else {
                Reply::ok("second")
            }
        }),
        ("another part", |seen| match seen.nth {
            0 => Reply::cut(b"first", 100).with("ETag", "\"a\""),
            1 => Reply::partial(b"0123456789", 3),
            _ => Reply::ok("second"),
        }),
        ("no such range", |seen| match seen.nth {
            0 => Reply::cut(b"first", 100).with("ETag", "\"a\""),
            1 => Reply::new(416),
            _ => Reply::ok("second"),
        }),
    ];
    for (name, answer) in cases {
        let server = Server::start(answer);
        let (file, bytes) = downloaded(&format!("http://{}/f", server.host()));
        assert_eq!(bytes, b"second", "{name}");
        assert_eq!(file.digest, Digest::sha256_of(b"second"), "{name}");
        assert_eq!(file.validators.size, 6, "{name}");
    }
}

#[test]
fn bodies_are_bounded() {
    let announced = Server::start(|_| Reply::ok(vec![0; 101]));
    let endless = Server::start(|_| Reply::endless());
    let silent = Server::start(|_| Reply::until_close(&[0; 101]));
    for server in [&announced, &endless, &silent] {
        let error = refused(&format!("http://{}/f", server.host()), 100);
        assert_eq!(error.kind, HttpErrorKind::TooLarge, "{error}");
        assert_eq!(error.cause, "the file has more than 100 bytes");
        assert_eq!(server.seen().len(), 1, "it is not asked again");
    }
    let exact = Server::start(|_| Reply::ok(vec![0; 100]));
    assert!(get(&format!("http://{}/f", exact.host()), None, 100).0.is_ok());
}

#[test]
fn redirects_stay_with_http_and_end() {
    for location in [
        "file:///etc/passwd",
        "ftp://h/f",
        "gopher://h/",
        "/a b",
        "http://",
    ] {
        let server = Server::start(move |_| Reply::new(302).with("Location", location));
        let error = refused(&format!("http://{}/f", server.host()), 100);
        assert_eq!(error.kind, HttpErrorKind::Server, "{location}");
        assert!(error.cause.contains("redirect to an unusable address"), "{error}");
    }
    let server = Server::start(|_| Reply::new(302).with("Location", "/f"));
    let error = refused(&format!("http://{}/f", server.host()), 100);
    assert!(error.cause.contains("more than 10 redirects"), "{error}");
    let server = Server::start(|seen| match seen.path.as_str() {
        "/a" => Reply::new(301).with("Location", "b?x=1"),
        "/b" => Reply::new(307).with("Location", "/c"),
        _ => Reply::ok("here"),
    });
    assert_eq!(downloaded(&format!("http://{}/a", server.host())).1, b"here");
}

#[test]
fn huge_headers_are_refused() {
    let server = Server::start(|_| Reply::ok("x").with("X-Long", &"y".repeat(1 << 20)));
    let error = refused(&format!("http://{}/f", server.host()), 100);
    assert_eq!(error.kind, HttpErrorKind::Server, "{error}");
}

#[derive(Debug)]
struct Token(String);

impl Credentials for Token {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        Ok((id == "HTTP_AUTH_TOKEN_127.0.0.1").then(|| self.0.clone().into_bytes()))
    }
}

#[test]
fn tokens_go_to_their_host_alone() {
    let other = Server::start(|seen| match seen.header("authorization") {
        None => Reply::ok("here"),
        Some(_) => Reply::new(500),
    });
    let elsewhere = format!("http://{}/f", other.host());
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some("Bearer abc") => Reply::new(302).with("Location", &elsewhere),
        _ => Reply::new(401),
    });
    let url = format!("http://{}/f", server.host());
    let error = refused(&url, 100);
    assert_eq!(error.kind, HttpErrorKind::Denied);
    let hint = error.hint.expect("a hint");
    assert!(hint.contains("HTTP_AUTH_TOKEN_127.0.0.1"), "{hint}");
    let caller = Caller {
        credentials: &Token("abc".to_owned()),
        ..Caller::default()
    };
    let (outcome, bytes) = get_as(&url, None, 100, caller);
    assert!(outcome.is_ok() && bytes == b"here", "{outcome:?}");
}

#[test]
fn errors_name_the_url_without_its_secrets_and_a_cause() {
    let server = Server::start(|_| Reply::new(404));
    let url = format!("http://user:password@{}/f?token=x", server.host());
    let error = refused(&url, 100);
    assert_eq!(error.kind, HttpErrorKind::NotFound);
    let text = error.to_string();
    assert_eq!(
        text,
        format!("http://{}/f: not found (status 404)", server.host())
    );
    assert_eq!(server.seen().len(), 1);

    let gone = refused("http://127.0.0.1:1/f", 100);
    assert_eq!(gone.kind, HttpErrorKind::Unreachable);
    assert!(gone.cause.contains("refused") && gone.hint.is_some(), "{gone:?}");
    for url in ["ftp://h/f", "http://", "http://h/a b"] {
        assert_eq!(refused(url, 100).kind, HttpErrorKind::Url, "{url}");
    }
}

#[test]
fn transient_errors_are_tried_again() {
    let server = Server::start(|seen| {
        if seen.nth < 2 {
            Reply::new(503)
        } else {
            Reply::ok("here")
        }
    });
    assert_eq!(downloaded(&format!("http://{}/f", server.host())).1, b"here");
    let server = Server::start(|_| Reply::new(503));
    let error = refused(&format!("http://{}/f", server.host()), 100);
    assert_eq!(error.kind, HttpErrorKind::Server);
    assert!(error.cause.contains("after 3 attempts"), "{error}");
    let server = Server::start(|_| Reply::stall(b"abc", 10));
    assert_eq!(
        refused(&format!("http://{}/f", server.host()), 100).kind,
        HttpErrorKind::Unreachable
    );
}

#[test]
fn progress_is_told_and_cancellation_heard() {
    let server = Server::start(|_| Reply::ok(blob()));
    let url = format!("http://{}/f", server.host());
    let stop = AtomicBool::new(false);
    let caller = Caller {
        progress: &|received, total| {
            assert_eq!(total, Some(3_000_000));
            stop.store(received > 1_000_000, Ordering::SeqCst);
        },
        canceled: &|| stop.load(Ordering::SeqCst),
        ..Caller::default()
    };
    let (outcome, bytes) = get_as(&url, None, u64::MAX, caller);
    assert!(
        matches!(
            outcome,
            Err(HttpError {
                kind: HttpErrorKind::Canceled,
                ..
            })
        ),
        "{outcome:?}"
    );
    assert!(bytes.len() > 1_000_000 && bytes.len() < 3_000_000);
}
