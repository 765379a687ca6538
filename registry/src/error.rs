//! What can go wrong, for people and for machines.
//!
//! An [`Error`] is about one operation on one reference. It holds a [`Failure`] for every endpoint
//! (mirror or registry) that was tried; the last one decides its [`ErrorKind`].

use std::fmt;

/// Result of a registry operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, for code that has to decide what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The repository, tag, manifest or blob is not there.
    NotFound,
    /// The registry wants (other) credentials. Many registries answer so for what is not there.
    Unauthorized,
    /// The credentials are known and do not suffice.
    Denied,
    /// Too many requests.
    RateLimited,
    /// No answer: see [`Unreachable`].
    Unreachable(Unreachable),
    /// The server's certificate is not signed by an authority that we trust.
    TlsUntrusted,
    /// The bytes are not those that the digest names.
    DigestMismatch,
    /// More or fewer bytes than the descriptor says.
    SizeMismatch,
    /// The server failed (status 5xx) until the last attempt.
    Server,
    /// The server does not speak the protocol, or breaks it.
    Protocol,
    /// The caller's sink or source of bytes failed.
    Local,
    /// The caller cancelled.
    Interrupted,
}

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unreachable {
    /// The host name was not found.
    Dns,
    /// No connection: refused, no route, timed out.
    Connect,
    /// Connected, but the TLS handshake failed (for another reason than trust).
    Tls,
    /// The proxy refused, or cannot be reached.
    Proxy,
    /// The connection was cut or stalled, again and again.
    Broken,
}

/// Whom the registry saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AuthState {
    /// No credentials were known for the host.
    #[default]
    Anonymous,
    /// Credentials of the Docker configuration.
    User {
        /// User name, or `<token>` for an identity token.
        name: String,
    },
    /// Credentials from a credential helper.
    Helper {
        /// Name of the helper, without `docker-credential-`.
        helper: String,
        /// User name that it gave.
        name: String,
    },
    /// The token service refused the credentials, so the request went out anonymously.
    Refused {
        /// User name.
        name: String,
    },
    /// A credential helper is configured but failed, so the request went out anonymously.
    HelperFailed {
        /// Name of the helper.
        helper: String,
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for AuthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User { name } => write!(f, "as user {name}"),
            Self::Helper { helper, name } => write!(f, "as user {name} of credential helper {helper}"),
            Self::Refused { name } => write!(f, "anonymous, because the password of {name} was refused"),
            Self::HelperFailed { helper, reason } => {
                write!(
                    f,
                    "anonymous, because credential helper {helper} failed: {reason}"
                )
            }
        }
    }
}

/// One endpoint's reason to fail.
#[derive(Debug)]
pub struct Failure {
    /// For machines.
    pub kind: ErrorKind,
    /// Host with port.
    pub host: String,
    /// The URL asked, without query, user or password.
    pub url: String,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// Code of the registry's error body, such as `MANIFEST_UNKNOWN`.
    pub code: Option<String>,
    /// Message of the registry's error body, bounded and on one line.
    pub message: Option<String>,
    /// Whom the registry saw.
    pub auth: AuthState,
    /// What happened, as a lowercase fragment.
    pub cause: String,
    /// The error below, when there is one.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.cause)?;
        match (&self.code, &self.message) {
            (Some(code), Some(message)) => write!(f, " ({code}: {message})")?,
            (Some(text), None) | (None, Some(text)) => write!(f, " ({text})")?,
            (None, None) => {}
        }
        if matches!(
            self.kind,
            ErrorKind::Unauthorized | ErrorKind::Denied | ErrorKind::RateLimited
        ) || matches!(self.auth, AuthState::HelperFailed { .. })
        {
            write!(f, " [{}]", self.auth)?;
        }
        Ok(())
    }
}

/// A failed operation.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    operation: &'static str,
    reference: String,
    earlier: Vec<Failure>,
    last: Failure,
}

impl Error {
    pub(crate) fn new(
        operation: &'static str,
        reference: impl fmt::Display,
        earlier: Vec<Failure>,
        last: Failure,
    ) -> Self {
        Self(Box::new(Inner {
            operation,
            reference: reference.to_string(),
            earlier,
            last,
        }))
    }

    /// Kind of the last endpoint's failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.last.kind
    }

    /// What was attempted: `resolve`, `fetch manifest of`, `fetch blob of`, …
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The image reference that the operation was about.
    pub fn reference(&self) -> &str {
        &self.0.reference
    }

    /// The last endpoint's failure: the registry itself, unless a mirror was the end of it.
    pub fn failure(&self) -> &Failure {
        &self.0.last
    }

    /// Every endpoint that was tried, in order.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.0.earlier.iter().chain(std::iter::once(&self.0.last))
    }

    /// What the user can do about it, when something is known to help.
    pub fn hint(&self) -> Option<String> {
        let failure = self.failure();
        // Users and configuration files know Docker Hub by another name than its server's.
        let host = match failure.host.as_str() {
            "registry-1.docker.io" => "docker.io",
            host => host,
        };
        Some(match (failure.kind, &failure.auth) {
            (_, AuthState::HelperFailed { helper, .. }) => {
                format!("make docker-credential-{helper} work, or log in to {host} without it")
            }
            (ErrorKind::Unauthorized | ErrorKind::Denied, AuthState::Anonymous) => format!(
                "check the name; if the repository is private, log in to {host} (no credentials were found for it)"
            ),
            (ErrorKind::Unauthorized | ErrorKind::Denied, auth) => {
                format!("{host} was asked {auth}: check the password and the rights of that account")
            }
            (ErrorKind::RateLimited, AuthState::Anonymous) => {
                format!("log in to {host} for a higher limit, or set a mirror")
            }
            (ErrorKind::TlsUntrusted, _) => {
                format!("pass the certificate authority of {host} as a CA bundle, or name {host} as insecure")
            }
            (ErrorKind::Unreachable(Unreachable::Tls), _) => {
                format!("if {host} speaks plain HTTP, name it as insecure")
            }
            (ErrorKind::Unreachable(_), _) => {
                format!("check the network and the proxy settings, or set a mirror for {host}")
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.operation, self.0.reference, self.0.last)?;
        for failure in &self.0.earlier {
            write!(f, "; tried before: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.last.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Docker's configuration cannot be read.
    #[error(transparent)]
    DockerConfig(#[from] crate::docker_config::DockerConfigError),
    /// A mirror is no usable URL.
    #[error("mirror \"{mirror}\" of {registry}: {reason}")]
    Mirror {
        /// Registry host that the mirror was given for.
        registry: String,
        /// The mirror as written.
        mirror: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A proxy is no usable URL. (The URL is not shown: it may hold a password.)
    #[error("the {scheme} proxy is not a usable URL")]
    Proxy {
        /// `http` or `https`.
        scheme: &'static str,
    },
    /// A CA bundle that was asked for cannot be read.
    #[error("read CA bundle {}", path.display())]
    CaBundle {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS library refuses its settings.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// A CA bundle that was asked for holds no certificate.
    #[error("CA bundle {} holds no certificate", path.display())]
    CaBundleEmpty {
        /// The file.
        path: std::path::PathBuf,
    },
}
