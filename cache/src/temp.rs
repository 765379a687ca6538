//! Work in progress: `tmp/<pid>-<random>/`, one folder a process, gone when its owner is.
//!
//! The folder holds a file `lock` that the owner keeps `flock`ed for its life; the kernel lets go of it however
//! the owner ends. A sweeper that gets the lock has proof that nobody works there. The folder gets its final
//! name only when it is locked already; before, it is called `new-<random>` and is left alone for some seconds: whoever
//! was held up for longer makes another one. Before a folder is deleted it is renamed to `dead-<random>`, which anybody
//! may delete: so a killed sweeper leaves no riddles.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;

use crate::{Error, Result, error, files, remove};

/// Folders without a proof of death are swept when they are as old as this.
const FORGOTTEN: Duration = Duration::from_hours(24);
/// So long it takes nobody to lock a folder and to give it its name.
const ABANDONED: Duration = Duration::from_secs(5);
/// Half-fetched blobs are kept this long for a resume.
const PARTIAL_KEPT: Duration = Duration::from_hours(168);

/// The temporary area of the store. Its own folder is made when first needed.
#[derive(Debug)]
pub struct Temp {
    area: PathBuf,
    owner: Mutex<Option<Owner>>,
    counter: AtomicU64,
}

#[derive(Debug)]
struct Owner {
    path: PathBuf,
    _lock: File,
}

