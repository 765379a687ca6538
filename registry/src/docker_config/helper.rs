//! Credential helpers: the programs `docker-credential-*` and their protocol.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{DockerConfig, Secret, TOKEN_USER};

/// A helper may ask a person to unlock a key ring; longer than this nobody waits.
const HELPER_TIMEOUT: Duration = Duration::from_mins(1);
/// No helper's answer is longer; ECR's tokens are about 2 KiB.
const HELPER_ANSWER_LIMIT: u64 = 256 * 1024;
/// How often a running helper is looked at.
const HELPER_POLL: Duration = Duration::from_millis(5);

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
    /// Runs a helper with one of the protocol's words.
    pub(super) fn run_named_helper(
        &self,
        helper: &str,
        action: &str,
        input: &[u8],
    ) -> Result<HelperOutput, String> {
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
        run_helper(&program, action, input).map_err(|error| format!("{name}: {error}"))
    }

    pub(super) fn ask_helper(&self, helper: &str, server: &str) -> Result<Option<Secret>, String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Username", default)]
            username: String,
            #[serde(rename = "Secret", default)]
            secret: String,
        }
        let output = self.run_named_helper(helper, "get", server.as_bytes())?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.success {
            if text.contains("credentials not found") {
                return Ok(None);
            }
            return Err(output.complaint(helper));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("docker-credential-{helper} gave no JSON: {error}"))?;
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

/// How a helper ended and what it said.
pub(super) struct HelperOutput {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
}

impl HelperOutput {
    /// What it said when it failed.
    pub(super) fn complaint(&self, helper: &str) -> String {
        crate::response::one_line(&String::from_utf8_lossy(&self.stdout), 200)
            .unwrap_or_else(|| format!("docker-credential-{helper} failed silently"))
    }
}

fn run_helper(program: &Path, action: &str, input: &[u8]) -> io::Result<HelperOutput> {
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = talk_to_helper(&mut child, input);
    if outcome.is_err() {
        // It may have ended by itself; either way it must not stay behind as a zombie.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn talk_to_helper(child: &mut Child, input: &[u8]) -> io::Result<HelperOutput> {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
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
