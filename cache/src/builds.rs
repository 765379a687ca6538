//! The history of builds: one file a build, and the logs of its steps.
//!
//! ```text
//! builds/<id>.json          what the caller knows of the build (kind `build`, version 1)
//! builds/<id>.running       locked as long as the build is under way
//! builds/<id>.log/<step>    the output of a step, zstd (see [`log`])
//! ```
//!
//! The store does not look into what the caller keeps. Ids are 12 hex digits of milliseconds since 1970 and 16
//! random ones, so that sorting them by text sorts them by time. Damaged files are set aside and reported.
//!
//! A build that has work to do announces itself first ([`Builds::begin`]): after `kill -9` its record says what it
//! was about, and that nobody holds the lock says that it is over. A fully cached build writes one file.

mod log;
#[cfg(test)]
mod tests;

use std::{fmt, fs::File, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use rustix::fs::FlockOperation;
use serde::{Serialize, de::DeserializeOwned};

pub use log::{BuildLog, LogReader, StepLog};

use crate::{
    Error, Result, error, files, remove,
    sealed::{self, Flaw},
    store::Shared,
};

pub(crate) const KIND: &str = "build";
pub(crate) const VERSION: u32 = 1;

/// What of the history is kept. Whatever goes beyond one of these goes, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// As many builds.
    pub builds: usize,
    /// Builds as old as this.
    pub age: Duration,
    /// As many bytes of (compressed) logs; of older builds the record stays, the logs go. The newest build's stay,
    /// however long they are.
    pub log_bytes: u64,
}

impl Default for Retention {
    /// 200 builds, 30 days, 1 GiB of logs.
    fn default() -> Self {
        Self {
            builds: 200,
            age: Duration::from_hours(30 * 24),
            log_bytes: 1 << 30,
        }
    }
}

/// The id of a build: sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(String);

impl BuildId {
    /// A new id, of now.
    pub fn new() -> Self {
        Self(format!(
            "{:012x}{}",
            files::now_ms() & 0xffff_ffff_ffff,
            files::random_name()
        ))
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the build began, in milliseconds since 1970.
    pub fn began_ms(&self) -> u64 {
        u64::from_str_radix(&self.0[..12], 16).unwrap_or(0)
    }
}

impl Default for BuildId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() == 28 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        let reason = "expected 28 lower-case hexadecimal digits";
        Err(Error::Invalid {
            what: "build id",
            text: text.chars().take(80).collect(),
            reason,
        })
    }
}

