//! Paths inside the root.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat, openat2, statat};
use rustix::io::Errno;

use super::relative;
use crate::mountpoints::{Created, modified};

/// Dangling links are followed this often.
const MAX_LINKS: usize = 40;

/// The root of the sandbox, which is the process's own root too.
pub(super) struct Root {
    fd: OwnedFd,
    device: u64,
    created: Vec<Created>,
}

impl Root {
    pub(super) fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        let device = rustix::fs::fstat(&fd)?.st_dev;
        Ok(Self {
            fd,
            device,
            created: Vec::new(),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What had to be made so far.
    pub(super) fn created(&self) -> &[Created] {
        &self.created
    }

    /// Opens what a path leads to. Symbolic links are followed, but never out of the root.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        match openat2(
            &self.fd,
            relative(path),
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ) {
            // Linux before 5.6. This process's root is the sandbox's root already, so that links
            // cannot lead out in any case.
            Err(Errno::NOSYS) => openat(&self.fd, relative(path), flags, Mode::empty()),
            other => other,
        }
    }

    /// Opens a place to mount on, making it (and its parents) when it is missing: a directory or an
    /// empty file. What is made in the root itself is remembered, so that it can be taken away.
    pub(super) fn mountpoint(&mut self, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open(&path, OFlags::PATH) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            match self.link(&path) {
                Some(next) => path = next,
                None => return self.make(&path, directory),
            }
        }
        Err(Errno::LOOP)
    }

    /// Where a dangling symbolic link at the end of a path leads.
    fn link(&self, path: &Path) -> Option<PathBuf> {
        let parent = path.parent()?;
        let directory = self.open(parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let target = rustix::fs::readlinkat(&directory, path.file_name()?, Vec::new()).ok()?;
        Some(parent.join(OsStr::from_bytes(target.to_bytes())))
    }

    fn make(&mut self, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT);
        };
        // Only for its effect: the parent is opened for reading below.
        self.mountpoint(parent, true)?;
        let parent = self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let inside = rustix::fs::fstat(&parent)?.st_dev == self.device;
        let times = || modified(parent.as_fd()).map_err(|_| Errno::IO);
        let parent_before = times()?;
        if directory {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            mknodat(
                &parent,
                name,
                FileType::RegularFile,
                Mode::from_raw_mode(0o644),
                0,
            )?;
        }
        if inside {
            let inode = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino;
            let parent_after = times()?;
            let path = path.to_owned();
            self.created.push(Created {
                path,
                directory,
                inode,
                parent_before,
                parent_after,
            });
        }
        openat(
            &parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }
}
