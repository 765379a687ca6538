//! Credentials from Docker's `config.json`: `auths`, `credsStore`, `credHelpers`.
//!
//! A host's own helper (`credHelpers`) goes before the general one (`credsStore`), and that before
//! the file's own `auths`. The core does not look for the file: the caller names it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;

/// The key under which Docker keeps the credentials of Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names that all mean Docker Hub.
const HUB_HOSTS: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];
/// A helper may ask a person to unlock a key ring; longer than this nobody waits.
const HELPER_TIMEOUT: Duration = Duration::from_mins(1);
/// No helper's answer is longer; ECR's tokens are about 2 KiB.
const HELPER_ANSWER_LIMIT: u64 = 256 * 1024;
/// How often a running helper is looked at.
const HELPER_POLL: Duration = Duration::from_millis(5);
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

/// A credential helper did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HelperError {
    /// Its name, without `docker-credential-`.
    pub helper: String,
    /// What happened or what it said.
    pub reason: String,
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
    pub fn with_helper_directories(mut self, directories: Vec<PathBuf>) -> Self {
        self.helper_directories = directories;
        self
    }

    /// Credentials for a registry host (with port where it has one); `None` when there are none.
    pub fn credentials(&self, host: &str) -> Result<Option<Credentials>, HelperError> {
        let own = self.cred_helpers.iter().find(|(key, _)| same_host(key, host));
        let helper = own
            .map(|(_, helper)| helper.as_str())
            .or(self.creds_store.as_deref());
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
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

    fn ask_helper(&self, helper: &str, server: &str) -> Result<Option<Secret>, String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Username", default)]
            username: String,
            #[serde(rename = "Secret", default)]
            secret: String,
        }
        // The name becomes part of a program's name: keep it from becoming a path.
        if !helper
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err("its name is not a plain word".to_owned());
        }
        let name = format!("docker-credential-{helper}");
        let program = self
            .helper_directories
            .iter()
            .map(|directory| directory.join(&name));
        let program = program
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| PathBuf::from(&name));
        let output = run_helper(&program, server).map_err(|error| format!("{name}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.success {
            if text.contains("credentials not found") {
                return Ok(None);
            }
            return Err(
                crate::response::one_line(&text, 200).unwrap_or_else(|| format!("{name} failed silently"))
            );
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{name} gave no JSON: {error}"))?;
        Ok(match (answer.username.as_str(), answer.secret) {
            (_, secret) if secret.is_empty() => None,
            (TOKEN_USER, secret) => Some(Secret::IdentityToken(secret)),
            (username, password) => Some(Secret::Password {
                username: username.to_owned(),
                password,
            }),
        })
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

struct HelperOutput {
    success: bool,
    stdout: Vec<u8>,
}

fn run_helper(program: &Path, server: &str) -> io::Result<HelperOutput> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = talk_to_helper(&mut child, server);
    if outcome.is_err() {
        // It may have ended by itself; either way it must not stay behind as a zombie.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn talk_to_helper(child: &mut Child, server: &str) -> io::Result<HelperOutput> {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(server.as_bytes()) {
            // A helper that does not read its input has its reasons: its answer counts.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        match stdout {
            Some(stdout) => stdout
                .take(HELPER_ANSWER_LIMIT)
                .read_to_end(&mut answer)
                .map(|_| answer),
            None => Ok(answer),
        }
    });
    let deadline = Instant::now() + HELPER_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in 60 s"));
        }
        std::thread::sleep(HELPER_POLL);
    };
    let stdout = reader
        .join()
        .map_err(|_| io::Error::other("its output could not be read"))??;
    Ok(HelperOutput {
        success: status.success(),
        stdout,
    })
}

