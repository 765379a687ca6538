//! Credentials from Docker's `config.json`: `auths`, `credsStore`, `credHelpers`.
//!
//! A host's own helper (`credHelpers`) goes before the general one (`credsStore`), and that before
//! the file's own `auths`. The core does not look for the file: the caller names it. `helper` speaks with helpers,
//! `write` keeps and forgets credentials.

mod helper;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

pub use helper::HelperError;
pub use write::{KeepError, Keeper};

/// The key under which Docker keeps the credentials of Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names that all mean Docker Hub.
const HUB_HOSTS: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];
/// User name that marks the secret as an identity token (helper protocol).
const TOKEN_USER: &str = "<token>";

/// A parsed `config.json`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(skip)]
    helper_directories: Vec<PathBuf>,
}

#[derive(Clone, Default, Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthEntry(…)")
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerConfigError {
    /// It exists but cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON of the expected form.
    #[error("parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// What to prove oneself with.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// User name and password.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A bearer token to be sent as it is.
    RegistryToken(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// Credentials and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What to send.
    pub secret: Secret,
    /// The helper that gave them, without `docker-credential-`.
    pub helper: Option<String>,
}

impl DockerConfig {
    /// Reads the file; `Ok(None)` when there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, DockerConfigError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(DockerConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| DockerConfigError::Parse {
                path: path.to_owned(),
                source,
            })
    }

    /// Directories in which helpers are looked for before the usual search path.
    #[must_use]
    pub(crate) fn with_helper_directories(mut self, directories: Vec<PathBuf>) -> Self {
        self.helper_directories = directories;
        self
    }

    /// Credentials for a registry host (with port where it has one); `None` when there are none.
    pub fn credentials(&self, host: &str) -> Result<Option<Credentials>, HelperError> {
        if let Some(helper) = self.helper(host) {
            let server = if is_hub(host) { HUB_KEY } else { host };
            match self.ask_helper(helper, server) {
                Ok(Some(secret)) => {
                    return Ok(Some(Credentials {
                        secret,
                        helper: Some(helper.to_owned()),
                    }));
                }
                Ok(None) => {}
                Err(reason) => {
                    return Err(HelperError {
                        helper: helper.to_owned(),
                        reason,
                    });
                }
            }
        }
        // Docker's own spelling of the key wins over other spellings of the same host.
        let exact = if is_hub(host) { HUB_KEY } else { host };
        let entries = self
            .auths
            .get_key_value(exact)
            .into_iter()
            .chain(self.auths.iter());
        let secret = entries
            .filter(|(key, _)| same_host(key, host))
            .find_map(|(_, entry)| entry.secret());
        Ok(secret.map(|secret| Credentials { secret, helper: None }))
    }

    /// The helper that looks after a host's credentials.
    fn helper(&self, host: &str) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(key, _)| same_host(key, host));
        let helper = own
            .map(|(_, helper)| helper.as_str())
            .or(self.creds_store.as_deref());
        helper.filter(|helper| !helper.is_empty())
    }
}

impl AuthEntry {
    fn secret(&self) -> Option<Secret> {
        if !self.registry_token.is_empty() {
            return Some(Secret::RegistryToken(self.registry_token.clone()));
        }
        if !self.identity_token.is_empty() {
            return Some(Secret::IdentityToken(self.identity_token.clone()));
        }
        if !self.username.is_empty() {
            return Some(Secret::Password {
                username: self.username.clone(),
                password: self.password.clone(),
            });
        }
        let engine = base64::engine::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
        );
        let decoded = String::from_utf8(engine.decode(self.auth.trim()).ok()?).ok()?;
        // Docker pads with NUL bytes in old files.
        let (username, password) = decoded.trim_end_matches('\0').split_once(':')?;
        if username.is_empty() {
            return None;
        }
        Some(if username == TOKEN_USER {
            Secret::IdentityToken(password.to_owned())
        } else {
            Secret::Password {
                username: username.to_owned(),
                password: password.to_owned(),
            }
        })
    }
}

pub(crate) fn is_hub(host: &str) -> bool {
    HUB_HOSTS.contains(&host)
}

/// Whether a key of the file (`host`, `https://host/v1/`, …) means this host.
fn same_host(key: &str, host: &str) -> bool {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.split('/').next().unwrap_or_default();
    key.eq_ignore_ascii_case(host) || (is_hub(key) && is_hub(host))
}
