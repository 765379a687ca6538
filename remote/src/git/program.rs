//! Runs the machine's `git`: a closed environment, no prompts, no hooks, no settings but ours.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::address::public;
use super::error::GitError;
use super::repositories::GitSettings;
use crate::caller::Caller;

/// Settings of every run. The repository's own file is the only other one that git reads.
const CONFIG: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.logAllRefUpdates", "false"),
    ("protocol.version", "2"),
    // Our folders may belong to another user than the one who runs us as root.
    ("safe.directory", "*"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    // A pack is complete or not there; loose objects come one by one, the commit before its files.
    ("fetch.unpackLimit", "1"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    // A server that says nothing for a minute is given up.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("pack.threads", "1"),
];

/// Protocols that addresses can have. A repository's submodules and a server's redirects are held to them, too.
const PROTOCOLS: &str = "http:https:git:ssh";

/// No answer of git that we read is longer, but for lists of files.
const OUTPUT_LIMIT: u64 = 256 * 1024 * 1024;
/// The end of what git complains about.
const ERROR_LIMIT: usize = 4096;
/// How often a running git is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Helpers of a finished git (a shared SSH connection) may keep its output open.
const LINGER: Duration = Duration::from_secs(2);

/// One run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// What it is for, in messages: mostly the command's own name.
    pub(super) action: &'static str,
    /// The remote that it is about, in messages.
    pub(super) remote: &'a str,
    /// The repository.
    pub(super) git_dir: Option<&'a Path>,
    /// Where files are checked out.
    pub(super) work_tree: Option<&'a Path>,
    /// Where git is started, when it is to find the repository by itself.
    pub(super) place: Option<&'a Path>,
    /// The index, when it is not the repository's own.
    pub(super) index: Option<&'a Path>,
    /// Further settings, in order.
    pub(super) config: &'a [(String, String)],
    /// The system's and the user's settings are read, which is for looking at them only.
    pub(super) user_config: bool,
    /// Only the file system is fetched from: our own repositories.
    pub(super) local: bool,
    /// The command and its arguments.
    pub(super) arguments: Vec<OsString>,
}

impl<'a> Run<'a> {
    pub(super) fn new(action: &'static str, remote: &'a str, arguments: &[&str]) -> Self {
        Self {
            action,
            remote,
            git_dir: None,
            work_tree: None,
            place: None,
            index: None,
            config: &[],
            user_config: false,
            local: false,
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }
}

/// What a run said and how it ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// The output as text, when the run was good.
    pub(super) fn good(self, run: &Run<'_>) -> Result<Vec<u8>, GitError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(GitError::Failed {
            action: run.action,
            remote: public(run.remote),
            message: complaint(&self.stderr, run.remote),
        })
    }
}

/// Starts git.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) settings: &'a GitSettings,
    pub(super) caller: Caller<'a>,
}

impl Program<'_> {
    /// Runs git; a bad end is an error.
    pub(super) fn run(&self, run: &Run<'_>) -> Result<Vec<u8>, GitError> {
        self.output(run)?.good(run)
    }

    /// Runs git; a bad end is the caller's to judge.
    pub(super) fn output(&self, run: &Run<'_>) -> Result<Output, GitError> {
        let mut command = self.command(run);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::NoProgram {
                remote: public(run.remote),
            },
            _ => GitError::Start(error),
        })?;
        let result = self.wait(&mut child);
        if result.is_err() {
            end(&mut child);
        }
        result
    }

    fn command(&self, run: &Run<'_>) -> std::process::Command {
        let mut command = std::process::Command::new("git");
        command
            .env_clear()
            .envs(self.settings.environment.iter().cloned());
        if let Some(agent) = self.caller.credentials.ssh_agent() {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let protocols = match (run.local, self.settings.allow_files) {
            (true, _) => "file".to_owned(),
            (false, true) => format!("{PROTOCOLS}:file"),
            (false, false) => PROTOCOLS.to_owned(),
        };
        command
            .env("LC_ALL", "C")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env(
                "GIT_SSH_COMMAND",
                "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
            );
        if !run.user_config {
            command
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_CONFIG_GLOBAL", "/dev/null");
        }
        for (name, path) in [
            ("GIT_DIR", run.git_dir),
            ("GIT_WORK_TREE", run.work_tree),
            ("GIT_INDEX_FILE", run.index),
        ] {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        // In the environment rather than among the arguments, which everybody on the machine can read.
        let own = CONFIG.iter().map(|(key, value)| (*key, *value));
        let given = run
            .config
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut count = 0;
        for (key, value) in own.chain(given) {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command
            .env("GIT_CONFIG_COUNT", count.to_string())
            .args(&run.arguments)
            .current_dir(
                run.place
                    .or(run.work_tree)
                    .or(run.git_dir)
                    .unwrap_or(Path::new("/")),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group, so that its helpers can be ended with it.
            .process_group(0);
        command
    }

    fn wait(&self, child: &mut Child) -> Result<Output, GitError> {
        let (sender, receiver) = mpsc::channel();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let errors = sender.clone();
        std::thread::spawn(move || drop(sender.send((true, read_bounded(stdout)))));
        std::thread::spawn(move || drop(errors.send((false, read_end(stderr)))));
        let (mut stdout, mut stderr) = (None, None);
        let mut ended: Option<Instant> = None;
        while stdout.is_none() || stderr.is_none() {
            if (self.caller.canceled)() {
                return Err(GitError::Canceled);
            }
            match receiver.recv_timeout(TICK) {
                Ok((true, bytes)) => stdout = Some(bytes.map_err(GitError::Start)?),
                Ok((false, bytes)) => stderr = Some(bytes.map_err(GitError::Start)?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if ended.is_none() && child.try_wait().map_err(GitError::Start)?.is_some() {
                ended = Some(Instant::now());
            }
            if ended.is_some_and(|ended| ended.elapsed() > LINGER) {
                break;
            }
        }
        let status = child.wait().map_err(GitError::Start)?;
        Ok(Output {
            status,
            stdout: stdout.unwrap_or_default(),
            stderr: stderr.unwrap_or_default(),
        })
    }
}

/// Ends git and its helpers.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // It may be gone already, which is just as well.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

fn read_bounded(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > OUTPUT_LIMIT {
        return Err(io::Error::other("git said more than can be true"));
    }
    Ok(bytes)
}

/// The end of a stream, however long it is.
fn read_end(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 4 * ERROR_LIMIT {
            kept.drain(..kept.len() - ERROR_LIMIT);
        }
    }
}

/// What git complains about, on one line, without advice, control characters and passwords.
fn complaint(stderr: &[u8], remote: &str) -> String {
    let text = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(ERROR_LIMIT)..]);
    let text = text.replace(remote, &public(remote));
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.rsplit('\r').next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn complaints_are_one_line_without_passwords() {
        let remote = "https://u:secret@h/r.git";
        let said = format!("hint: x\nremote: no\x1b[31m such\n\nfatal: unable to access '{remote}/'\n");
        assert_eq!(
            complaint(said.as_bytes(), remote),
            "remote: no[31m such; fatal: unable to access 'https://u:xxxxx@h/r.git/'"
        );
    }
}
