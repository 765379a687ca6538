//! Cache mounts: directories that a step writes to and that outlive the build.
//!
//! ```text
//! mounts/<key>/<n>/mount.json   what it is: namespace, id, base state, when made, when last used
//! mounts/<key>/<n>/lock         flock: shared by who shares the directory, exclusive by who has it alone
//! mounts/<key>/<n>/data/        the directory
//! ```
//!
//! The key is a hash over namespace, id and base state (see [`MountIdentity`]). There are several directories of one
//! key when processes wanted a private one at the same time; they stay and are used again, the lowest number first.
//!
//! The kernel lets go of the lock of a killed process, so nothing is ever left locked. A new directory is made and
//! filled under `tmp/`, locked there, and gets its place by one rename; so a killed process leaves either a whole
//! directory or rubbish under `tmp/`. Whoever takes a directory away holds its lock exclusively; whoever gets a lock
//! looks whether the directory is still at its place.
//!
//! The contents are the steps' own: nothing here checks them, no key depends on them, and after a power loss they may
//! be torn as any program's cache may be. Steps must not need them.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use kiln_tree::ContentHash;

use crate::{Error, Key, KeyPart, Result, error, files, remove, sealed, store::Shared};

pub(crate) const KIND: &str = "mount";
pub(crate) const VERSION: u32 = 1;

/// The file that says what a directory is.
pub(crate) const SIDECAR: &str = "mount.json";
const LOCK: &str = "lock";
const DATA: &str = "data";

/// What makes two cache mounts the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdentity {
    /// Keeps equal ids apart.
    pub namespace: String,
    /// The name.
    pub id: String,
    /// What a new directory is like. As with BuildKit, another base state is another cache mount.
    #[serde(flatten)]
    pub base: MountBase,
}

/// What a new cache mount is like before anybody writes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountBase {
    /// Permission bits; those of the seed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner; that of the seed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group; that of the seed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Hash of the files that it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<ContentHash>,
}

impl MountIdentity {
    /// The name of the identity in the store.
    pub fn key(&self) -> Key {
        let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let seed = self
            .base
            .seed
            .map_or_else(|| "-".to_owned(), |seed| seed.to_string());
        Key::of(
            "cache mount",
            &[
                KeyPart::new("namespace", &self.namespace),
                KeyPart::new("id", &self.id),
                KeyPart::new("mode", number(self.base.mode)),
                KeyPart::new("uid", number(self.base.uid)),
                KeyPart::new("gid", number(self.base.gid)),
                KeyPart::new("seed", seed),
            ],
        )
    }
}

/// How a directory is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSharing {
    /// Together with all others who want it so.
    Shared,
    /// Alone; a new one when all are in use.
    Private,
    /// Alone; not at all when all are in use.
    Locked,
}

impl MountSharing {
    fn lock(self) -> FlockOperation {
        match self {
            Self::Shared => FlockOperation::NonBlockingLockShared,
            Self::Private | Self::Locked => FlockOperation::NonBlockingLockExclusive,
        }
    }
}

/// What `mount.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// What it is.
    #[serde(flatten)]
    pub identity: MountIdentity,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When a step last began to use it, in milliseconds since 1970.
    pub used_ms: u64,
}

/// A directory in the store, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// `<key>/<n>`: its name in the store.
    pub name: String,
    /// What it is; `None` when nobody can tell (damaged, or of a newer program).
    pub record: Option<MountRecord>,
}

/// The cache mounts of a store.
#[derive(Debug)]
pub struct CacheMounts<'a> {
    shared: &'a Arc<Shared>,
}

/// A directory in use. Dropped, it is free for others.
#[derive(Debug)]
pub struct CacheMount {
    _lock: File,
    path: PathBuf,
}

