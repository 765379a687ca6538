//! A registry that serves real content and misbehaves as a test says.
//!
//! A [`Site`] is what an honest registry would have, and [`Site::answer`] what it would say. A test gives a function
//! that is asked first and may say something else: half a body, no end, another digest. Every request is kept.

use crate::{Result, oci};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Behind the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came along.
    pub body: Vec<u8>,
    /// How many requests with this method and path came before.
    pub nth: usize,
}

impl Request {
    /// `GET /v2/…`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The name or digest, if a manifest is asked for.
    pub fn manifest(&self) -> Option<&str> {
        self.path.split_once("/manifests/").map(|(_, name)| name)
    }

    /// The digest, if a blob is asked for.
    pub fn blob(&self) -> Option<&str> {
        let (_, name) = self.path.split_once("/blobs/")?;
        (!name.starts_with("uploads/")).then_some(name)
    }

    /// Whether it is part of an upload.
    pub fn is_upload(&self) -> bool {
        self.path.contains("/blobs/uploads/")
    }

    /// The first byte of a range that is asked for.
    pub fn range(&self) -> Option<usize> {
        let range = self.headers.get("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// How a body goes out.
#[derive(Debug, Clone)]
pub enum Body {
    /// With its length.
    Whole(Vec<u8>),
    /// Announces `length`, sends the bytes, and closes the connection.
    Cut(Vec<u8>, usize),
    /// Announces `length`, sends the bytes, and falls silent.
    Stalled(Vec<u8>, usize),
    /// Chunked; the bytes, and then without end these.
    Endless(Vec<u8>, Vec<u8>),
    /// Chunked; all bytes, but no last chunk: the connection is closed.
    Unended(Vec<u8>),
    /// Announces `length` and sends a byte now and then.
    Dripping(Vec<u8>, Duration),
    /// Instead of an HTTP answer: these bytes, and then without end those.
    Raw(Vec<u8>, Vec<u8>),
    /// Nothing at all; the connection stays open.
    Silence,
    /// Nothing at all; the connection is closed.
    Closed,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers other than those of the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// An empty answer.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Whole(Vec::new()),
        }
    }

    /// An answer of bytes.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(Body::Whole(bytes.into()))
    }

    /// A registry's complaint.
    pub fn complaint(status: u16, code: &str, message: &str) -> Self {
        let errors = json!({"errors": [{"code": code, "message": message}]});
        Self::of(errors.to_string())
            .but(status)
            .with("Content-Type", "application/json")
    }

    /// To another place.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::status(307).with("Location", location)
    }

    /// With one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With another status.
    #[must_use]
    pub fn but(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With another body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Only with so many of its bytes; the connection is then closed.
    #[must_use]
    pub fn cut_at(self, count: usize) -> Self {
        let bytes = self.bytes();
        let length = bytes.len();
        self.body(Body::Cut(bytes[..count.min(length)].to_vec(), length))
    }

    /// Its bytes, as far as it has any.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Body::Whole(bytes)
            | Body::Cut(bytes, _)
            | Body::Stalled(bytes, _)
            | Body::Endless(bytes, _)
            | Body::Unended(bytes)
            | Body::Dripping(bytes, _)
            | Body::Raw(bytes, _) => bytes.clone(),
            Body::Silence | Body::Closed => Vec::new(),
        }
    }
}

/// What an honest registry has.
#[derive(Debug, Default)]
pub struct Site {
    /// Media type and bytes of manifests, by tag and by digest.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Uploads that are under way, by number.
    uploads: BTreeMap<usize, Vec<u8>>,
    opened: usize,
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", oci::sha256(bytes))
}