impl Temp {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            area: root.join("tmp"),
            owner: Mutex::new(None),
            counter: AtomicU64::new(0),
        }
    }

    /// The folder of half-fetched blobs.
    pub(crate) fn partial(&self) -> PathBuf {
        self.area.join("partial")
    }

    /// A new path in this process's folder; nothing is there yet.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match &*owner {
            Some(owner) => owner.path.clone(),
            None => owner.insert(self.settle()?).path.clone(),
        };
        Ok(folder.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    /// A new path for what is to be deleted. On a full disk there may be no folder of this process: then it is where
    /// every sweep deletes what it finds, so that room can be made even there.
    pub(crate) fn away(&self) -> PathBuf {
        self.path()
            .unwrap_or_else(|_| self.area.join(format!("dead-{}", files::random_name())))
    }

    /// Whether a process that is gone left something behind: worth a [`crate::Store::maintenance`] soon. Looks at
    /// names only; a process id that was given out again hides a folder until that process ends.
    pub fn has_leftovers(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.area) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let Some((owner, _)) = name.to_str().and_then(|name| name.split_once('-')) else {
                return false;
            };
            let is_gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
            let is_abandoned = || older_than(&entry.path(), ABANDONED);
            owner == "dead" || (owner == "new" && is_abandoned()) || owner.parse().is_ok_and(is_gone)
        })
    }

    /// A new empty folder (mode 0700), deleted with the returned value.
    pub fn dir(&self) -> Result<TempDir> {
        let path = self.path()?;
        rustix::fs::mkdir(&path, 0o700.into()).map_err(error::errno("create", &path))?;
        Ok(TempDir { path })
    }

    /// Writes a new file; the caller renames it to where it belongs.
    pub(crate) fn write(&self, bytes: &[u8], sync: bool) -> Result<PathBuf> {
        let path = self.path()?;
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        });
        if let Err(source) = written {
            // Best effort: the sweep gets it otherwise. The first error is the one to tell.
            let _ = std::fs::remove_file(&path);
            return Err(error::io("write", path)(source));
        }
        Ok(path)
    }

    /// Writes a file and renames it to `target`.
    pub(crate) fn publish(&self, bytes: &[u8], target: &Path, sync: bool) -> Result<()> {
        let temp = self.write(bytes, sync)?;
        if let Err(source) = files::publish(&temp, target) {
            let _ = std::fs::remove_file(&temp);
            return Err(error::io("publish", target)(source));
        }
        match target.parent() {
            Some(parent) if sync => files::sync_folder(parent),
            _ => Ok(()),
        }
    }

    /// As [`Temp::publish`], where the folder of `target` is there, or the whole thing is gone and nothing is made.
    pub(crate) fn publish_into(&self, bytes: &[u8], target: &Path) -> Result<()> {
        let temp = self.write(bytes, false)?;
        std::fs::rename(&temp, target).map_err(|source| {
            let _ = std::fs::remove_file(&temp);
            error::io("publish", target)(source)
        })
    }

    fn settle(&self) -> Result<Owner> {
        loop {
            match self.try_to_settle() {
                // Somebody took it for abandoned.
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && self.area.is_dir() => {}
                done => return done,
            }
        }
    }

    fn try_to_settle(&self) -> Result<Owner> {
        let new = self.area.join(format!("new-{}", files::random_name()));
        rustix::fs::mkdir(&new, 0o700.into()).map_err(error::errno("create", &new))?;
        self.settle_in(&new).inspect_err(|_| {
            // The first error is the one to tell; the sweep gets it otherwise.
            let _ = remove::tree(&new);
        })
    }

    fn settle_in(&self, new: &Path) -> Result<Owner> {
        let lock_path = new.join("lock");
        let lock = files::open_lock(&lock_path)?;
        files::flock(&lock, FlockOperation::LockExclusive, &lock_path)?;
        let path = self
            .area
            .join(format!("{}-{}", std::process::id(), files::random_name()));
        std::fs::rename(new, &path).map_err(error::io("publish", &path))?;
        Ok(Owner { path, _lock: lock })
    }

    /// Deletes the folders whose owners are gone, until `stop` says so. Returns how many.
    pub(crate) fn sweep(&self, stop: &dyn Fn() -> bool) -> Result<usize> {
        let mut swept = 0;
        for name in files::names(&self.area)? {
            if stop() {
                break;
            }
            let path = self.area.join(&name);
            if name == "partial" {
                swept += sweep_partial(&path)?;
            } else if name.starts_with("dead-") {
                // Another sweeper may be at it too: what is left after both is for the next one.
                swept += usize::from(remove::tree(&path).is_ok());
            } else if name.starts_with("new-") {
                // Renamed first: then its maker cannot go on with what is being deleted.
                swept += usize::from(older_than(&path, ABANDONED) && delete_owned(&path).is_ok());
            } else if sweep_owned(&path)? {
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let owner = self
            .owner
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(owner) = owner {
            // What cannot be deleted now, the next sweep deletes.
            let _ = delete_owned(&owner.path);
        }
    }
}

/// Deletes the folder of an owner that is gone, or is us.
fn delete_owned(path: &Path) -> std::io::Result<()> {
    let dead = path.with_file_name(format!("dead-{}", files::random_name()));
    std::fs::rename(path, &dead)?;
    remove::tree(&dead)
}

fn older_than(path: &Path, age: Duration) -> bool {
    std::fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| {
            SystemTime::now()
                .duration_since(time)
                .is_ok_and(|passed| passed > age)
        })
}

/// Deletes a process's folder if its lock can be had.
fn sweep_owned(path: &Path) -> Result<bool> {
    let lock_path = path.join("lock");
    let Ok(lock) = File::open(&lock_path) else {
        return Ok(older_than(path, FORGOTTEN) && remove::tree(path).is_ok());
    };
    if !files::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &lock_path)? {
        return Ok(false);
    }
    match delete_owned(path) {
        Ok(()) => Ok(true),
        // Between opening the lock and getting it, another sweeper, or the owner on its way out, has done it.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(error::io("delete", path)(source)),
    }
}

fn sweep_partial(folder: &Path) -> Result<usize> {
    let mut swept = 0;
    for name in files::names(folder)? {
        let path = folder.join(name);
        let Ok(file) = File::open(&path) else { continue };
        if older_than(&path, PARTIAL_KEPT)
            && files::try_flock(&file, FlockOperation::NonBlockingLockExclusive, &path)?
            && std::fs::remove_file(&path).is_ok()
        {
            swept += 1;
        }
    }
    Ok(swept)
}