fn is_hub(host: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn config(json: &str) -> DockerConfig {
        serde_json::from_str(json).unwrap()
    }

    fn password(username: &str, password: &str) -> Secret {
        Secret::Password {
            username: username.into(),
            password: password.into(),
        }
    }

    #[test]
    fn auths_table() {
        let json = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldDp4"},
            "reg.example:5000":{"username":"u","password":"p"},
            "https://v2.example/v2/":{"auth":"YTpi"},
            "tok.example":{"auth":"PHRva2VuPjpyZWZyZXNo"},
            "id.example":{"auth":"dTpw","identitytoken":"idt"},
            "bearer.example":{"registrytoken":"rt"},
            "empty.example":{},
            "broken.example":{"auth":"%%%"},
            "unpadded.example":{"auth":"YWI6Yw"}
        }, "HttpHeaders":{"X":"y"}}"#;
        let config = config(json);
        let cases: &[(&str, Option<Secret>)] = &[
            ("docker.io", Some(password("hub", "secret:x"))),
            ("registry-1.docker.io", Some(password("hub", "secret:x"))),
            ("reg.example:5000", Some(password("u", "p"))),
            ("reg.example", None),
            ("v2.example", Some(password("a", "b"))),
            ("tok.example", Some(Secret::IdentityToken("refresh".into()))),
            ("id.example", Some(Secret::IdentityToken("idt".into()))),
            ("bearer.example", Some(Secret::RegistryToken("rt".into()))),
            ("empty.example", None),
            ("broken.example", None),
            ("unpadded.example", Some(password("ab", "c"))),
            ("other.example", None),
        ];
        for (host, want) in cases {
            let got = config
                .credentials(host)
                .unwrap()
                .map(|credentials| credentials.secret);
            assert_eq!(&got, want, "{host}");
        }
    }

    fn helper(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn helpers_are_asked_first_and_speak_the_protocol() {
        let directory = std::env::temp_dir().join(format!("kiln-helper-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        helper(
            &directory,
            "good",
            r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1:$s\",\"Secret\":\"s3\"}""#,
        );
        helper(
            &directory,
            "token",
            r#"echo '{"Username":"<token>","Secret":"refresh"}'"#,
        );
        helper(
            &directory,
            "none",
            "echo 'credentials not found in native keychain'; exit 1",
        );
        helper(&directory, "bad", "echo 'key ring is locked'; exit 1");
        helper(&directory, "garbage", "echo nonsense");
        let json = r#"{"credsStore":"none","credHelpers":{
            "good.example":"good","docker.io":"good","tok.example":"token","bad.example":"bad",
            "garbage.example":"garbage","missing.example":"is-missing-here","path.example":"../x"},
            "auths":{"inline.example":{"username":"in","password":"line"}}}"#;
        let config = config(json).with_helper_directories(vec![directory.clone()]);

        let good = config.credentials("good.example").unwrap().unwrap();
        assert_eq!(good.secret, password("get:good.example", "s3"));
        assert_eq!(good.helper.as_deref(), Some("good"));
        let hub = config.credentials("docker.io").unwrap().unwrap();
        assert_eq!(hub.secret, password("get:https://index.docker.io/v1/", "s3"));
        let token = config.credentials("tok.example").unwrap().unwrap();
        assert_eq!(token.secret, Secret::IdentityToken("refresh".into()));
        let inline = config.credentials("inline.example").unwrap().unwrap();
        assert_eq!(inline.secret, password("in", "line"));
        for (host, reason) in [
            ("bad.example", "key ring is locked"),
            ("garbage.example", "no JSON"),
            ("missing.example", "No such file"),
            ("path.example", "plain word"),
        ] {
            let error = config.credentials(host).unwrap_err();
            assert!(error.reason.contains(reason), "{host}: {error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let config = config(r#"{"auths":{"h":{"username":"u","password":"hunter2"}}}"#);
        let credentials = config.credentials("h").unwrap();
        assert!(!format!("{config:?} {credentials:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_broken_one_is() {
        let directory = std::env::temp_dir().join(format!("kiln-config-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert!(
            DockerConfig::load(&directory.join("absent.json"))
                .unwrap()
                .is_none()
        );
        let path = directory.join("broken.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(
            DockerConfig::load(&path),
            Err(DockerConfigError::Parse { .. })
        ));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
