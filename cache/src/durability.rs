//! Which of the things on disk survive a power loss.
//!
//! Nothing is fsynced one by one. Instead every record and layer carries a [`Stamp`]: the boot it was published
//! in and the store's *epoch* at that moment. Two files tell what a stamp is worth:
//!
//! - `synced/epoch`: `<boot id> <epoch>`, the epoch that publishers stamp with now. It is also the lock that
//!   orders publishers and syncs.
//! - `synced/boots/<boot id>` (kind `synced`, version 1): the highest epoch of that boot that is on disk for
//!   certain. Itself fsynced.
//!
//! A publisher holds the lock shared from reading the epoch until its rename is done. [`Durability::sync`] takes
//! the lock exclusively just to raise the epoch from E to E+1; then everything stamped ≤ E has been renamed, so
//! the `syncfs` that follows covers it; then `synced/boots/<boot>` becomes E.
//!
//! A stamp is trusted when it is of the running boot (the page cache has it, whatever process was killed), or
//! when its epoch is ≤ the synced epoch of its boot. So after a reboot the unsynced rest is ignored, at the
//! price of one small file read per boot, and no record is ever rewritten. Losing any of these files only makes
//! trusted things untrusted.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{BootId, Result, error, files, sealed, writeback::Writeback};

/// When something was published: the boot and the epoch of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The boot.
    pub boot: BootId,
    /// The store's epoch within the boot; syncs count it up.
    pub epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct SyncedEpoch {
    epoch: u64,
}

pub(crate) const KIND: &str = "synced";
pub(crate) const VERSION: u32 = 1;

/// The keeper of the epochs.
#[derive(Debug)]
pub(crate) struct Durability {
    root: PathBuf,
    folder: PathBuf,
    boot: BootId,
    synced: Mutex<HashMap<BootId, u64>>,
    dirty: AtomicBool,
    writeback: Writeback,
}

/// One `syncfs` of the file system that `root` is on.
pub(crate) fn sync_filesystem(root: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(root, flags, Mode::empty()).map_err(error::errno("open", root))?;
    rustix::fs::syncfs(&folder).map_err(error::errno("sync the filesystem of", root))
}

impl Durability {
    pub(crate) fn new(root: &Path, boot: BootId) -> Self {
        let folder = root.join("synced");
        Self {
            root: root.to_owned(),
            folder,
            boot,
            synced: Mutex::new(HashMap::new()),
            dirty: AtomicBool::new(false),
            writeback: Writeback::new(root),
        }
    }

    /// The running boot.
    pub(crate) fn boot(&self) -> &BootId {
        &self.boot
    }

    /// Runs `publish` with the stamp that the thing it publishes must carry. No sync gets in between.
    pub(crate) fn publish<T>(&self, publish: impl FnOnce(&Stamp) -> Result<T>) -> Result<T> {
        self.publish_quietly(|stamp| {
            self.dirty.store(true, Ordering::SeqCst);
            publish(stamp)
        })
    }

    /// The same for what is not worth a sync of its own.
    pub(crate) fn publish_quietly<T>(&self, publish: impl FnOnce(&Stamp) -> Result<T>) -> Result<T> {
        let (mut lock, path) = self.lock(FlockOperation::LockShared)?;
        let epoch = self.read_epoch(&mut lock, &path)?;
        publish(&Stamp {
            boot: self.boot.clone(),
            epoch,
        })
    }

