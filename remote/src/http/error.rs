//! What can go wrong with a download.

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

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn secret(url: &str, error: SecretError) -> Self {
        Self::new(url, HttpErrorKind::Secret, error.to_string()).source(error)
    }
}

/// A URL without what may be secret in it: user information and query.
pub(crate) fn public(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[end..])
}
