//! Operations that remove something.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Root;
use super::dir::read_dir_unchecked;
use super::metadata::Metadata;
use crate::Result;
use crate::error::io_error;

impl Root {
    /// Removes anything but a directory.
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("remove", path)?;
        rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::empty()).map_err(io_error("remove", path))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("remove directory", path)?;
        rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::REMOVEDIR)
            .map_err(io_error("remove directory", path))
    }

    /// Removes anything, with all below it. Nothing there is no error; tells whether something was. For the root
    /// itself, empties it.
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        let path = path.as_ref();
        let place = match self.locate("remove", path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        remove_tree(place.dir(), place.name()).map_err(io_error("remove", path))
    }
}

/// A directory that is being emptied.
struct Level {
    /// Its name in the directory above.
    name: Vec<u8>,
    /// Which directory it is, to know it again when coming back up.
    identity: (u64, u64),
    /// Its directories that are still to be removed.
    todo: Vec<Vec<u8>>,
}

/// Removes `name` in `dir`. Only one directory is open at a time, so that no depth of a tree is too much; the way
/// back up is `..`, checked against where it must lead.
fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
    if name != b"." {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut current = open_for_removal(dir, name)?;
    let mut levels = vec![empty(&current, name.to_vec())?];
    while let Some(level) = levels.last_mut() {
        if let Some(below) = level.todo.pop() {
            let next = open_for_removal(current.as_fd(), &below)?;
            levels.push(empty(&next, below)?);
            current = next;
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else {
            if done.name == b"." {
                return Ok(true);
            }
            drop(current);
            return rustix::fs::unlinkat(dir, &done.name[..], AtFlags::REMOVEDIR).map(|()| true);
        };
        let up = open_for_removal(current.as_fd(), b"..")?;
        if identity(&up)? != above.identity {
            // Somebody moved the directory away while it was emptied.
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&up, &done.name[..], AtFlags::REMOVEDIR)?;
        current = up;
    }
    Ok(true)
}

/// Unlinks everything in `dir` but directories, which it gives back.
fn empty(dir: &OwnedFd, name: Vec<u8>) -> rustix::io::Result<Level> {
    let mut todo = Vec::new();
    for entry in read_dir_unchecked(dir)? {
        if entry.file_type.is_dir() {
            todo.push(entry.name);
            continue;
        }
        match rustix::fs::unlinkat(dir, &entry.name[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Level {
        name,
        identity: identity(dir)?,
        todo,
    })
}

fn identity(dir: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    Metadata::at_unchecked(dir.as_fd(), c"").map(|metadata| (metadata.dev, metadata.ino))
}

/// Opens a directory in which something is to be removed; our own ones even where their mode is in the way.
fn open_for_removal(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            super::change::chmod_unchecked(dir, name, 0o700)?;
            rustix::fs::openat(dir, name, flags, Mode::empty())
        }
        other => other,
    }
}