    /// Counts bytes that were written below the root: they may go to the disk already.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.writeback.wrote(bytes);
    }

    /// Whether something was published by this process since its last sync.
    pub(crate) fn dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// Whether a thing with this stamp is in order: published in this boot, or on disk for certain.
    pub(crate) fn trusted(&self, stamp: &Stamp) -> bool {
        stamp.boot == self.boot || self.on_disk(stamp)
    }

    /// Whether a thing with this stamp would survive a power loss now.
    pub(crate) fn on_disk(&self, stamp: &Stamp) -> bool {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        match synced.get(&stamp.boot) {
            Some(epoch) if *epoch >= stamp.epoch => true,
            // A boot that is over gains no epochs; the running one may, by another process.
            Some(_) if stamp.boot != self.boot => false,
            _ => {
                let epoch = self.read_synced(&stamp.boot);
                synced.insert(stamp.boot.clone(), epoch);
                epoch >= stamp.epoch
            }
        }
    }

    /// Writes everything published so far to disk (one `syncfs`) and makes that known.
    pub(crate) fn sync(&self) -> Result<()> {
        self.dirty.store(false, Ordering::SeqCst);
        let done = self.sync_now();
        if done.is_err() {
            self.dirty.store(true, Ordering::SeqCst);
        }
        done
    }

    fn sync_now(&self) -> Result<()> {
        let (mut lock, path) = self.lock(FlockOperation::LockExclusive)?;
        let covered = self.read_epoch(&mut lock, &path)?;
        let line = format!("{} {:020}\n", self.boot, covered + 1);
        lock.rewind()
            .and_then(|()| lock.write_all(line.as_bytes()))
            .map_err(error::io("write", &path))?;
        lock.set_len(line.len() as u64)
            .map_err(error::io("write", &path))?;
        drop(lock);

        sync_filesystem(&self.root)?;
        self.writeback.check()?;

        // Two syncs may end in either order: the higher epoch stays.
        let (_lock, _) = self.lock(FlockOperation::LockExclusive)?;
        let covered = covered.max(self.read_synced(&self.boot));
        let marker = self.folder.join("boots").join(self.boot.as_str());
        let bytes = sealed::seal(KIND, VERSION, &SyncedEpoch { epoch: covered })?;
        files::write_beside(&marker, &bytes)?;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.insert(self.boot.clone(), covered);
        Ok(())
    }

    /// The highest epoch of `boot` on disk; 0 when unknown.
    fn read_synced(&self, boot: &BootId) -> u64 {
        let path = self.folder.join("boots").join(boot.as_str());
        let Ok(bytes) = std::fs::read(path) else { return 0 };
        sealed::open::<SyncedEpoch>(KIND, VERSION, &bytes).map_or(0, |synced| synced.epoch)
    }

    /// The epoch of now. A missing, damaged or older boot's file means: one more than what is synced.
    fn read_epoch(&self, lock: &mut File, path: &Path) -> Result<u64> {
        let mut text = String::new();
        let read = lock
            .rewind()
            .and_then(|()| Read::by_ref(lock).take(256).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(source) if source.kind() == std::io::ErrorKind::InvalidData => text.clear(),
            Err(source) => return Err(error::io("read", path)(source)),
        }
        let known = text
            .strip_suffix('\n')
            .and_then(|line| line.split_once(' '))
            .filter(|(boot, epoch)| *boot == self.boot.as_str() && epoch.len() == 20)
            .and_then(|(_, epoch)| epoch.parse::<u64>().ok());
        Ok(known.unwrap_or_else(|| self.read_synced(&self.boot) + 1))
    }

    /// Every caller gets an open file description of its own, so that threads do not share a lock.
    fn lock(&self, operation: FlockOperation) -> Result<(File, PathBuf)> {
        let path = self.folder.join("epoch");
        let file = files::open_lock(&path)?;
        files::flock(&file, operation, &path)?;
        Ok((file, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn boot(text: &str) -> BootId {
        text.parse().unwrap()
    }

    fn stamp(durability: &Durability) -> Stamp {
        durability.publish(|stamp| Ok(stamp.clone())).unwrap()
    }

    fn scratch() -> Scratch {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path().join("synced/boots")).unwrap();
        scratch
    }

    #[test]
    fn unsynced_things_die_with_their_boot() {
        let dir = scratch();
        let first = Durability::new(dir.path(), boot("aa"));
        let early = stamp(&first);
        assert!(!first.on_disk(&early));
        first.sync().unwrap();
        assert!(first.on_disk(&early));
        let late = stamp(&first);
        assert!(first.trusted(&late), "the running boot trusts its own");
        assert!(!first.on_disk(&late));

        let second = Durability::new(dir.path(), boot("bb"));
        assert!(second.trusted(&early));
        assert!(!second.trusted(&late));
        // A sync in the second boot does not make the first boot's rest good.
        stamp(&second);
        second.sync().unwrap();
        assert!(!Durability::new(dir.path(), boot("cc")).trusted(&late));
    }

    #[test]
    fn another_process_sees_a_sync() {
        let dir = scratch();
        let one = Durability::new(dir.path(), boot("aa"));
        let two = Durability::new(dir.path(), boot("aa"));
        let made = stamp(&one);
        assert!(!two.on_disk(&made));
        one.sync().unwrap();
        assert!(two.on_disk(&made));
    }

    #[test]
    fn damaged_epoch_files_only_lose_trust() {
        for damage in [&b""[..], b"garbage", b"\xff\xff", b"aa 7\n"] {
            let dir = scratch();
            let one = Durability::new(dir.path(), boot("aa"));
            let made = stamp(&one);
            one.sync().unwrap();
            std::fs::write(dir.path().join("synced/epoch"), damage).unwrap();
            let late = stamp(&one);
            assert!(
                late.epoch > made.epoch,
                "never stamps with an epoch that counts as synced"
            );
            std::fs::write(dir.path().join("synced/boots/aa"), damage).unwrap();
            assert!(!Durability::new(dir.path(), boot("bb")).trusted(&made));
        }
    }

    #[test]
    fn a_stamp_that_a_sync_covers_was_published_before_it() {
        // Publishers hold the epoch still: while one is at work, a sync waits.
        let dir = scratch();
        let shared = std::sync::Arc::new(Durability::new(dir.path(), boot("aa")));
        let (started, wait) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let publisher = std::thread::spawn({
            let shared = std::sync::Arc::clone(&shared);
            move || {
                shared
                    .publish(|stamp| {
                        started.send(()).unwrap();
                        gone.recv().unwrap();
                        Ok(stamp.clone())
                    })
                    .unwrap()
            }
        });
        wait.recv().unwrap();
        let syncer = std::thread::spawn({
            let shared = std::sync::Arc::clone(&shared);
            move || shared.sync().unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!syncer.is_finished());
        go.send(()).unwrap();
        let made = publisher.join().unwrap();
        syncer.join().unwrap();
        assert!(shared.on_disk(&made));
    }
}
