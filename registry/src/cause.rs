//! Errors of the HTTP client by kind, and in words.

use std::io;

use crate::config::Interrupted;
use crate::error::{ErrorKind, Unreachable};
use crate::tls::StageError;
use crate::wait::is_interrupted;

/// Whether the cause has all that is known of an error, so that the one below would only repeat it.
pub(crate) fn says_all(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unreachable(Unreachable::Broken | Unreachable::Dns)
            | ErrorKind::Protocol
            | ErrorKind::Interrupted
    )
}

/// Kind and wording of an error while a body is read.
pub(crate) fn classify_io(error: &io::Error) -> (ErrorKind, String) {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<ureq::Error>())
    {
        Some(inner) => classify(inner),
        None => io_cause(error),
    }
}

/// Kind and wording of an error of an exchange.
pub(crate) fn classify(error: &ureq::Error) -> (ErrorKind, String) {
    use ErrorKind::{Protocol, TlsUntrusted, Unreachable as Un};
    match error {
        ureq::Error::Io(error) => io_cause(error),
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (Un(Unreachable::Connect), "no connection in time".to_owned())
        }
        ureq::Error::Timeout(_) => (Un(Unreachable::Broken), "no data for too long".to_owned()),
        ureq::Error::HostNotFound => (Un(Unreachable::Dns), "host not found".to_owned()),
        ureq::Error::ConnectionFailed => (Un(Unreachable::Connect), "no connection".to_owned()),
        ureq::Error::ConnectProxyFailed(reason) => {
            (Un(Unreachable::Proxy), format!("proxy refused: {reason}"))
        }
        // How much had come by then says nothing.
        ureq::Error::LargeResponseHeader(_, limit) => (
            Protocol,
            format!("the answer's headers have more than {limit} bytes"),
        ),
        ureq::Error::BodyStalled => (Un(Unreachable::Broken), "connection broke off".to_owned()),
        ureq::Error::Other(other) => match other.downcast_ref::<StageError>() {
            Some(StageError::Dns(inner) | StageError::Tls(inner)) if stopped(inner) => classify(inner),
            Some(StageError::Dns(inner)) => {
                (Un(Unreachable::Dns), format!("host not found: {}", plain(inner)))
            }
            Some(StageError::Tls(inner)) => match certificate_problem(inner) {
                Some(problem) => (TlsUntrusted, format!("certificate not trusted: {problem}")),
                None => (
                    Un(Unreachable::Tls),
                    format!("TLS handshake failed: {}", plain(inner)),
                ),
            },
            None => (Protocol, other.to_string()),
        },
        error => (Protocol, error.to_string()),
    }
}

/// Whether the caller wanted no more while a connection was made.
fn stopped(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if is_interrupted(error))
}

/// The text of an error without the prefix that the HTTP client adds.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn io_cause(error: &io::Error) -> (ErrorKind, String) {
    use io::ErrorKind as Io;
    if is_interrupted(error) {
        return (ErrorKind::Interrupted, Interrupted.to_string());
    }
    let reach = match error.kind() {
        Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable | Io::AddrNotAvailable => {
            Unreachable::Connect
        }
        _ => Unreachable::Broken,
    };
    let text = match error.kind() {
        Io::ConnectionRefused => "connection refused".to_owned(),
        Io::UnexpectedEof => "connection closed before the end".to_owned(),
        _ => error.to_string(),
    };
    (ErrorKind::Unreachable(reach), text)
}

fn certificate_problem(error: &ureq::Error) -> Option<String> {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => Some(problem.to_string()),
        _ => None,
    }
}
