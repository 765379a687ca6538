//! A detached mount, made visible at a path of this process.
//!
//! What is bound into a sandbox has to have a path: the kernel clones no part of a mount that is in no mount
//! namespace (before Linux 6.15). The place is in this process's own mount namespace (see [`crate::namespace`]), so
//! nobody outside sees it, and it vanishes with the process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

/// A mount at a path. Dropped, it is taken away from there; sandboxes that were started meanwhile keep it.
#[derive(Debug)]
pub struct Attached {
    path: PathBuf,
}

impl Attached {
    /// Puts `mount` onto the directory `path`, which must be absolute.
    pub fn new(mount: OwnedFd, path: &Path) -> io::Result<Self> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount.as_fd(), "", CWD, path, flags)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It stays for the life of this process then, which harms nobody.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
