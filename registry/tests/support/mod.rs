//! A registry that does what a test says: plain HTTP on loopback, one closure a server.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::{Client, ClientConfig, Clock, Interrupted, RetryPolicy};

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many requests with this method and path came before.
    pub(crate) nth: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `METHOD /path`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Start of a `Range: bytes=N-`.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }
}

/// How the body goes out.
#[derive(Debug, Clone)]
enum Body {
    /// With its length.
    Full(Vec<u8>),
    /// Announces `length`, sends the bytes and cuts the connection.
    Cut(Vec<u8>, usize),
    /// Announces `length`, sends the bytes and falls silent.
    Stall(Vec<u8>, usize),
    /// Chunked, and never ends.
    Endless,
    /// No length: the end of the connection is the end of the body.
    UntilClose(Vec<u8>),
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Full(Vec::new()),
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: Body::Full(body.into()),
            ..Self::new(200)
        }
    }

    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self {
            body: Body::Full(body.into()),
            ..Self::new(status)
        }
        .with("Content-Type", "application/json")
    }

    pub(crate) fn not_found() -> Self {
        Self::json(
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
        )
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut(bytes: &[u8], length: usize) -> Self {
        Self {
            body: Body::Cut(bytes.to_vec(), length),
            ..Self::new(200)
        }
    }

    pub(crate) fn stall(bytes: &[u8], length: usize) -> Self {
        Self {
            body: Body::Stall(bytes.to_vec(), length),
            ..Self::new(200)
        }
    }

    pub(crate) fn endless() -> Self {
        Self {
            body: Body::Endless,
            ..Self::new(200)
        }
    }

    pub(crate) fn until_close(bytes: &[u8]) -> Self {
        Self {
            body: Body::UntilClose(bytes.to_vec()),
            ..Self::new(200)
        }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The blob from `start`, as a partial answer.
    pub(crate) fn partial(blob: &[u8], start: usize) -> Self {
        let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
        Self::ok(&blob[start..]).status(206).with("Content-Range", &range)
    }
}

/// Makes a reply without regard to the request.
pub(crate) type MakeReply = fn() -> Reply;

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A running server. Its threads end with the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&seen), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                // A client that goes away in the middle is part of many tests.
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    drop(serve(&stream, &log, &*handler));
                });
            }
        });
        Self { address, seen }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, handler: &Handler) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader)? {
        {
            let mut log = log.lock().unwrap();
            request.nth = log
                .iter()
                .filter(|earlier| earlier.line() == request.line())
                .count();
            log.push(request.clone());
        }
        if !answer(stream, &handler(&request), request.method == "HEAD")? {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        nth: 0,
    };
    let length: u64 = seen
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    if seen.header("transfer-encoding") == Some("chunked") {
        read_chunks(reader, &mut seen.body)?;
    } else {
        reader.take(length).read_to_end(&mut seen.body)?;
    }
    Ok(Some(seen))
}

/// A body without a length. One that is cut is an error.
fn read_chunks(reader: &mut BufReader<&TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let before = body.len() as u64;
        reader.take(length).read_to_end(body)?;
        reader.read_line(&mut String::new())?;
        if body.len() as u64 != before + length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if length == 0 {
            return Ok(());
        }
    }
}

/// False if the connection is to be closed.
fn answer(mut stream: &TcpStream, reply: &Reply, head: bool) -> io::Result<bool> {
    use std::fmt::Write as _;
    let mut text = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    match &reply.body {
        Body::Full(bytes) if !reply.headers.iter().any(|(name, _)| name == "Content-Length") => {
            write!(text, "Content-Length: {}\r\n", bytes.len()).unwrap();
        }
        Body::Full(_) => {}
        Body::Cut(_, length) | Body::Stall(_, length) => {
            write!(text, "Content-Length: {length}\r\n").unwrap();
        }
        Body::Endless => text.push_str("Transfer-Encoding: chunked\r\n"),
        Body::UntilClose(_) => text.push_str("Connection: close\r\n"),
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())?;
    if head {
        return Ok(true);
    }
    match &reply.body {
        Body::Full(bytes) => stream.write_all(bytes).map(|()| true),
        Body::Cut(bytes, _) | Body::UntilClose(bytes) => stream.write_all(bytes).map(|()| false),
        Body::Stall(bytes, _) => {
            stream.write_all(bytes)?;
            // Until the client hangs up.
            stream.read(&mut [0; 1]).map(|_| false)
        }
        Body::Endless => loop {
            stream.write_all(b"4000\r\n")?;
            stream.write_all(&[b'x'; 0x4000])?;
            stream.write_all(b"\r\n")?;
        },
    }
}

/// Time that passes only when somebody sleeps.
#[derive(Debug)]
pub(crate) struct TestClock {
    start: Instant,
    slept: AtomicU64,
    pub(crate) sleeps: Mutex<Vec<Duration>>,
    /// After so many sleeps, the work is cancelled.
    pub(crate) interrupt_after: usize,
    /// The work is cancelled.
    interrupted: AtomicBool,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Self::interrupted_after(usize::MAX)
    }

    pub(crate) fn interrupted_after(sleeps: usize) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            slept: AtomicU64::new(0),
            sleeps: Mutex::default(),
            interrupt_after: sleeps,
            interrupted: AtomicBool::new(false),
        })
    }

    /// Cancels the work.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self, duration: Duration) {
        self.slept
            .fetch_add(duration.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn sleeps(&self) -> Vec<Duration> {
        self.sleeps.lock().unwrap().clone()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.slept.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        let mut sleeps = self.sleeps.lock().unwrap();
        sleeps.push(duration);
        self.pass(duration);
        if sleeps.len() > self.interrupt_after {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    fn check(&self) -> Result<(), Interrupted> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(Interrupted);
        }
        Ok(())
    }
}

/// A configuration that waits for nothing.
pub(crate) fn config(clock: &Arc<TestClock>) -> ClientConfig {
    ClientConfig {
        clock: Arc::<TestClock>::clone(clock),
        retry: RetryPolicy {
            attempts: 4,
            connect_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_millis(400),
            commit_timeout: Duration::from_secs(5),
            ..RetryPolicy::default()
        },
        ..ClientConfig::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(config(&TestClock::new())).unwrap()
}

/// Bytes that repeat nowhere, so that a shift would be noticed.
pub(crate) fn blob(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    let digest = Digest::sha256_of(bytes);
    let json = format!(
        r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{}}}"#,
        bytes.len()
    );
    serde_json::from_str(&json).expect("a descriptor")
}

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An answer with a manifest and everything that belongs to it.
pub(crate) fn manifest_reply(bytes: &[u8]) -> Reply {
    Reply::ok(bytes)
        .with("Content-Type", MANIFEST_TYPE)
        .with("Docker-Content-Digest", &Digest::sha256_of(bytes).to_string())
}
