//! The caller wants no more while a server lets it wait: for a connection, a handshake, an answer, the rest of a body, or
//! room to send. Every timeout here is an hour; the tests would wait for that long.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kiln_image::Reference;
use kiln_registry::{Client, ClientConfig, ErrorKind, RetryPolicy};

use crate::support::{Reply, Server, TestClock, blob, descriptor};

/// As good as never.
const HOUR: Duration = Duration::from_hours(1);
/// More than a crowded machine takes to see a flag.
const SOON: Duration = Duration::from_secs(20);

fn patient(clock: &Arc<TestClock>) -> ClientConfig {
    ClientConfig {
        clock: Arc::<TestClock>::clone(clock),
        retry: RetryPolicy {
            connect_timeout: HOUR,
            stall_timeout: HOUR,
            commit_timeout: HOUR,
            ..RetryPolicy::default()
        },
        ..ClientConfig::default()
    }
}

/// Runs `work`, interrupts it when `begun` returns, and gives what it ended with.
fn interrupted<T: Send + 'static>(
    config: ClientConfig,
    clock: &TestClock,
    begun: impl FnOnce(),
    work: impl FnOnce(Client) -> kiln_registry::Result<T> + Send + 'static,
) -> ErrorKind {
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(work(Client::new(config).unwrap()).map(drop)));
    begun();
    // Long enough for the wait to begin; a test that is too early tests less, and still passes.
    let early = ended.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "it did not wait: {early:?}");
    clock.interrupt();
    let result = ended.recv_timeout(SOON).expect("it ends soon");
    result.expect_err("it does not succeed").kind()
}

/// Until the server saw a request.
fn asked(server: &Server) {
    while server.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn reference(address: SocketAddr) -> Reference {
    format!("{address}/app").parse().unwrap()
}

/// A server that takes connections and does nothing with them.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let _open: Vec<_> = listener.incoming().collect();
    });
    address
}

#[test]
fn while_no_answer_comes() {
    let clock = TestClock::new();
    let name = reference(silent());
    let kind = interrupted(
        patient(&clock),
        &clock,
        || {},
        move |client| client.manifest(&name),
    );
    assert_eq!(kind, ErrorKind::Interrupted);
}

#[test]
fn while_a_handshake_makes_no_progress() {
    let clock = TestClock::new();
    let mut config = patient(&clock);
    let mirror = format!("https://{}", silent());
    config.mirrors = [("registry.invalid".to_owned(), vec![mirror.into()])].into();
    let name: Reference = "registry.invalid/app".parse().unwrap();
    let kind = interrupted(config, &clock, || {}, move |client| client.manifest(&name));
    assert_eq!(kind, ErrorKind::Interrupted);
}

#[test]
fn while_a_body_stalls_and_what_came_stays() {
    let bytes = blob(100_000);
    let served = bytes.clone();
    let server = Server::start(move |_| Reply::stall(&served[..40_000], served.len()));
    let clock = TestClock::new();
    let (name, wanted) = (server.reference("app"), descriptor(&bytes));
    let (sender, kept) = mpsc::channel();
    let kind = interrupted(
        patient(&clock),
        &clock,
        || asked(&server),
        move |client| {
            let mut sink = Vec::new();
            let result = client.fetch_blob(&name, &wanted, &mut sink, &|_| {});
            sender.send(sink).unwrap();
            result
        },
    );
    assert_eq!(kind, ErrorKind::Interrupted);
    assert!(kept.recv().unwrap() == bytes[..40_000]);
    assert_eq!(server.seen().len(), 1, "nothing more is asked for");
}

#[test]
fn while_a_document_stalls() {
    let server = Server::start(|_| Reply::stall(b"{", 1000));
    let clock = TestClock::new();
    let name = server.reference("app");
    let kind = interrupted(
        patient(&clock),
        &clock,
        || asked(&server),
        move |client| client.manifest(&name),
    );
    assert_eq!(kind, ErrorKind::Interrupted);
}

/// The lines before a body.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The first request is answered, the body of the upload is not read.
#[test]
fn while_an_upload_is_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, begun) = mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            if head.starts_with("POST ") {
                let reply = "HTTP/1.1 202 Accepted\r\nLocation: /upload/1\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(reply.as_bytes()).unwrap();
                // The upload comes on the same connection.
                stream.read_exact(&mut [0; 1]).unwrap();
                sender.send(()).unwrap();
            }
            open.push(stream);
        }
    });
    let clock = TestClock::new();
    let kind = interrupted(
        patient(&clock),
        &clock,
        || begun.recv_timeout(SOON).unwrap(),
        move |client| {
            // More than the buffers of two sockets hold.
            let bytes = blob(64 << 20);
            client.put_blob(&reference(address), &descriptor(&bytes), &bytes, &|_| {})
        },
    );
    assert_eq!(kind, ErrorKind::Interrupted);
}

#[test]
fn while_no_connection_is_taken() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    // The kernel's queue has one place for a connection that nobody takes; the next ones wait.
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue has an end");
    }
    let clock = TestClock::new();
    let kind = interrupted(
        patient(&clock),
        &clock,
        || {},
        move |client| client.manifest(&reference(address)),
    );
    assert_eq!(kind, ErrorKind::Interrupted);
    drop((listener, queued));
}

#[test]
fn while_other_requests_use_all_connections() {
    let clock = TestClock::new();
    let mut config = patient(&clock);
    config.connections_per_host = 1;
    let name = reference(silent());
    let kind = interrupted(
        config,
        &clock,
        || {},
        move |client| {
            std::thread::scope(|scope| {
                let ask = || client.manifest(&name).map(drop);
                let requests = [scope.spawn(ask), scope.spawn(ask)];
                let ended = requests.map(|request| request.join().unwrap());
                let [first, second] = ended.map(|result| result.unwrap_err().kind());
                assert_eq!((first, second), (ErrorKind::Interrupted, ErrorKind::Interrupted));
            });
            client.manifest(&name)
        },
    );
    assert_eq!(kind, ErrorKind::Interrupted);
}
