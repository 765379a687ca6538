//! Download of blobs: resume, retry, limits, verification.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kiln_registry::{BlobSink, Client, ErrorKind, Unreachable};

use crate::support::{Reply, Seen, Server, TestClock, blob, client, config, descriptor};

const SIZE: usize = 300_000;

/// One way in which a server misbehaves, and what must come of it.
struct Case {
    name: &'static str,
    reply: fn(&Seen, &[u8]) -> Reply,
    /// `Err`: the kind of error.
    want: Result<(), ErrorKind>,
    requests: usize,
}

#[test]
fn table() {
    let cases = [
        Case {
            name: "plain",
            reply: |_, blob| Reply::ok(blob),
            want: Ok(()),
            requests: 1,
        },
        Case {
            name: "no length",
            reply: |_, blob| Reply::until_close(blob),
            want: Ok(()),
            requests: 1,
        },
        Case {
            name: "cut, resumed by range",
            reply: |seen, blob| match seen.range() {
                None => Reply::cut(&blob[..100_000], blob.len()),
                Some(start) => Reply::partial(blob, start),
            },
            want: Ok(()),
            requests: 2,
        },
        Case {
            name: "cut twice, ranges ignored",
            reply: |seen, blob| {
                if seen.nth < 2 {
                    Reply::cut(&blob[..70_000 * (seen.nth + 1)], blob.len())
                } else {
                    Reply::ok(blob)
                }
            },
            want: Ok(()),
            requests: 3,
        },
        Case {
            name: "cut without a length, resumed",
            reply: |seen, blob| match seen.range() {
                None => Reply::until_close(&blob[..100_000]),
                Some(start) => Reply::partial(blob, start),
            },
            want: Ok(()),
            requests: 2,
        },
        Case {
            name: "range starts earlier than asked",
            reply: |seen, blob| match seen.range() {
                None => Reply::cut(&blob[..100_000], blob.len()),
                Some(_) => Reply::partial(blob, 50_000),
            },
            want: Ok(()),
            requests: 2,
        },
        Case {
            name: "range starts later than asked",
            reply: |seen, blob| match seen.range() {
                None => Reply::cut(&blob[..100_000], blob.len()),
                Some(start) => Reply::partial(blob, start + 1),
            },
            want: Err(ErrorKind::Protocol),
            requests: 2,
        },
        Case {
            name: "range refused once",
            reply: |seen, blob| match (seen.range(), seen.nth) {
                (None, 0) => Reply::cut(&blob[..100_000], blob.len()),
                (Some(_), _) => Reply::new(416),
                (None, _) => Reply::ok(blob),
            },
            want: Ok(()),
            requests: 3,
        },
        Case {
            name: "always cut at the same place",
            reply: |_, blob| Reply::cut(&blob[..10], blob.len()),
            want: Err(ErrorKind::Unreachable(Unreachable::Broken)),
            requests: 4,
        },
        Case {
            name: "503, then ok",
            reply: |seen, blob| {
                if seen.nth == 0 {
                    Reply::new(503)
                } else {
                    Reply::ok(blob)
                }
            },
            want: Ok(()),
            requests: 2,
        },
        Case {
            name: "503 for ever",
            reply: |_, _| Reply::new(503),
            want: Err(ErrorKind::Server),
            requests: 4,
        },
        Case {
            name: "429 for ever",
            reply: |_, _| Reply::new(429),
            want: Err(ErrorKind::RateLimited),
            requests: 4,
        },
        Case {
            name: "404",
            reply: |_, _| Reply::not_found(),
            want: Err(ErrorKind::NotFound),
            requests: 1,
        },
        Case {
            name: "403",
            reply: |_, _| Reply::new(403),
            want: Err(ErrorKind::Denied),
            requests: 1,
        },
        Case {
            name: "204",
            reply: |_, _| Reply::new(204),
            want: Err(ErrorKind::Protocol),
            requests: 1,
        },
        Case {
            name: "wrong bytes",
            reply: |_, blob| Reply::ok(vec![b'x'; blob.len()]),
            want: Err(ErrorKind::DigestMismatch),
            requests: 1,
        },
        Case {
            name: "too long, announced",
            reply: |_, blob| Reply::ok([blob, b"x"].concat()),
            want: Err(ErrorKind::SizeMismatch),
            requests: 1,
        },
        Case {
            name: "too short, announced",
            reply: |_, blob| Reply::ok(&blob[1..]),
            want: Err(ErrorKind::SizeMismatch),
            requests: 1,
        },
        Case {
            name: "too long, not announced",
            reply: |_, blob| Reply::until_close(&[blob, b"x"].concat()),
            want: Err(ErrorKind::SizeMismatch),
            requests: 1,
        },
        Case {
            name: "endless",
            reply: |_, _| Reply::endless(),
            want: Err(ErrorKind::SizeMismatch),
            requests: 1,
        },
        Case {
            name: "stalled, then resumed",
            reply: |seen, blob| match seen.range() {
                None => Reply::stall(&blob[..100_000], blob.len()),
                Some(start) => Reply::partial(blob, start),
            },
            want: Ok(()),
            requests: 2,
        },
        Case {
            name: "redirect loop",
            reply: |seen, _| Reply::new(307).with("Location", &seen.path),
            want: Err(ErrorKind::Protocol),
            requests: 11,
        },
        Case {
            name: "redirect to no URL",
            reply: |_, _| Reply::new(302).with("Location", "file:///etc/passwd"),
            want: Err(ErrorKind::Protocol),
            requests: 1,
        },
    ];
    for case in cases {
        let bytes = blob(SIZE);
        let served = bytes.clone();
        let server = Server::start(move |seen| (case.reply)(seen, &served));
        let mut sink = Vec::new();
        let last = RefCell::new(0);
        let result = client().fetch_blob(
            &server.reference("app"),
            &descriptor(&bytes),
            &mut sink,
            &|count| {
                last.replace(count);
            },
        );
        match (&result, case.want) {
            (Ok(()), Ok(())) => {
                assert!(sink == bytes, "{}: wrong bytes", case.name);
                assert_eq!(last.into_inner(), SIZE as u64, "{}: progress", case.name);
            }
            (Err(error), Err(kind)) => {
                assert_eq!(error.kind(), kind, "{}: {error}", case.name);
                assert!(
                    error.to_string().contains(&server.host()),
                    "{}: {error}",
                    case.name
                );
                assert!(
                    sink.len() <= SIZE,
                    "{}: more than the blob's size was written",
                    case.name
                );
            }
            _ => panic!("{}: {result:?}", case.name),
        }
        assert_eq!(server.seen().len(), case.requests, "{}: requests", case.name);
    }
}

