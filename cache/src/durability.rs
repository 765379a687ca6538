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
//!
//! # When the disk fails
//!
//! The kernel tells of a write that failed later once to each open file, and to one that was opened after somebody
//! else has heard of it, not at all. Any program's `syncfs` is somebody else. So each process opens the root before it
//! writes anything, and the sync that counts asks by that file: it hears of everything that failed since. Writing
//! back early asks by another one. Who hears of a failure tells all others ([`crate::lost`]) at once: those who open
//! the store later do not believe what was published since the last good sync, in the running boot either, for the
//! page cache may have dropped it. Those who run already may rely on it: their syncs fail, too, and so does all that
//! they would still publish.
//!
//! What stays unheard: a failure whose one listener was killed between the kernel's answer and telling it, that only
//! programs other than Kiln heard of while no Kiln had the store open, or that nobody asked for before the file system
//! was unmounted. Before Linux 5.8 `syncfs` tells nothing.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{BootId, Error, Result, error, files, lost::Lost, sealed, writeback::Writeback};

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
    epochs: Arc<Epochs>,
    synced: Mutex<HashMap<BootId, u64>>,
    dirty: AtomicBool,
    writeback: Writeback,
}

/// What writing back early needs of it, too.
#[derive(Debug)]
struct Epochs {
    root: PathBuf,
    folder: PathBuf,
    boot: BootId,
    /// The root, opened before anything was written.
    watch: OwnedFd,
    lost: Lost,
    /// Why the disk did not take what was written, once that is known.
    failure: Mutex<Option<Errno>>,
}

fn open_root(root: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(error::errno("open", root))
}

impl Durability {
    /// `runtime` is a folder in memory: [`crate::lost`].
    pub(crate) fn new(root: &Path, runtime: Option<&Path>, boot: BootId) -> Result<Self> {
        // First the file, then the list: what fails between is heard of twice.
        let watch = open_root(root)?;
        let lost = Lost::new(root, runtime, &boot)?;
        Ok(Self {
            epochs: Arc::new(Epochs {
                root: root.to_owned(),
                folder: root.join("synced"),
                boot,
                watch,
                lost,
                failure: Mutex::new(None),
            }),
            synced: Mutex::new(HashMap::new()),
            dirty: AtomicBool::new(false),
            writeback: Writeback::default(),
        })
    }

    /// The running boot.
    pub(crate) fn boot(&self) -> &BootId {
        &self.epochs.boot
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
        // Nothing more goes to a disk that is known to fail.
        self.epochs.check()?;
        let (mut lock, path) = self.epochs.lock(FlockOperation::LockShared)?;
        let epoch = self.epochs.read(&mut lock, &path)?;
        publish(&Stamp {
            boot: self.epochs.boot.clone(),
            epoch,
        })
    }

    /// As if the disk had failed.
    #[cfg(test)]
    pub(crate) fn fail_for_test(&self) {
        self.epochs.failed(Errno::IO);
    }

    /// Counts bytes that were written below the root: they may go to the disk already.
    pub(crate) fn wrote(&self, bytes: u64) {
        let epochs = Arc::clone(&self.epochs);
        self.writeback.wrote(bytes, move || epochs.write_back());
    }

    /// Whether the disk failed to take something in the running boot: files that nothing stamps may then be other ones
    /// on disk than in memory.
    pub(crate) fn lost_any(&self) -> bool {
        self.epochs.lost.any()
    }

    /// Whether something was published by this process since its last sync.
    pub(crate) fn dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// Whether a thing with this stamp is in order: published in this boot, or on disk for certain; and not lost.
    pub(crate) fn trusted(&self, stamp: &Stamp) -> bool {
        !self.epochs.lost.covers(stamp) && (stamp.boot == self.epochs.boot || self.is_synced(stamp))
    }

    /// Whether a thing with this stamp was published in the running boot, trusted or not.
    pub(crate) fn is_of_boot(&self, stamp: &Stamp) -> bool {
        stamp.boot == self.epochs.boot
    }

    /// Whether a thing with this stamp would survive a power loss now.
    pub(crate) fn on_disk(&self, stamp: &Stamp) -> bool {
        !self.epochs.lost.covers(stamp) && self.is_synced(stamp)
    }