/// A temporary folder, deleted with all in it when dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be deleted now, the next sweep deletes.
        let _ = remove::tree(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn only_what_a_dead_process_left_counts_as_leftover() {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path().join("tmp/partial")).unwrap();
        let temp = Temp::new(scratch.path());
        let _own = temp.dir().unwrap();
        std::fs::create_dir(scratch.path().join("tmp/new-beginning")).unwrap();
        assert!(!temp.has_leftovers(), "a living process, and what is being made");
        let abandoned = scratch.path().join("tmp/new-abandoned");
        std::fs::create_dir(&abandoned).unwrap();
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        File::open(&abandoned).unwrap().set_modified(long_ago).unwrap();
        assert!(temp.has_leftovers(), "made by a process that was killed then");
        std::fs::remove_dir(abandoned).unwrap();
        // Larger than any process id (`PID_MAX_LIMIT` is 2^22).
        for name in ["4294967294-a", "dead-b"] {
            let path = scratch.path().join("tmp").join(name);
            std::fs::create_dir(&path).unwrap();
            assert!(temp.has_leftovers(), "{name}");
            std::fs::remove_dir(path).unwrap();
        }
    }

    #[test]
    fn several_sweep_at_once_and_none_fails() {
        let scratch = Scratch::new();
        let area = scratch.path().join("tmp");
        for number in 0..200 {
            let folder = area.join(format!("99-{number}"));
            std::fs::create_dir_all(folder.join("0/deep")).unwrap();
            std::fs::write(folder.join("lock"), "").unwrap();
        }
        std::thread::scope(|scope| {
            let sweepers: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| Temp::new(scratch.path()).sweep(&|| false)))
                .collect();
            for sweeper in sweepers {
                sweeper.join().unwrap().unwrap();
            }
        });
        assert!(files::names(&area).unwrap().is_empty());
    }

    #[test]
    fn what_is_to_be_deleted_has_a_place_where_no_folder_can_be_made() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path().join("tmp")).unwrap();
        let temp = Temp::new(scratch.path());
        assert!(temp.away().parent() != Some(&scratch.path().join("tmp")));
        let other = Temp::new(&scratch.path().join("elsewhere"));
        let away = other.away();
        let name = away.file_name().and_then(|name| name.to_str()).unwrap();
        assert!(name.starts_with("dead-"), "{name}");
    }

    #[test]
    fn sweeps_the_dead_and_spares_the_living() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path().join("tmp")).unwrap();
        let living = Temp::new(scratch.path());
        let kept = living.dir().unwrap();
        std::fs::create_dir_all(scratch.path().join("tmp/99-dead/0/deep")).unwrap();
        std::fs::write(scratch.path().join("tmp/99-dead/lock"), "").unwrap();
        std::fs::create_dir(scratch.path().join("tmp/new-beginning")).unwrap();
        std::fs::create_dir_all(scratch.path().join("tmp/dead-half/gone")).unwrap();
        let other = Temp::new(scratch.path());
        assert_eq!(other.sweep(&|| false).unwrap(), 2);
        assert!(kept.path().exists());
        assert!(scratch.path().join("tmp/new-beginning").exists());
        assert!(!scratch.path().join("tmp/99-dead").exists());
        drop(kept);
        drop(living);
        // Nobody takes that long to begin.
        let abandoned = scratch.path().join("tmp/new-abandoned");
        std::fs::create_dir(&abandoned).unwrap();
        File::open(&abandoned)
            .unwrap()
            .set_modified(SystemTime::now() - 2 * ABANDONED)
            .unwrap();
        assert_eq!(other.sweep(&|| false).unwrap(), 1);
        assert_eq!(
            files::names(&scratch.path().join("tmp")).unwrap(),
            ["new-beginning"]
        );
    }
}