#[test]
fn a_sink_with_earlier_bytes_is_resumed_and_verified() {
    let bytes = blob(SIZE);
    let served = bytes.clone();
    let server = Server::start(move |seen| match seen.range() {
        None => Reply::ok(served.clone()),
        Some(start) => Reply::partial(&served, start),
    });
    let (reference, blob) = (server.reference("app"), descriptor(&bytes));

    let mut sink = bytes[..123_456].to_vec();
    client()
        .fetch_blob(&reference, &blob, &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
    assert_eq!(server.seen()[0].header("range"), Some("bytes=123456-"));

    // Damaged earlier bytes are noticed, and the blob is fetched from the start.
    let mut sink = bytes[..123_456].to_vec();
    sink[7] ^= 1;
    client()
        .fetch_blob(&reference, &blob, &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
    assert_eq!(server.seen().len(), 3);

    // Everything is there already: no request at all.
    client()
        .fetch_blob(&reference, &blob, &mut bytes.clone(), &|_| {})
        .unwrap();
    assert_eq!(server.seen().len(), 3);

    // More than everything is there.
    let mut sink = vec![b'x'; SIZE + 1];
    client()
        .fetch_blob(&reference, &blob, &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
}

#[test]
fn an_empty_blob_needs_no_request() {
    let server = Server::start(|_| Reply::new(500));
    client()
        .fetch_blob(
            &server.reference("app"),
            &descriptor(b""),
            &mut Vec::new(),
            &|_| {},
        )
        .unwrap();
    assert!(server.seen().is_empty());
}

/// A sink that cannot show its bytes, or cannot write.
#[derive(Default)]
struct Stubborn {
    bytes: Vec<u8>,
    full_at: Option<usize>,
}

impl BlobSink for Stubborn {
    fn offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn existing(&mut self) -> io::Result<Option<Box<dyn Read + '_>>> {
        Ok(None)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full_at.is_some_and(|full| self.bytes.len() >= full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}

#[test]
fn earlier_bytes_that_cannot_be_read_are_dropped() {
    let bytes = blob(SIZE);
    let served = bytes.clone();
    let server = Server::start(move |_| Reply::ok(served.clone()));
    let mut sink = Stubborn {
        bytes: vec![1; 10],
        full_at: None,
    };
    client()
        .fetch_blob(&server.reference("app"), &descriptor(&bytes), &mut sink, &|_| {})
        .unwrap();
    assert!(sink.bytes == bytes);
    assert_eq!(server.seen()[0].header("range"), None);
}

#[test]
fn a_full_disk_is_not_retried() {
    let bytes = blob(SIZE);
    let served = bytes.clone();
    let server = Server::start(move |_| Reply::ok(served.clone()));
    let mut sink = Stubborn {
        bytes: Vec::new(),
        full_at: Some(100_000),
    };
    let error = client()
        .fetch_blob(&server.reference("app"), &descriptor(&bytes), &mut sink, &|_| {})
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Local);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn retry_after_is_obeyed_and_limited() {
    let bytes = blob(10);
    for (value, want_ok, want_sleeps) in [("7", true, vec![7]), ("3600", false, vec![])] {
        let served = bytes.clone();
        let server = Server::start(move |seen| match seen.nth {
            0 => Reply::new(429).with("Retry-After", value),
            _ => Reply::ok(served.clone()),
        });
        let clock = TestClock::new();
        let client = Client::new(config(&clock)).unwrap();
        let result = client.fetch_blob(
            &server.reference("app"),
            &descriptor(&bytes),
            &mut Vec::new(),
            &|_| {},
        );
        assert_eq!(result.is_ok(), want_ok, "{value}: {result:?}");
        let sleeps: Vec<u64> = clock.sleeps().iter().map(Duration::as_secs).collect();
        assert_eq!(sleeps, want_sleeps, "{value}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::RateLimited);
            assert!(error.to_string().contains("3600 s"), "{error}");
        }
    }
}

#[test]
fn waits_grow_and_can_be_interrupted() {
    let server = Server::start(|_| Reply::new(502));
    let blob = descriptor(b"abc");
    let clock = TestClock::new();
    let client = Client::new(config(&clock)).unwrap();
    client
        .fetch_blob(&server.reference("app"), &blob, &mut Vec::new(), &|_| {})
        .unwrap_err();
    let sleeps = clock.sleeps();
    assert_eq!(sleeps.len(), 3);
    // With at most half taken away by jitter, the third wait is above the first whatever happens.
    assert!(sleeps[2] > sleeps[0], "{sleeps:?}");

    let clock = TestClock::interrupted_after(0);
    let client = Client::new(config(&clock)).unwrap();
    let error = client
        .fetch_blob(&server.reference("app"), &blob, &mut Vec::new(), &|_| {})
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(clock.sleeps().len(), 1);
}

#[test]
fn long_blobs_survive_more_cuts_than_the_attempts_of_one_request() {
    let bytes = blob(12 * 1024 * 1024);
    let served = bytes.clone();
    let server = Server::start(move |seen| {
        let start = seen.range().unwrap_or(0);
        let end = (start + 1_200_000).min(served.len());
        let range = format!("bytes {start}-{}/{}", served.len() - 1, served.len());
        let reply = Reply::cut(&served[start..end], served.len() - start);
        if start == 0 {
            reply
        } else {
            reply.status(206).with("Content-Range", &range)
        }
    });
    let mut sink = Vec::new();
    client()
        .fetch_blob(&server.reference("app"), &descriptor(&bytes), &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
    assert!(server.seen().len() > 8);
}

#[test]
fn never_more_connections_to_a_host_than_configured() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let bytes = blob(1000);
    let served = bytes.clone();
    let server = Server::start(move |_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        NOW.fetch_sub(1, Ordering::SeqCst);
        Reply::ok(served.clone())
    });
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut sink = Vec::new();
                client
                    .fetch_blob(&server.reference("app"), &descriptor(&bytes), &mut sink, &|_| {})
                    .unwrap();
                assert!(sink == bytes);
            });
        }
    });
    let most = MOST.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at the same time");
}