/// The history of builds.
#[derive(Debug, Clone, Copy)]
pub struct Builds<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Builds<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Keeps what the caller knows of a build; may be called again as it goes on.
    pub fn put<T: Serialize>(&self, id: &BuildId, build: &T) -> Result<()> {
        self.shared
            .temp
            .publish(&sealed::seal(KIND, VERSION, build)?, &self.path(id), false)
    }

    /// What was kept of a build. `None` when there is nothing, or it cannot be read as `T`.
    pub fn get<T: DeserializeOwned>(&self, id: &BuildId) -> Result<Option<T>> {
        let path = self.path(id);
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        match sealed::open_bytes(KIND, VERSION, &bytes) {
            // What another version of the caller wrote is not damaged.
            Ok(body) => Ok(serde_json::from_slice(body).ok()),
            Err(Flaw::Newer(_)) => Ok(None),
            Err(Flaw::Damaged(reason)) => {
                let warning = self.shared.set_aside(&path, reason);
                self.shared.warn(warning);
                Ok(None)
            }
        }
    }

    /// All builds, the newest first.
    pub fn list(&self) -> Result<Vec<BuildId>> {
        let names = files::names(&self.folder())?;
        let id = |name: &String| name.strip_suffix(".json")?.parse().ok();
        Ok(names.iter().rev().filter_map(id).collect())
    }

    /// The log of a build, to write to.
    pub fn log(&self, id: &BuildId) -> BuildLog {
        BuildLog::new(self.log_path(id))
    }

    /// Where the logs of a build's steps are.
    pub fn log_path(&self, id: &BuildId) -> PathBuf {
        self.folder().join(format!("{id}.log"))
    }

    /// Announces a build that has work to do, with what is known of it now. It counts as under way until the value
    /// is dropped or the process ends, however it ends.
    pub fn begin<T: Serialize>(&self, id: &BuildId, build: &T) -> Result<RunningBuild> {
        let path = self.running_path(id);
        let lock = files::open_lock(&path)?;
        files::flock(&lock, FlockOperation::LockExclusive, &path)?;
        let running = RunningBuild { path, _lock: lock };
        self.put(id, build)?;
        Ok(running)
    }

    /// Whether a process is at work on this build.
    pub fn is_running(&self, id: &BuildId) -> Result<bool> {
        let path = self.running_path(id);
        match File::open(&path) {
            Ok(lock) => Ok(!files::try_flock(
                &lock,
                FlockOperation::NonBlockingLockShared,
                &path,
            )?),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(error::io("open", path)(source)),
        }
    }

    /// The builds that `text` may mean: `latest`, a whole id, or its beginning.
    pub fn find(&self, text: &str) -> Result<Vec<BuildId>> {
        let mut ids = self.list()?;
        if text == "latest" {
            ids.truncate(1);
        } else {
            ids.retain(|id| !text.is_empty() && id.0.starts_with(text));
        }
        Ok(ids)
    }

    /// Deletes a build and its logs. One under way is left alone, and the answer is false.
    pub fn remove(&self, id: &BuildId) -> Result<bool> {
        if self.is_running(id)? {
            return Ok(false);
        }
        for path in [self.path(id), self.log_path(id), self.running_path(id)] {
            remove::tree(&path).map_err(error::io("delete", path))?;
        }
        Ok(true)
    }

    /// Deletes what goes beyond `retention`; returns how many builds went. Logs of a build that has no file go with
    /// their build.
    pub fn prune(&self, retention: Retention) -> Result<usize> {
        let names = files::names(&self.folder())?;
        let mut ids: Vec<BuildId> = names.iter().filter_map(|name| id_of(name)).collect();
        ids.dedup();
        let oldest_ms = files::now_ms().saturating_sub(retention.age.as_millis() as u64);
        let (mut gone, mut log_bytes) = (0, 0_u64);
        for (age, id) in ids.iter().rev().enumerate() {
            if age >= retention.builds || id.began_ms() < oldest_ms {
                gone += usize::from(self.remove(id)?);
                continue;
            }
            let log = self.log(id);
            log_bytes = log_bytes.saturating_add(log.bytes()?);
            if age > 0 && log_bytes > retention.log_bytes && !self.is_running(id)? {
                let path = log.path().to_owned();
                remove::tree(&path).map_err(error::io("delete", path))?;
            }
        }
        Ok(gone)
    }

    fn running_path(self, id: &BuildId) -> PathBuf {
        self.folder().join(format!("{id}.running"))
    }

    pub(crate) fn path(self, id: &BuildId) -> PathBuf {
        self.folder().join(format!("{id}.json"))
    }

    fn folder(self) -> PathBuf {
        self.shared.root.join("builds")
    }
}

/// The id that a file or folder of the history belongs to.
fn id_of(name: &str) -> Option<BuildId> {
    let (id, kind) = name.split_once('.')?;
    matches!(kind, "json" | "log" | "running")
        .then(|| id.parse().ok())
        .flatten()
}

/// A build under way, until dropped.
#[derive(Debug)]
pub struct RunningBuild {
    path: PathBuf,
    _lock: File,
}

impl Drop for RunningBuild {
    fn drop(&mut self) {
        // If it stays, the free lock says the same, and the next prune or removal takes it.
        let _ = std::fs::remove_file(&self.path);
    }
}
