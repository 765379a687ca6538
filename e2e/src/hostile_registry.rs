//! A registry that serves real content and misbehaves as a test says.
//!
//! A [`Site`] is what an honest registry would have, and [`Site::answer`] what it would say. A test gives a function
//! that is asked first and may say something else: half a body, no end, another digest. Every request is kept.

mod answer;
mod site;

use crate::Result;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use answer::{Answer, Body, Request};
pub use site::{Site, digest};

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

/// What becomes of the bodies of uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// They are read.
    Read,
    /// So many are cut in the middle.
    Cut(usize),
    /// Nobody reads them.
    Unread,
}

struct Shared {
    site: Mutex<Site>,
    misbehaviour: Box<Misbehaviour>,
    seen: Mutex<Vec<Request>>,
    uploads: Uploads,
    /// How many bodies of uploads were cut.
    uploads_cut: AtomicUsize,
    /// So many bodies came whose length was not said before.
    unmeasured: AtomicUsize,
    /// Whether nothing is read of those but their beginning.
    stalls: AtomicBool,
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
        uploads: Uploads,
        accepts: bool,
    ) -> Self {
        let shared = Arc::new(Shared {
            site: Mutex::new(site),
            misbehaviour,
            seen: Mutex::default(),
            uploads,
            uploads_cut: AtomicUsize::new(0),
            unmeasured: AtomicUsize::new(0),
            stalls: AtomicBool::new(false),
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

    /// How many bodies came, or come just now, whose length was not said before. A request is
    /// [seen](HostileRegistry::seen) only when its body has come to its end.
    pub fn unmeasured(&self) -> usize {
        self.shared.unmeasured.load(Ordering::Relaxed)
    }

    /// From now on, nothing is read of bodies whose length is not said before, but their beginning. The connection
    /// stays open.
    pub fn stall_unmeasured(&self) {
        self.shared.stalls.store(true, Ordering::Relaxed);
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
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|how| how == "chunked");
        let is_upload = (length > 0 || chunked) && path.contains("/blobs/uploads/");
        let left = |cut| matches!(self.uploads, Uploads::Cut(all) if cut < all).then_some(cut + 1);
        let cut = is_upload
            && self
                .uploads_cut
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok();
        let unread = is_upload && self.uploads == Uploads::Unread;
        let body = if chunked && !unread {
            self.unmeasured.fetch_add(1, Ordering::Relaxed);
            let stalls = self.stalls.load(Ordering::Relaxed);
            let body = read_chunks(reader, cut || stalls)?;
            if stalls {
                lock(&self.open).push(reader.get_ref().try_clone()?);
                return Ok(None);
            }
            body
        } else {
            let mut body = vec![0; if cut { length / 2 } else { length }];
            if unread {
                body.clear();
            }
            reader.read_exact(&mut body)?;
            body
        };
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
        drop(seen);
        if unread {
            lock(&self.open).push(reader.get_ref().try_clone()?);
        }
        Ok((!cut && !unread).then_some(request))
    }

    /// Gives whether the connection can be used for the next request.
    fn write(&self, stream: &mut TcpStream, answer: &Answer, head_only: bool) -> Result<bool> {
        let mut head = vec![format!("HTTP/1.1 {} Whatever\r\n", answer.status)];
        head.extend(
            answer
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n")),
        );
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
        head.push(match length {
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        });
        stream.write_all(head.concat().as_bytes())?;
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

/// A body whose length was not said before; of one that is cut, the first chunk.
fn read_chunks(reader: &mut impl BufRead, cut: bool) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16)?;
        let before = body.len();
        body.resize(before + length, 0);
        reader.read_exact(&mut body[before..])?;
        reader.read_line(&mut line)?;
        if length == 0 || cut {
            return Ok(body);
        }
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
