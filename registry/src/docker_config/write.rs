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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    /// Any JSON, with the names that mean something among others.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zA-Z0-9:=/ .\"\\\\é]{0,12}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("auths".to_owned()),
            Just("auth".to_owned()),
            Just("r.example".to_owned()),
            Just("https://r.example/v1/".to_owned()),
            Just("HttpHeaders".to_owned()),
            "[a-z.:]{0,6}",
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever the file holds: credentials are found again and everything else stays, or the file is left alone.
        #[test]
        fn what_others_wrote_stays(
            mut file in any_json(), auths in any_json(), username in "[a-z]{1,9}",
            // Docker's readers take NULs off a password's end, and so do we.
            text in "[^\0]{1,20}",
        ) {
            if let Some(file) = file.as_object_mut() {
                file.insert("auths".to_owned(), auths);
            }
            let folder = Folder::new("any");
            let path = folder.0.join("config.json");
            let before = serde_json::to_vec(&file).unwrap();
            std::fs::write(&path, &before).unwrap();
            let secret = password(&username, &text);
            let others = |bytes: &[u8]| -> Value {
                let mut value: Value = serde_json::from_slice(bytes).unwrap();
                if let Some(auths) = value.get_mut("auths").and_then(Value::as_object_mut) {
                    auths.retain(|known, _| !same_host(known, "r.example"));
                }
                value
            };
            if DockerConfig::keep(&path, &[], "r.example", &secret).is_ok() {
                prop_assert_eq!(found(&path, "r.example"), Some(secret));
                let kept = std::fs::read(&path).unwrap();
                prop_assert_eq!(others(&kept), others(&before));
                prop_assert!(DockerConfig::forget(&path, &[], "r.example").unwrap());
                prop_assert_eq!(found(&path, "r.example"), None);
                let forgotten = std::fs::read(&path).unwrap();
                prop_assert_eq!(others(&forgotten), others(&before));
            } else {
                prop_assert_eq!(std::fs::read(&path).unwrap(), before);
            }
            // Nothing half written is left beside it.
            prop_assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
        }

        #[test]
        fn any_bytes_are_refused_and_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let folder = Folder::new("bytes");
            let path = folder.0.join("config.json");
            std::fs::write(&path, &bytes).unwrap();
            if DockerConfig::keep(&path, &[], "r.example", &password("u", "p")).is_err() {
                prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
            }
            let _ = DockerConfig::forget(&path, &[], "r.example");
        }
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kiln-keep-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn password(username: &str, password: &str) -> Secret {
        Secret::Password {
            username: username.into(),
            password: password.into(),
        }
    }

    fn found(path: &Path, host: &str) -> Option<Secret> {
        let config = DockerConfig::load(path).unwrap().unwrap();
        config
            .credentials(host)
            .unwrap()
            .map(|credentials| credentials.secret)
    }

    #[test]
    fn the_file_keeps_what_it_had_and_gains_what_is_kept() {
        let folder = Folder::new("file");
        let path = folder.0.join("deep/config.json");
        let secret = password("u", "p:with:colons");
        let keeper = DockerConfig::keep(&path, &[], "r.example:5000", &secret).unwrap();
        assert_eq!(keeper, Keeper::File(path.clone()));
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "only the owner"
        );
        assert_eq!(found(&path, "r.example:5000"), Some(secret));

        let json = r#"{"HttpHeaders":{"X":"y"},"auths":{"other":{"auth":"YTpi"},"https://r.example/v1/":{"auth":"YTpi","email":"e"},
            "docker.io":{"auth":"YTpi"}}}"#;
        std::fs::write(&path, json).unwrap();
        DockerConfig::keep(&path, &[], "r.example", &password("n", "q")).unwrap();
        DockerConfig::keep(&path, &[], "docker.io", &Secret::IdentityToken("t".into())).unwrap();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["HttpHeaders"]["X"], "y");
        assert_eq!(file["auths"]["other"]["auth"], "YTpi");
        assert_eq!(file["auths"].get("https://r.example/v1/"), None, "replaced");
        assert_eq!(file["auths"][HUB_KEY]["identitytoken"], "t");
        assert_eq!(found(&path, "r.example"), Some(password("n", "q")));

        assert!(DockerConfig::forget(&path, &[], "r.example").unwrap());
        assert!(!DockerConfig::forget(&path, &[], "r.example").unwrap());
        assert_eq!(found(&path, "r.example"), None);
        assert_eq!(found(&path, "other"), Some(password("a", "b")));
    }

    #[test]
    fn a_broken_file_is_left_alone_and_a_link_stays_one() {
        let folder = Folder::new("broken");
        let path = folder.0.join("config.json");
        for broken in ["{", "[]", r#"{"auths":[]}"#] {
            std::fs::write(&path, broken).unwrap();
            assert!(
                DockerConfig::keep(&path, &[], "h", &password("u", "p")).is_err(),
                "{broken}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
        }
        let real = folder.0.join("real.json");
        std::fs::rename(&path, &real).unwrap();
        std::fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        DockerConfig::keep(&path, &[], "h", &password("u", "p")).unwrap();
        assert!(path.is_symlink());
        assert_eq!(found(&real, "h"), Some(password("u", "p")));
    }

    #[test]
    fn helpers_are_told_and_the_file_holds_no_secret() {
        let folder = Folder::new("helper");
        let log = folder.0.join("log");
        let script = format!(
            "#!/bin/sh\nread input\necho \"$1 $input\" >> {log}\n\
             case $1 in get) echo '{{\"Username\":\"u\",\"Secret\":\"s\"}}';; esac\n\
             case $input in *refuse.example*) echo no room for hunter2; exit 1;; esac\n",
            log = log.display()
        );
        let helper = folder.0.join("docker-credential-test");
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.0.join("config.json");
        std::fs::write(&path, r#"{"credsStore":"test"}"#).unwrap();
        let directories = [folder.0.clone()];
        let secret = password("u", "hunter2");
        let keeper = DockerConfig::keep(&path, &directories, "h.example", &secret).unwrap();
        assert_eq!(keeper, Keeper::Helper("test".to_owned()));
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(file.contains("h.example") && !file.contains("hunter2"), "{file}");
        assert!(DockerConfig::forget(&path, &directories, "h.example").unwrap());
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(
            told.contains(r#"store {"Secret":"hunter2","ServerURL":"h.example","Username":"u"}"#),
            "{told}"
        );
        assert!(told.contains("\nerase h.example\n"), "{told}");
        let error = DockerConfig::keep(&path, &directories, "refuse.example", &secret).unwrap_err();
        let KeepError::Helper(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.reason, "no room for …");
    }
}
