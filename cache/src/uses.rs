//! Which layers and blobs a process relies on, so that nobody deletes them under it.
//!
//! `locks/uses` is an empty file. Whoever begins to rely on a thing read-locks one byte of it, at an offset that is a
//! hash of the thing's name, and only then looks whether the thing is there; the lock stays until the process ends,
//! however it ends. Whoever wants to delete a thing write-locks that byte without waiting: if that works, nobody
//! relies on the thing, and whoever begins to now waits for the few system calls until it is gone or spared, and then
//! finds a miss or the thing. So there is no moment at which a thing that was found can vanish.
//!
//! Two names with one offset only make the deleter too careful. The locks are those of open file descriptions: threads
//! of a deleter's own process count as others do, and a lock is not lost when some other descriptor is closed.

use std::{
    collections::HashSet,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use kiln_image::Digest;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::{LayerId, Result, error, files};

/// Where a thing's byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place(i64);

impl Place {
    pub(crate) fn of_layer(id: &LayerId) -> Self {
        Self::of("layer", id.as_str())
    }

    pub(crate) fn of_blob(digest: &Digest) -> Self {
        Self::of("blob", &digest.hex())
    }

    fn of(kind: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(kind.as_bytes())
            .update(b" ")
            .update(name.as_bytes());
        let mut offset = [0; 8];
        hasher.finalize_xof().fill(&mut offset);
        // Offsets are positive, and one byte more must be, too.
        Self((u64::from_le_bytes(offset) >> 2).cast_signed())
    }
}

/// What this process relies on.
#[derive(Debug)]
pub(crate) struct Uses {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    file: Option<File>,
    places: HashSet<Place>,
}

impl Uses {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            path: lock_path(root),
            held: Mutex::default(),
        }
    }

    /// From now on nobody deletes the thing at `place`, until this process has closed the store. To be called before
    /// looking whether it is there.
    pub(crate) fn hold(&self, place: Place) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.places.contains(&place) {
            return Ok(());
        }
        let file = match held.file.take() {
            Some(file) => file,
            None => files::open_lock(&self.path)?,
        };
        let locked = lock(&file, Lock::Share, place, &self.path);
        held.file = Some(file);
        locked?;
        held.places.insert(place);
        Ok(())
    }
}

/// A deleter's locks. Dropped, they are given back.
#[derive(Debug)]
pub(crate) struct Turn {
    file: File,
    path: PathBuf,
}

impl Turn {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let path = lock_path(root);
        Ok(Self {
            file: files::open_lock(&path)?,
            path,
        })
    }

    /// Whether nobody relies on the thing at `place`. Then nobody begins to before this value is dropped.
    pub(crate) fn take(&self, place: Place) -> Result<bool> {
        lock(&self.file, Lock::Take, place, &self.path)
    }

    /// Whether somebody relies on the thing at `place` now.
    pub(crate) fn is_used(&self, place: Place) -> Result<bool> {
        lock(&self.file, Lock::Ask, place, &self.path)
    }
}

fn lock_path(root: &Path) -> PathBuf {
    root.join("locks/uses")
}

#[derive(Clone, Copy)]
enum Lock {
    /// Shared; waits.
    Share,
    /// Exclusive; does not wait.
    Take,
    /// Whether an exclusive one could not be had.
    Ask,
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are small")]
fn lock(file: &File, lock: Lock, place: Place, path: &Path) -> Result<bool> {
    let kind = match lock {
        Lock::Share => libc::F_RDLCK,
        Lock::Take | Lock::Ask => libc::F_WRLCK,
    };
    let mut range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place.0,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        let done = match lock {
            Lock::Share => fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&range)),
            Lock::Take => fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&range)),
            Lock::Ask => fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut range)),
        };
        return match done {
            Ok(_) if matches!(lock, Lock::Ask) => Ok(range.l_type != libc::F_UNLCK as libc::c_short),
            Ok(_) => Ok(true),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN | Errno::EACCES) if matches!(lock, Lock::Take) => Ok(false),
            Err(errno) => Err(error::io("lock", path)(errno.into())),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn scratch() -> Scratch {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path().join("locks")).unwrap();
        scratch
    }

    #[test]
    fn what_is_held_cannot_be_taken() {
        let dir = scratch();
        let place = |name: &str| Place::of("layer", name);
        let (one, other) = (Uses::new(dir.path()), Uses::new(dir.path()));
        one.hold(place("a")).unwrap();
        one.hold(place("a")).unwrap();
        other.hold(place("a")).unwrap();
        let turn = Turn::new(dir.path()).unwrap();
        assert!(turn.is_used(place("a")).unwrap());
        assert!(!turn.take(place("a")).unwrap());
        assert!(!turn.is_used(place("b")).unwrap());
        assert!(turn.take(place("b")).unwrap());
        assert!(!turn.is_used(place("b")).unwrap(), "one's own lock is no use");
        drop(one);
        assert!(!turn.take(place("a")).unwrap(), "the other one holds it still");
        drop(other);
        assert!(turn.take(place("a")).unwrap());
    }

    #[test]
    fn who_comes_later_waits_for_the_deleter() {
        let dir = scratch();
        let place = Place::of("blob", "x");
        let turn = Turn::new(dir.path()).unwrap();
        assert!(turn.take(place).unwrap());
        let waiting = std::thread::spawn({
            let uses = Uses::new(dir.path());
            move || uses.hold(place).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(turn);
        waiting.join().unwrap();
    }
}
