//! The history of builds: one file a build, and the logs of its steps.
//!
//! `builds/<id>.json` (kind `build`, version 1) holds what the caller wants to know of a build; the store does not
//! look inside. `builds/<id>.log/<step>` are plain text. Ids are 12 hex digits of milliseconds since 1970 and 16
//! random ones, so that sorting them by text sorts them by time. Damaged files are set aside and reported.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Result, error, files, remove,
    sealed::{self, Flaw},
    store::Shared,
};

pub(crate) const KIND: &str = "build";
pub(crate) const VERSION: u32 = 1;

/// How many builds are kept.
pub const KEPT: usize = 200;

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
        BuildLog {
            folder: self.log_path(id),
        }
    }

    /// Where the logs of a build's steps are.
    pub fn log_path(&self, id: &BuildId) -> PathBuf {
        self.folder().join(format!("{id}.log"))
    }

    /// Deletes all but the newest `keep` builds; returns how many went. Logs of a build that has no file (yet) go
    /// when it is older than the oldest build that is kept.
    pub fn prune(&self, keep: usize) -> Result<usize> {
        let mut ids: Vec<BuildId> = files::names(&self.folder())?
            .iter()
            .filter_map(|name| {
                name.strip_suffix(".json")
                    .or_else(|| name.strip_suffix(".log"))?
                    .parse()
                    .ok()
            })
            .collect();
        ids.dedup();
        let gone = ids.len().saturating_sub(keep);
        for id in &ids[..gone] {
            for path in [self.path(id), self.log_path(id)] {
                remove::tree(&path).map_err(error::io("delete", path))?;
            }
        }
        Ok(gone)
    }

    pub(crate) fn path(self, id: &BuildId) -> PathBuf {
        self.folder().join(format!("{id}.json"))
    }

    fn folder(self) -> PathBuf {
        self.shared.root.join("builds")
    }
}

/// The log folder of one build. It is made with the first step's log.
#[derive(Debug, Clone)]
pub struct BuildLog {
    folder: PathBuf,
}

impl BuildLog {
    /// Where the logs are.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Begins the log of a step. The name may be any text; what is no file name is replaced.
    pub fn step(&self, name: &str) -> Result<StepLog> {
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        };
        let mut file_name: String = name.chars().take(100).map(safe).collect();
        if file_name.is_empty() || file_name.starts_with('.') {
            file_name.insert(0, '_');
        }
        let path = self.folder.join(file_name);
        std::fs::create_dir_all(&self.folder).map_err(error::io("create", &self.folder))?;
        let file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(error::io("create", &path))?;
        Ok(StepLog {
            path,
            file: BufWriter::with_capacity(32 * 1024, file),
        })
    }
}

/// The log of one step. What was written is in the file after [`Write::flush`] or when dropped.
#[derive(Debug)]
pub struct StepLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl StepLog {
    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for StepLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn keeps_lists_and_prunes() {
        let (_dir, store) = testing::store();
        let builds = store.builds();
        let ids: Vec<BuildId> = (1..=5)
            .map(|n| BuildId(format!("{n:012x}{:016x}", 9 - n)))
            .collect();
        for id in &ids {
            builds.put(id, &id.began_ms()).unwrap();
            let mut step = builds.log(id).step("../#1 RUN echo").unwrap();
            writeln!(step, "hello").unwrap();
            assert!(step.path().starts_with(builds.log_path(id)));
            drop(step);
        }
        let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
        assert_eq!(builds.list().unwrap(), newest_first);
        assert_eq!(builds.get::<u64>(&ids[2]).unwrap(), Some(3));
        assert_eq!(
            builds.get::<String>(&ids[2]).unwrap(),
            None,
            "another version of the caller"
        );
        assert_eq!(builds.prune(2).unwrap(), 3);
        assert_eq!(builds.list().unwrap(), newest_first[..2]);
        assert!(!builds.log_path(&ids[0]).exists());
        let log = builds.log_path(&ids[4]).join("_.._1_RUN_echo");
        assert!(log.exists() || builds.log_path(&ids[4]).read_dir().unwrap().count() == 1);
    }

    #[test]
    fn ids_sort_by_time() {
        let first = BuildId::new();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = BuildId::new();
        assert!(first < second);
        assert_eq!(first.as_str().parse::<BuildId>().unwrap(), first);
        assert!("../../../../etc/passwd".parse::<BuildId>().is_err());
    }

    #[test]
    fn damage_is_set_aside() {
        let (_dir, store) = testing::store();
        let id = BuildId::new();
        store.builds().put(&id, &"x").unwrap();
        std::fs::write(store.builds().path(&id), "").unwrap();
        assert_eq!(store.builds().get::<String>(&id).unwrap(), None);
        assert_eq!(store.take_warnings().len(), 1);
        assert!(store.builds().list().unwrap().is_empty());
    }
}
