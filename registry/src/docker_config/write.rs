//! Keeping and forgetting credentials: in a helper where the file names one, else in the file itself.
//!
//! The file belongs to Docker and others as much as to us: what we do not know in it stays, it is replaced by one
//! rename, and only its owner may read it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Serialize as _;
use serde_json::{Map, Value};

use super::{DockerConfig, DockerConfigError, HUB_KEY, HelperError, Secret, TOKEN_USER, is_hub, same_host};

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// In the file, readable for whoever may read it.
    File(PathBuf),
    /// In the care of this helper.
    Helper(String),
}

/// Credentials could not be kept or forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] DockerConfigError),
    /// The file is JSON, but not what Docker writes.
    #[error("{}: {what} is not an object", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
    },
    /// The file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper refused.
    #[error("docker-credential-{}", .0.helper)]
    Helper(#[from] HelperError),
}

impl DockerConfig {
    /// A configuration with nothing but these credentials.
    pub fn with_credentials(host: &str, secret: &Secret) -> Self {
        let mut config = Self::default();
        let entry = match secret.clone() {
            Secret::Password { username, password } => super::AuthEntry {
                username,
                password,
                ..super::AuthEntry::default()
            },
            Secret::IdentityToken(identity_token) => super::AuthEntry {
                identity_token,
                ..super::AuthEntry::default()
            },
            Secret::RegistryToken(registry_token) => super::AuthEntry {
                registry_token,
                ..super::AuthEntry::default()
            },
        };
        config.auths.insert(host.to_owned(), entry);
        config
    }

    /// Keeps credentials for a host in the file `path` or in the helper that it names for the host. `directories`
    /// are searched for helpers before the usual path.
    pub fn keep(
        path: &Path,
        directories: &[PathBuf],
        host: &str,
        secret: &Secret,
    ) -> Result<Keeper, KeepError> {
        let config = Self::load(path)?.unwrap_or_default();
        let config = config.with_helper_directories(directories.to_vec());
        let key = if is_hub(host) { HUB_KEY } else { host };
        let mut file = read(path)?;
        let auths = object(&mut file, "auths", path)?;
        auths.retain(|known, _| known == key || !same_host(known, host));
        let entry = auths.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        let Some(entry) = entry.as_object_mut() else {
            return Err(KeepError::Form {
                path: path.to_owned(),
                what: "auths",
            });
        };
        for name in ["auth", "username", "password", "identitytoken", "registrytoken"] {
            entry.remove(name);
        }
        let keeper = if let Some(helper) = config.helper(host) {
            config.store_in_helper(helper, key, secret)?;
            Keeper::Helper(helper.to_owned())
        } else {
            let (name, value) = entry_of(secret);
            entry.insert(name.to_owned(), Value::String(value));
            Keeper::File(path.to_owned())
        };
        write(path, &file)?;
        Ok(keeper)
    }

    /// Forgets the credentials for a host. False when there were none.
    pub fn forget(path: &Path, directories: &[PathBuf], host: &str) -> Result<bool, KeepError> {
        let Some(config) = Self::load(path)? else {
            return Ok(false);
        };
        let config = config.with_helper_directories(directories.to_vec());
        let mut file = read(path)?;
        let auths = object(&mut file, "auths", path)?;
        let before = auths.len();
        auths.retain(|known, _| !same_host(known, host));
        let listed = auths.len() != before;
        let mut kept = false;
        if let Some(helper) = config.helper(host) {
            let key = if is_hub(host) { HUB_KEY } else { host };
            kept = config
                .ask_helper(helper, key)
                .map_err(|reason| helper_error(helper, reason))?
                .is_some();
            if kept {
                let erased = config.run_named_helper(helper, "erase", key.as_bytes());
                let output = erased.map_err(|reason| helper_error(helper, reason))?;
                if !output.success {
                    return Err(helper_error(helper, output.complaint(helper)).into());
                }
            }
        }
        if listed {
            write(path, &file)?;
        }
        Ok(listed || kept)
    }

    fn store_in_helper(&self, helper: &str, server: &str, secret: &Secret) -> Result<(), HelperError> {
        let (username, secret) = match secret {
            Secret::Password { username, password } => (username.as_str(), password),
            Secret::IdentityToken(token) | Secret::RegistryToken(token) => (TOKEN_USER, token),
        };
        let input = serde_json::json!({ "ServerURL": server, "Username": username, "Secret": secret });
        let output = self
            .run_named_helper(helper, "store", input.to_string().as_bytes())
            .map_err(|reason| helper_error(helper, reason))?;
        if output.success {
            return Ok(());
        }
        // A helper that repeats its input must not make us repeat it.
        let complaint = output.complaint(helper).replace(secret.as_str(), "…");
        Err(helper_error(helper, complaint))
    }
}

/// A secret as the file's key and value.
fn entry_of(secret: &Secret) -> (&'static str, String) {
    match secret {
        Secret::Password { username, password } => {
            let pair = format!("{username}:{password}");
            ("auth", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Secret::IdentityToken(token) => ("identitytoken", token.clone()),
        Secret::RegistryToken(token) => ("registrytoken", token.clone()),
    }
}

fn helper_error(helper: &str, reason: String) -> HelperError {
    HelperError {
        helper: helper.to_owned(),
        reason,
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, KeepError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => {
            let path = path.to_owned();
            return Err(DockerConfigError::Read { path, source }.into());
        }
    };
    serde_json::from_slice(&bytes).map_err(|source| {
        let path = path.to_owned();
        DockerConfigError::Parse { path, source }.into()
    })
}

fn object<'a>(
    file: &'a mut Map<String, Value>,
    name: &'static str,
    path: &Path,
) -> Result<&'a mut Map<String, Value>, KeepError> {
    let value = file.entry(name).or_insert_with(|| Value::Object(Map::new()));
    value.as_object_mut().ok_or_else(|| KeepError::Form {
        path: path.to_owned(),
        what: name,
    })
}

/// Replaces the file; a link to it (dotfiles in a repository) stays a link.
fn write(path: &Path, file: &Map<String, Value>) -> Result<(), KeepError> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |source| KeepError::Write {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    file.serialize(&mut serializer)
        .map_err(|error| failed(error.into()))?;
    if let Some(folder) = target.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    let mut part = target.clone().into_os_string();
    part.push(format!(".kiln-{}", std::process::id()));
    let part = PathBuf::from(part);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut out| {
            out.write_all(&bytes)?;
            out.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, &target));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests;