    fn is_synced(&self, stamp: &Stamp) -> bool {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        match synced.get(&stamp.boot) {
            Some(epoch) if *epoch >= stamp.epoch => true,
            // A boot that is over gains no epochs; the running one may, by another process.
            Some(_) if stamp.boot != self.epochs.boot => false,
            _ => {
                let epoch = self.epochs.read_synced(&stamp.boot);
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
        let epochs = &self.epochs;
        let (mut lock, path) = epochs.lock(FlockOperation::LockExclusive)?;
        let covered = epochs.read(&mut lock, &path)?;
        epochs.write(&mut lock, &path, covered + 1)?;
        drop(lock);

        let written = rustix::fs::syncfs(&epochs.watch);
        self.writeback.wait();
        if let Err(errno) = written {
            epochs.failed(errno);
        }
        epochs.check()?;

        let (_lock, _) = epochs.lock(FlockOperation::LockExclusive)?;
        // What another process lost, this one may have built on.
        if epochs.lost.more()? {
            return Err(epochs.not_written(io::Error::other("another process was told that it did not")));
        }
        epochs.lost.keep()?;
        // Two syncs may end in either order: the higher epoch stays.
        let covered = covered.max(epochs.read_synced(&epochs.boot));
        let marker = epochs.marker(&epochs.boot);
        let bytes = sealed::seal(KIND, VERSION, &SyncedEpoch { epoch: covered })?;
        files::write_beside(&marker, &bytes)?;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.insert(epochs.boot.clone(), covered);
        Ok(())
    }
}

impl Drop for Durability {
    fn drop(&mut self) {
        // A command that failed before its sync has not asked. A file system that the kernel made read-only, or that
        // answers nothing any more, has lost what was on its way; mounted anew, it would not know.
        if !self.dirty() {
            return;
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.epochs.folder.join("epoch"), flags, Mode::empty());
        if let Err(errno @ (Errno::ROFS | Errno::IO)) = opened {
            self.epochs.failed(errno);
        }
    }
}

impl Epochs {
    /// Has the disk take what was written so far. That makes nothing durable in the store's eyes.
    fn write_back(&self) {
        let Ok(root) = open_root(&self.root) else {
            // The sync at the end does it all, and tells why not.
            return;
        };
        if let Err(errno) = rustix::fs::syncfs(&root) {
            self.failed(errno);
        }
    }

    /// Tells everybody that what was published since the last good sync is lost.
    fn failed(&self, errno: Errno) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return;
        }
        *failure = Some(errno);
        // A file system that takes nothing at all and cannot say so anywhere: this process fails in any case.
        let _ = self.note_lost();
    }

    fn note_lost(&self) -> Result<()> {
        let path = self.folder.join("epoch");
        // What the kernel made read-only can still be locked.
        let file = files::open_lock(&path).or_else(|_| File::open(&path).map_err(error::io("open", &path)));
        let mut lock = file?;
        files::flock(&lock, FlockOperation::LockExclusive, &path)?;
        let last = self.read(&mut lock, &path)?;
        self.lost.note(self.read_synced(&self.boot) + 1, last)?;
        // Who runs already goes on with epochs that are not lost; who opens the store now does in any case.
        self.write(&mut lock, &path, last + 1)
    }

    /// Fails if the disk is known to have failed.
    fn check(&self) -> Result<()> {
        let failure = *self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), |errno| Err(self.not_written(errno.into())))
    }

    fn not_written(&self, source: io::Error) -> Error {
        Error::NotWritten {
            root: self.root.clone(),
            source,
        }
    }

    /// Where it is kept how far a boot is on disk.
    fn marker(&self, boot: &BootId) -> PathBuf {
        self.folder.join("boots").join(boot.as_str())
    }

    /// The highest epoch of `boot` on disk; 0 when unknown.
    fn read_synced(&self, boot: &BootId) -> u64 {
        let Ok(bytes) = std::fs::read(self.marker(boot)) else {
            return 0;
        };
        sealed::open::<SyncedEpoch>(KIND, VERSION, &bytes).map_or(0, |synced| synced.epoch)
    }

    /// The epoch of now. A missing, damaged or older boot's file means: one more than what is synced. Lost ones are over.
    fn read(&self, lock: &mut File, path: &Path) -> Result<u64> {
        let mut text = String::new();
        let read = lock
            .rewind()
            .and_then(|()| Read::by_ref(lock).take(256).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(source) if source.kind() == io::ErrorKind::InvalidData => text.clear(),
            Err(source) => return Err(error::io("read", path)(source)),
        }
        let known = text
            .strip_suffix('\n')
            .and_then(|line| line.split_once(' '))
            .filter(|(boot, epoch)| *boot == self.boot.as_str() && epoch.len() == 20)
            .and_then(|(_, epoch)| epoch.parse::<u64>().ok());
        let epoch = known.unwrap_or_else(|| self.read_synced(&self.boot) + 1);
        Ok(epoch.max(self.lost.next_epoch()))
    }

    /// Publishers stamp with this epoch from now on.
    fn write(&self, lock: &mut File, path: &Path, epoch: u64) -> Result<()> {
        let line = format!("{} {epoch:020}\n", self.boot);
        lock.rewind()
            .and_then(|()| lock.write_all(line.as_bytes()))
            .and_then(|()| lock.set_len(line.len() as u64))
            .map_err(error::io("write", path))
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
mod tests;
