//! An agent for key files: the host's `ssh-agent`, with the keys given by `ssh-add`.
//!
//! The agent guards a child that reads our pipe, and ends with it: so it is gone after `kill -9`, too.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::AgentError;

/// A running `ssh-agent`.
#[derive(Debug)]
pub(super) struct KeyAgent {
    /// What the agent guards; our end of the pipe closes when we end, however we do.
    guarded: Child,
    agent: Option<Pid>,
    socket: PathBuf,
}

/// Tells socket and process id of the agent that runs it, and lives as long as its standard input.
const GUARDED: &str = "printf '%s\\n%s\\n' \"$SSH_AUTH_SOCK\" \"$SSH_AGENT_PID\"; exec cat >/dev/null";

impl KeyAgent {
    /// Starts an agent and gives it the keys of `files`.
    pub(super) fn start(id: &str, files: &[PathBuf]) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Program {
            id: id.to_owned(),
            program: "ssh-agent (it serves key files; install the OpenSSH client, or pass an agent's socket)",
            source,
        };
        let mut guarded = Command::new("ssh-agent")
            .args(["/bin/sh", "-c", GUARDED])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut lines = guarded
            .stdout
            .take()
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines());
        let socket = lines.next().transpose().map_err(failed)?.unwrap_or_default();
        let pid = lines.next().transpose().map_err(failed)?.unwrap_or_default();
        let started = Self {
            guarded,
            agent: pid.parse().ok().and_then(Pid::from_raw),
            socket: PathBuf::from(socket),
        };
        if started.agent.is_none() {
            return Err(failed(std::io::Error::other("it told no process id")));
        }
        for file in files {
            started.add(id, file)?;
        }
        Ok(started)
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Nobody is asked for a passphrase: a build has no one to ask.
    fn add(&self, id: &str, file: &Path) -> Result<(), AgentError> {
        let failed = |source| AgentError::Program {
            id: id.to_owned(),
            program: "ssh-add",
            source,
        };
        let output = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .arg(file)
            .env("SSH_AUTH_SOCK", &self.socket)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_ASKPASS", "/bin/false")
            .stdin(Stdio::null())
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty());
        Err(AgentError::Key {
            id: id.to_owned(),
            path: file.to_owned(),
            reason: said
                .unwrap_or("it is no private key, or one with a passphrase: add it to an agent and pass that")
                .to_owned(),
        })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        if let Some(agent) = self.agent {
            // It removes its socket. One that is gone already is what is wanted.
            let _ = kill_process(agent, Signal::TERM);
        }
        let _ = self.guarded.kill();
        let _ = self.guarded.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::KeyAgent;
    use crate::ssh::AgentError;
    use crate::testing::TempDir;

    fn key(folder: &TempDir, passphrase: &str) -> Option<std::path::PathBuf> {
        let path = folder.path().join(format!("key{}", passphrase.len()));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
            .arg(&path)
            .status();
        made.is_ok_and(|status| status.success()).then_some(path)
    }

    #[test]
    fn key_files_are_served_until_the_end() {
        let folder = TempDir::new();
        let (Some(open), Some(closed)) = (key(&folder, ""), key(&folder, "passphrase")) else {
            println!("SKIPPED: needs ssh-keygen");
            return;
        };
        let agent = KeyAgent::start("default", &[open]).unwrap();
        let socket = agent.socket().to_owned();
        let listed = Command::new("ssh-add")
            .arg("-l")
            .env("SSH_AUTH_SOCK", &socket)
            .output();
        assert!(String::from_utf8_lossy(&listed.unwrap().stdout).contains("ED25519"));
        drop(agent);
        assert!(!(0..50).all(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            socket.exists()
        }));
        let refused = KeyAgent::start("default", &[closed]);
        assert!(matches!(refused, Err(AgentError::Key { .. })), "{refused:?}");
    }
}
