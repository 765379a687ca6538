//! Requests and answers, also such as no honest server gives.

use serde_json::json;
use std::collections::BTreeMap;
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