impl CacheMount {
    /// The directory to mount.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

impl<'a> CacheMounts<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes a directory of this identity; `None` when it is wanted [`MountSharing::Locked`] and others have it. A new
    /// one is an empty directory (mode 0755, of this process's user) that `fill` makes what the identity says; it may
    /// do so in vain, when another process is faster.
    pub fn acquire<E: From<Error>>(
        &self,
        identity: &MountIdentity,
        sharing: MountSharing,
        mut fill: impl FnMut(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let folder = self.folder().join(identity.key().to_string());
        loop {
            let numbers = numbers(&folder)?;
            for number in &numbers {
                if let Some(lock) = lock_at(&folder.join(number.to_string()), sharing.lock())? {
                    return Ok(Some(self.used(
                        lock,
                        folder.join(number.to_string()),
                        identity,
                    )?));
                }
            }
            if sharing == MountSharing::Locked && !numbers.is_empty() {
                return Ok(None);
            }
            let number = numbers.last().map_or(0, |last| last + 1);
            let place = folder.join(number.to_string());
            if let Some(made) = self.make(&place, identity, sharing, &mut fill)? {
                return Ok(Some(made));
            }
        }
    }

    /// Makes a new directory at `place`; `None` when something is there by now.
    fn make<E: From<Error>>(
        &self,
        place: &Path,
        identity: &MountIdentity,
        sharing: MountSharing,
        fill: &mut impl FnMut(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let draft = self.shared.temp.dir()?;
        let whole = draft.path().join("mount");
        let data = whole.join(DATA);
        for path in [&whole, &data] {
            rustix::fs::mkdir(path, 0o755.into()).map_err(error::errno("create", path))?;
            // Whatever the process's umask says.
            rustix::fs::chmod(path, 0o755.into()).map_err(error::errno("set the mode of", path))?;
        }
        fill(&data)?;
        let lock_path = whole.join(LOCK);
        let lock = files::open_lock(&lock_path)?;
        if !files::try_flock(&lock, sharing.lock(), &lock_path)? {
            return Err(Error::Busy { path: lock_path }.into());
        }
        let now = files::now_ms();
        let record = MountRecord {
            identity: identity.clone(),
            created_ms: now,
            used_ms: now,
        };
        let sidecar = whole.join(SIDECAR);
        std::fs::write(&sidecar, sealed::seal(KIND, VERSION, &record)?)
            .map_err(error::io("write", &sidecar))?;
        match files::publish(&whole, place) {
            Ok(()) => Ok(Some(CacheMount {
                _lock: lock,
                path: place.to_owned(),
            })),
            Err(source)
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(error::io("publish", place)(source).into()),
        }
    }

    /// Notes the time of use.
    fn used(&self, lock: File, path: PathBuf, identity: &MountIdentity) -> Result<CacheMount> {
        let sidecar = path.join(SIDECAR);
        let known = files::read_opt(&sidecar)?
            .and_then(|bytes| sealed::open::<MountRecord>(KIND, VERSION, &bytes).ok());
        let now = files::now_ms();
        let record = MountRecord {
            // A damaged file is written anew; when the directory was made, nobody knows then.
            created_ms: known.map_or(now, |known| known.created_ms),
            identity: identity.clone(),
            used_ms: now,
        };
        self.shared
            .temp
            .publish(&sealed::seal(KIND, VERSION, &record)?, &sidecar, false)?;
        Ok(CacheMount { _lock: lock, path })
    }

    /// All directories.
    pub fn list(&self) -> Result<Vec<MountEntry>> {
        let mut entries = Vec::new();
        for key in files::names(&self.folder())? {
            for number in numbers(&self.folder().join(&key))? {
                let name = format!("{key}/{number}");
                let record = files::read_opt(&self.folder().join(&name).join(SIDECAR))?
                    .and_then(|bytes| sealed::open(KIND, VERSION, &bytes).ok());
                entries.push(MountEntry { name, record });
            }
        }
        Ok(entries)
    }

    /// Deletes a directory by its name in the list. False when somebody uses it.
    pub fn remove(&self, entry: &MountEntry) -> Result<bool> {
        let path = self.folder().join(&entry.name);
        let Some(_lock) = lock_at(&path, FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(!path.exists());
        };
        let away = self.shared.temp.away();
        std::fs::rename(&path, &away).map_err(error::io("delete", &path))?;
        if let Some(parent) = path.parent() {
            // The last one of its key takes the key's folder along; others keep it, and it may come back.
            let _ = std::fs::remove_dir(parent);
        }
        remove::tree(&away).map_err(error::io("delete", away))?;
        Ok(true)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.shared.root.join("mounts")
    }
}

/// What is wrong with the directory `<key>/<number>` whose sidecar is `bytes`.
pub(crate) fn check(key: &str, bytes: &[u8]) -> Result<(), sealed::Flaw> {
    match sealed::open::<MountRecord>(KIND, VERSION, bytes) {
        Ok(record) if record.identity.key().to_string() == key => Ok(()),
        Ok(record) => Err(sealed::Flaw::Damaged(format!(
            "is of the cache mount {:?}",
            record.identity.id
        ))),
        Err(flaw) => Err(flaw),
    }
}

/// The numbers of the directories of one key, ascending.
pub(crate) fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let mut numbers: Vec<u32> = files::names(folder)?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Locks the directory at `path` without waiting. `None` when others have it, or it is gone.
fn lock_at(path: &Path, operation: FlockOperation) -> Result<Option<File>> {
    let path = path.join(LOCK);
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error::io("open", path)(source)),
    };
    if !files::try_flock(&file, operation, &path)? {
        return Ok(None);
    }
    // Between open and lock somebody may have taken it away.
    let locked = file.metadata().map_err(error::io("look at", &path))?;
    let there = std::fs::metadata(&path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()));
    Ok(there.then_some(file))
}

#[cfg(test)]
mod tests;
