//! Uploads of blobs that are still being made.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, channel};

use kiln_image::Digest;
use kiln_registry::ErrorKind;

use crate::support::{Reply, Seen, Server, blob, client, descriptor};

/// A registry that opens uploads, and says this to the bytes.
fn taking(to_bytes: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |seen| match seen.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/upload/1?state=x%2Fy"),
        "PATCH" => to_bytes(seen),
        "DELETE" => Reply::new(204),
        _ => Reply::new(201),
    })
}

/// The usual answer to bytes.
fn took(seen: &Seen) -> Reply {
    let last = seen.body.len().saturating_sub(1);
    goes_on("/upload/1?state=z").with("Range", &format!("0-{last}"))
}

fn goes_on(location: &str) -> Reply {
    Reply::new(202).with("Location", location)
}

/// Pieces as they come, and an error where there is no end.
struct Pieces(Receiver<io::Result<Vec<u8>>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.recv() {
            Ok(piece) => {
                let piece = piece?;
                buffer[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
            Err(_) => Ok(0),
        }
    }
}

#[test]
fn bytes_go_as_they_come_and_are_named_in_the_end() {
    let bytes = blob(20_000);
    let server = taking(took);
    let (client, name) = (client(), server.reference("app"));
    let (give, pieces) = channel();
    let streamed = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = std::cell::Cell::new(0);
            let result = client.stream_blob(&name, &mut Pieces(pieces), &|count| sent.set(count));
            (result.unwrap(), sent.get())
        });
        for piece in bytes.chunks(1000) {
            give.send(Ok(piece.to_vec())).unwrap();
        }
        drop(give);
        sending.join().unwrap()
    });
    assert_eq!(streamed.1, 20_000);
    assert_eq!(server.lines(), ["POST /v2/app/blobs/uploads/", "PATCH /upload/1"]);
    client
        .commit_streamed(&name, streamed.0, &descriptor(&bytes))
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[1].header("transfer-encoding"), Some("chunked"));
    assert_eq!(seen[1].header("content-length"), None);
    assert!(seen[1].body == bytes);
    let digest = Digest::sha256_of(&bytes).to_string().replace(':', "%3A");
    assert_eq!(seen[2].line(), "PUT /upload/1");
    assert_eq!(seen[2].query, format!("state=z&digest={digest}"));
    assert_eq!(seen[2].header("content-length"), Some("0"));
}

#[test]
fn what_is_not_wanted_is_abandoned() {
    let server = taking(took);
    let (client, name) = (client(), server.reference("app"));
    let streamed = client.stream_blob(&name, &mut &blob(1000)[..], &|_| {}).unwrap();
    client.abandon_streamed(&streamed);
    assert_eq!(server.lines()[2..], ["DELETE /upload/1"]);
}

#[test]
fn a_source_that_fails_ends_the_upload() {
    let server = taking(took);
    let (give, pieces) = channel();
    give.send(Ok(blob(1000))).unwrap();
    give.send(Err(io::Error::other("the disk is on fire"))).unwrap();
    let error = client()
        .stream_blob(&server.reference("app"), &mut Pieces(pieces), &|_| {})
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Local, "{error}");
    assert!(error.to_string().contains("on fire"), "{error}");
    // The bytes themselves did not come to their end, so the server has not seen them as a request.
    assert_eq!(
        server.lines(),
        ["POST /v2/app/blobs/uploads/", "DELETE /upload/1"]
    );
}

#[test]
fn nothing_is_sent_twice() {
    type ToBytes = fn(&Seen) -> Reply;
    let refusals: [(ToBytes, ErrorKind); 7] = [
        (|_| Reply::new(411), ErrorKind::Protocol),
        (|_| Reply::new(404), ErrorKind::NotFound),
        (|_| Reply::new(413), ErrorKind::Protocol),
        (|_| Reply::new(503), ErrorKind::Server),
        (
            |_| Reply::new(307).with("Location", "/elsewhere"),
            ErrorKind::Protocol,
        ),
        (
            |_| goes_on("/upload/1").with("Range", "0-10"),
            ErrorKind::Protocol,
        ),
        (|_| Reply::new(202), ErrorKind::Protocol),
    ];
    for (at, (to_bytes, kind)) in refusals.into_iter().enumerate() {
        let server = taking(to_bytes);
        let error = client()
            .stream_blob(&server.reference("app"), &mut &blob(1000)[..], &|_| {})
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{at}: {error}");
        assert_eq!(
            server.lines(),
            ["POST /v2/app/blobs/uploads/", "PATCH /upload/1"],
            "{at}"
        );
    }
}

#[test]
fn an_upload_that_is_not_opened_takes_nothing_from_the_source() {
    let server = Server::start(|_| Reply::new(503));
    let mut source = io::Cursor::new(blob(1000));
    client()
        .stream_blob(&server.reference("app"), &mut source, &|_| {})
        .unwrap_err();
    assert_eq!(source.position(), 0);
    assert_eq!(server.lines(), ["POST /v2/app/blobs/uploads/"]);
}

#[test]
fn other_bytes_are_not_committed() {
    let server = taking(took);
    let (client, name) = (client(), server.reference("app"));
    let streamed = client.stream_blob(&name, &mut &blob(1000)[..], &|_| {}).unwrap();
    let error = client
        .commit_streamed(&name, streamed, &descriptor(&blob(999)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SizeMismatch, "{error}");
    assert_eq!(server.lines().len(), 2);
}

/// The bytes may take longer than the token lives.
#[test]
fn a_token_that_ran_out_is_replaced_at_the_end() {
    let bytes = blob(1000);
    let server = Server::start(|seen| {
        let token = seen.header("authorization").unwrap_or_default().to_owned();
        match (seen.method.as_str(), token.as_str()) {
            ("GET", _) => Reply::json(200, &format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.nth)),
            ("POST", "Bearer t0") => Reply::new(202).with("Location", "/upload/1"),
            ("PATCH", "Bearer t0") => took(seen),
            ("PUT", "Bearer t1") => Reply::new(201),
            _ => {
                let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host").unwrap());
                Reply::new(401).with("WWW-Authenticate", &realm)
            }
        }
    });
    let (client, name) = (client(), server.reference("app"));
    let streamed = client.stream_blob(&name, &mut &bytes[..], &|_| {}).unwrap();
    client
        .commit_streamed(&name, streamed, &descriptor(&bytes))
        .unwrap();
}

#[test]
fn another_host_gets_no_credentials() {
    let storage = taking(|seen| {
        let host = seen.header("host").unwrap();
        goes_on(&format!("http://{host}/upload/2"))
    });
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
    let bytes = blob(1000);
    let (client, name) = (client(), server.reference("app"));
    let streamed = client.stream_blob(&name, &mut &bytes[..], &|_| {}).unwrap();
    client
        .commit_streamed(&name, streamed, &descriptor(&bytes))
        .unwrap();
    let seen = storage.seen();
    assert_eq!(storage.lines(), ["PATCH /bucket", "PUT /upload/2"]);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));
    assert!(seen[0].body == bytes);
}

/// A server that hangs up in the middle.
#[test]
fn a_connection_that_is_cut_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (at, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            if at == 0 {
                let answer = b"HTTP/1.1 202 Accepted\r\nLocation: /upload/1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = io::Write::write_all(&mut stream, answer);
            }
        }
    });
    let name = format!("{host}/app:1").parse().unwrap();
    let error = client()
        .stream_blob(&name, &mut io::repeat(7), &|_| {})
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unreachable(_)), "{error}");
}
