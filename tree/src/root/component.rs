//! Path resolution component by component, for kernels and seccomp profiles without `openat2`.
//!
//! Every directory on the way is open, so `..` goes back to the very directory that was come from: renames by
//! somebody else cannot lead outside.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::metadata::{FileType, Metadata};

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// How often the last component may turn from no symlink into a symlink between two calls.
const ATTEMPTS: u32 = 32;

/// Opens `path` as if `root` were `/`. A final symlink is followed unless `flags` has `NOFOLLOW`.
pub(super) fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let mut walk = Walk {
        root,
        dirs: Vec::new(),
        rest: components(path).collect(),
        symlinks: 0,
    };
    let mut attempts = 0;
    while let Some(name) = walk.rest.pop_front() {
        match &name[..] {
            b"." => continue,
            b".." => {
                walk.dirs.pop();
                continue;
            }
            _ => {}
        }
        let is_last = walk.rest.is_empty();
        if is_last && flags.contains(OFlags::NOFOLLOW) {
            return open_unchecked(walk.current(), &name, flags);
        }
        let fd = open_unchecked(walk.current(), &name, OFlags::PATH | OFlags::NOFOLLOW)?;
        match Metadata::at_unchecked(fd.as_fd(), c"")?.file_type {
            FileType::Symlink => walk.follow(&fd)?,
            FileType::Directory => walk.dirs.push(fd),
            _ if !is_last => return Err(Errno::NOTDIR),
            _ => match open_unchecked(walk.current(), &name, flags | OFlags::NOFOLLOW) {
                // Somebody put a symlink there in this moment: look again.
                Err(Errno::LOOP) if attempts < ATTEMPTS => {
                    attempts += 1;
                    walk.rest.push_front(name);
                }
                other => return other,
            },
        }
    }
    open_unchecked(walk.current(), b".", flags & !OFlags::NOFOLLOW)
}

/// Opens the directory at the canonical `path` below `dir`; no component may be a symlink.
pub(super) fn open_dir_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let mut current: Option<OwnedFd> = None;
    let mut names = components(path).peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() {
            OFlags::PATH
        } else {
            flags
        };
        let at = current.as_ref().map_or(dir, AsFd::as_fd);
        current = Some(open_unchecked(
            at,
            &name,
            flags | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        )?);
    }
    current.ok_or(Errno::NOENT)
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories that were entered below the root, the current one last.
    dirs: Vec<OwnedFd>,
    rest: VecDeque<Vec<u8>>,
    symlinks: u32,
}

impl Walk<'_> {
    fn current(&self) -> BorrowedFd<'_> {
        self.dirs.last().map_or(self.root, AsFd::as_fd)
    }

    /// Goes on with what the symlink `fd` says.
    fn follow(&mut self, fd: &OwnedFd) -> Result<()> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(fd, c"", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            self.dirs.clear();
        }
        for name in components(&target).rev() {
            self.rest.push_front(name);
        }
        Ok(())
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&b| b == b'/')
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
}

/// The raw call, on a single component.
fn open_unchecked(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}