impl Site {
    /// Keeps a blob; its digest is returned.
    pub fn put_blob(&mut self, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Keeps a manifest under its digest, and under a tag if there is one; the digest is returned.
    pub fn put_manifest(&mut self, tag: Option<&str>, media_type: &str, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        for name in tag.into_iter().chain([digest.as_str()]) {
            self.manifests
                .insert(name.to_owned(), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// What an honest registry says.
    pub fn answer(&mut self, request: &Request) -> Answer {
        let read = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(name) = request.manifest() {
            return if read {
                self.give_manifest(name)
            } else {
                self.take_manifest(name, request)
            };
        }
        if request.is_upload() {
            return self.upload(request);
        }
        match request.blob() {
            Some(name) if read => self.give_blob(name, request.range()),
            _ if request.path.ends_with("/tags/list") => Answer::of(r#"{"tags":["1"]}"#),
            _ if request.path == "/v2/" => Answer::of("{}"),
            _ => Answer::complaint(404, "UNSUPPORTED", "no such thing"),
        }
    }

    fn give_manifest(&self, name: &str) -> Answer {
        match self.manifests.get(name) {
            Some((media_type, bytes)) => Answer::of(bytes.clone())
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", digest(bytes)),
            None => Answer::complaint(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn take_manifest(&mut self, name: &str, request: &Request) -> Answer {
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        let tag = (!name.starts_with("sha256:")).then_some(name);
        let digest = self.put_manifest(tag, &media_type, request.body.clone());
        Answer::status(201).with("Docker-Content-Digest", digest)
    }

    fn give_blob(&self, name: &str, range: Option<usize>) -> Answer {
        let Some(bytes) = self.blobs.get(name) else {
            return Answer::complaint(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let all = bytes.len();
        match range.filter(|start| *start < all) {
            Some(start) => Answer::of(&bytes[start..])
                .but(206)
                .with("Content-Range", format!("bytes {start}-{}/{all}", all - 1)),
            None => Answer::of(bytes.clone()),
        }
    }

    fn upload(&mut self, request: &Request) -> Answer {
        let (start, number) = request.path.rsplit_once('/').unwrap_or_default();
        if request.method == "POST" {
            self.opened += 1;
            self.uploads.insert(self.opened, Vec::new());
            return Answer::status(202).with("Location", format!("{start}/{}", self.opened));
        }
        let number: usize = number.parse().unwrap_or(0);
        let Some(upload) = self.uploads.get_mut(&number) else {
            return Answer::complaint(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        };
        upload.extend_from_slice(&request.body);
        match request.method.as_str() {
            "PATCH" => Answer::status(202).with("Location", request.path.clone()),
            "DELETE" => Answer::status(204),
            _ => {
                let bytes = self.uploads.remove(&number).unwrap_or_default();
                let digest = self.put_blob(bytes);
                if request.query.contains(&digest.replace(':', "%3A")) || request.query.contains(&digest) {
                    Answer::status(201).with("Docker-Content-Digest", digest)
                } else {
                    Answer::complaint(
                        400,
                        "DIGEST_INVALID",
                        "provided digest did not match uploaded content",
                    )
                }
            }
        }
    }
}

/// What a test says: an answer, or nothing where the honest one will do.
pub type Misbehaviour = dyn Fn(&Request, &mut Site) -> Option<Answer> + Send + Sync;

/// An address that will be served.
#[derive(Debug)]
pub struct Reserved {
    listener: TcpListener,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Reserved {
    /// A free one.
    pub fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        Ok(Self { listener, host })
    }
}

struct Shared {
    site: Mutex<Site>,
    misbehaviour: Box<Misbehaviour>,
    seen: Mutex<Vec<Request>>,
    /// So many bodies of uploads are not read to their end, but cut.
    uploads_to_cut: AtomicUsize,
    /// Connections that were left open, so that they stay so.
    open: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

/// A running registry; it ends with the value.
pub struct HostileRegistry {
    shared: Arc<Shared>,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl std::fmt::Debug for HostileRegistry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("HostileRegistry")
            .field(&self.host)
            .finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostileRegistry {
    /// Serves `site` at an address. `accepts` is false for one that takes no connection out of the kernel's queue.
    pub fn start(
        at: Reserved,
        site: Site,
        misbehaviour: Box<Misbehaviour>,
        uploads_to_cut: usize,
        accepts: bool,
    ) -> Self {
        let shared = Arc::new(Shared {
            site: Mutex::new(site),
            misbehaviour,
            seen: Mutex::default(),
            uploads_to_cut: AtomicUsize::new(uploads_to_cut),
            open: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let Reserved { listener, host } = at;
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !accepts && !server.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            for stream in listener.incoming().flatten() {
                if server.over.load(Ordering::Relaxed) {
                    return;
                }
                let server = Arc::clone(&server);
                // An error is a client that went away.
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        Self { shared, host }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// Forgets the requests so far.
    pub fn forget_seen(&self) {
        lock(&self.shared.seen).clear();
    }

    /// How many requests came whose line begins so.
    pub fn count(&self, start: &str) -> usize {
        self.seen()
            .iter()
            .filter(|request| request.line().starts_with(start))
            .count()
    }

    /// What the honest registry has by now.
    pub fn with_site<T>(&self, look: impl FnOnce(&mut Site) -> T) -> T {
        look(&mut lock(&self.shared.site))
    }
}

impl Drop for HostileRegistry {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // So that the accepting thread wakes up and sees it.
        let _ = TcpStream::connect(&self.host);
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Answers the requests of one connection.
    fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(request) = self.read(&mut reader)? {
            let answer = {
                let mut site = lock(&self.site);
                (self.misbehaviour)(&request, &mut site).unwrap_or_else(|| site.answer(&request))
            };
            let head_only = request.method == "HEAD";
            if !self.write(&mut stream, &answer, head_only)? {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length: usize = headers
            .get("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let cut = length > 0
            && path.contains("/blobs/uploads/")
            && self
                .uploads_to_cut
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
        let mut body = vec![0; if cut { length / 2 } else { length }];
        reader.read_exact(&mut body)?;
        let mut seen = lock(&self.seen);
        let before = seen
            .iter()
            .filter(|other| other.method == method && other.path == path)
            .count();
        let request = Request {
            method,
            path,
            query,
            headers,
            body,
            nth: before,
        };
        seen.push(request.clone());
        if cut {
            return Ok(None);
        }
        Ok(Some(request))
    }

    /// Gives whether the connection can be used for the next request.
    fn write(&self, stream: &mut TcpStream, answer: &Answer, head_only: bool) -> Result<bool> {
        let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let length = match &answer.body {
            Body::Whole(bytes) | Body::Dripping(bytes, _) => Some(bytes.len()),
            Body::Cut(_, length) | Body::Stalled(_, length) => Some(*length),
            Body::Endless(..) | Body::Unended(_) => None,
            Body::Raw(start, unit) => {
                stream.write_all(start)?;
                while !unit.is_empty() {
                    stream.write_all(unit)?;
                }
                return Ok(false);
            }
            Body::Silence => {
                lock(&self.open).push(stream.try_clone()?);
                return Ok(false);
            }
            Body::Closed => return Ok(false),
        };
        head += &match length {
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        stream.write_all(head.as_bytes())?;
        if head_only {
            return Ok(true);
        }
        self.write_body(stream, &answer.body)
    }

    fn write_body(&self, stream: &mut TcpStream, body: &Body) -> Result<bool> {
        match body {
            Body::Whole(bytes) => {
                stream.write_all(bytes)?;
                return Ok(true);
            }
            Body::Cut(bytes, _) => stream.write_all(bytes)?,
            Body::Stalled(bytes, _) => {
                stream.write_all(bytes)?;
                lock(&self.open).push(stream.try_clone()?);
            }
            Body::Endless(start, unit) => {
                write_chunk(stream, start)?;
                // Many small ones are sent as one large one.
                let unit = unit.repeat((64 << 10) / unit.len().max(1) + 1);
                while !self.over.load(Ordering::Relaxed) {
                    write_chunk(stream, &unit)?;
                }
            }
            Body::Unended(bytes) => write_chunk(stream, bytes)?,
            Body::Dripping(bytes, pause) => {
                for byte in bytes.chunks(1) {
                    if self.over.load(Ordering::Relaxed) {
                        break;
                    }
                    stream.write_all(byte)?;
                    std::thread::sleep(*pause);
                }
            }
            Body::Raw(..) | Body::Silence | Body::Closed => {}
        }
        Ok(false)
    }
}

fn write_chunk(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
    stream.write_all(bytes)?;
    Ok(stream.write_all(b"\r\n")?)
}
