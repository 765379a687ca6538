//! What can go wrong with a download.

use kiln_registry::{ErrorKind, Failure};

use crate::caller::SecretError;

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The URL cannot be used.
    Url,
    /// The server has no such file (404, 410).
    NotFound,
    /// The server wants (other) credentials.
    Denied,
    /// No answer: name not found, no connection, cut again and again, an untrusted certificate.
    Unreachable,
    /// The server answered, and not with the file.
    Server,
    /// The file has more bytes than are taken.
    TooLarge,
    /// A secret cannot be had.
    Secret,
    /// A file of our own cannot be written.
    Local,
    /// The caller does not want it any more.
    Canceled,
}

/// A download that failed.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {cause}")]
pub struct HttpError {
    /// What sort of failure it is.
    pub kind: HttpErrorKind,
    /// The URL, without user information and query.
    pub url: String,
    /// What happened, as a lowercase fragment.
    pub cause: String,
    /// What helps, when something is known to.
    pub hint: Option<String>,
    /// The error below, when there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HttpError {
    pub(crate) fn new(url: &str, kind: HttpErrorKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            url: public(url),
            cause: cause.into(),
            hint: None,
            source: None,
        }
    }

    /// A failed exchange, after its last attempt.
    pub(crate) fn failed(url: &str, failure: Failure) -> Self {
        let kind = kind(&failure);
        let mut error = Self::new(url, kind, failure.cause);
        if public(&failure.url) != error.url && !failure.host.is_empty() {
            error.cause = format!("{} (answer of {})", error.cause, public(&failure.url));
        }
        error.hint = hint(kind, &failure.host);
        error.source = failure.source;
        error
    }

    pub(crate) fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The server says that a version is unchanged that nobody asked about.
    pub fn unasked(url: &str) -> Self {
        Self::new(
            url,
            HttpErrorKind::Server,
            "the server's answer is about another version",
        )
    }

    pub(crate) fn secret(url: &str, error: SecretError) -> Self {
        Self::new(url, HttpErrorKind::Secret, error.to_string()).source(error)
    }
}

fn kind(failure: &Failure) -> HttpErrorKind {
    match failure.kind {
        ErrorKind::Unauthorized | ErrorKind::Denied => HttpErrorKind::Denied,
        ErrorKind::NotFound => HttpErrorKind::NotFound,
        ErrorKind::Unreachable(_) | ErrorKind::TlsUntrusted => HttpErrorKind::Unreachable,
        ErrorKind::Interrupted => HttpErrorKind::Canceled,
        ErrorKind::Local => HttpErrorKind::Local,
        ErrorKind::Protocol if failure.status.is_none() && failure.host.is_empty() => HttpErrorKind::Url,
        _ => match failure.status {
            Some(404 | 410) => HttpErrorKind::NotFound,
            _ => HttpErrorKind::Server,
        },
    }
}

fn hint(kind: HttpErrorKind, host: &str) -> Option<String> {
    let name = host.split(':').next().unwrap_or_default();
    match kind {
        HttpErrorKind::Denied => Some(format!(
            "give a token for {name} as the secret HTTP_AUTH_TOKEN_{name}, or a whole header as HTTP_AUTH_HEADER_{name}"
        )),
        HttpErrorKind::Unreachable => Some(
            "check the network and the proxy settings; with --checksum a file that was downloaded before needs no network"
                .to_owned(),
        ),
        _ => None,
    }
}

/// A URL without what may be secret in it: user information and query.
pub fn public(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[end..])
}
