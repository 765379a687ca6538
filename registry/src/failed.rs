//! One failed attempt: the failure to report, and whether to try again.

use std::io;
use std::time::{Duration, SystemTime};

use crate::cause::{classify_io, says_all};
use crate::error::{AuthState, ErrorKind, Failure, Unreachable};
use crate::response::{Complaint, is_transient, retry_after, status_kind};
use crate::transport::{Response, TransportError};
use crate::url::Url;

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// No connection came about: few attempts.
    Connect,
    /// Something broke on the way.
    Again,
    /// The server said when to come back.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Box<Failure>,
    pub(crate) retry: Retry,
}

impl Failed {
    fn new(kind: ErrorKind, url: &Url, auth: &AuthState, cause: String, retry: Retry) -> Self {
        Self {
            failure: Box::new(Failure {
                kind,
                host: url.authority.clone(),
                url: url.public(),
                status: None,
                code: None,
                message: None,
                auth: auth.clone(),
                cause,
                source: None,
            }),
            retry,
        }
    }

    /// The server answered something that it must not.
    pub(crate) fn protocol(url: &Url, cause: String) -> Self {
        Self::new(
            ErrorKind::Protocol,
            url,
            &AuthState::Anonymous,
            cause,
            Retry::Never,
        )
    }

    /// Not the bytes that were asked for.
    pub(crate) fn mismatch(kind: ErrorKind, url: &Url, cause: String) -> Self {
        Self::new(kind, url, &AuthState::Anonymous, cause, Retry::Never)
    }

    /// The caller's side failed.
    pub(crate) fn local(url: &Url, doing: &str, error: io::Error) -> Self {
        let mut failed = Self::new(
            ErrorKind::Local,
            url,
            &AuthState::Anonymous,
            format!("{doing}: {error}"),
            Retry::Never,
        );
        failed.failure.source = Some(Box::new(error));
        failed
    }

    /// The caller cancelled.
    pub(crate) fn interrupted(url: &Url) -> Self {
        Self::new(
            ErrorKind::Interrupted,
            url,
            &AuthState::Anonymous,
            "interrupted".to_owned(),
            Retry::Never,
        )
    }

    /// No response.
    pub(crate) fn transport(error: TransportError, auth: &AuthState) -> Self {
        let mut failed = Self::new(error.kind, &error.url, auth, error.cause, retry_for(error.kind));
        failed.failure.source = error.source.filter(|_| !says_all(error.kind));
        failed
    }

    /// The body ended in an error.
    pub(crate) fn body(url: &Url, error: io::Error, auth: &AuthState) -> Self {
        let (kind, cause) = classify_io(&error);
        let mut failed = Self::new(kind, url, auth, cause, retry_for(kind));
        failed.failure.source = (!says_all(kind)).then(|| error.into());
        failed
    }

    /// A response with an error status.
    pub(crate) fn status(mut response: Response, auth: &AuthState) -> Self {
        let status = response.status.as_u16();
        let wait = response
            .header("retry-after")
            .and_then(|value| retry_after(value, SystemTime::now()));
        let Complaint { code, message } = Complaint::read(&mut response);
        let (kind, cause) = status_kind(status, code.as_deref());
        let retry = match (is_transient(status), wait) {
            (false, _) => Retry::Never,
            (true, Some(wait)) => Retry::After(wait),
            (true, None) => Retry::Again,
        };
        let mut failed = Self::new(kind, &response.url, auth, cause, retry);
        failed.failure.status = Some(status);
        failed.failure.code = code;
        failed.failure.message = message;
        failed
    }

    /// Whether it makes no sense to ask another endpoint.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.failure.kind, ErrorKind::Local | ErrorKind::Interrupted)
    }
}

fn retry_for(kind: ErrorKind) -> Retry {
    match kind {
        ErrorKind::Unreachable(Unreachable::Broken) => Retry::Again,
        ErrorKind::Unreachable(_) => Retry::Connect,
        _ => Retry::Never,
    }
}
