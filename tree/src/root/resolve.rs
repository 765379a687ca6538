//! From a path to an open file, never outside the root.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Root, component};
use crate::error::io_error;
use crate::{Error, Result};

/// What the kernel accepts as one path, with the final NUL.
const PATH_MAX: usize = 4096;

/// How often to ask again when the tree was changed during a lookup (`EAGAIN`); afterwards the lookup is made
/// component by component, which always comes to an end.
const ATTEMPTS: u32 = 32;

/// How paths are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolver {
    /// By `openat2`, component by component where that is refused.
    Kernel,
    /// Always component by component.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests force it, to compare both"))]
    Components,
}

/// The directory that holds a path, and the path's last component in it (`.` for the root and for paths that end in
/// `.` or `..`).
pub(crate) struct Place<'a> {
    dir: Dir<'a>,
    name: &'a [u8],
}

enum Dir<'a> {
    Root(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl Place<'_> {
    /// The open directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        match &self.dir {
            Dir::Root(fd) => *fd,
            Dir::Opened(fd) => fd.as_fd(),
        }
    }

    /// The name in it.
    pub(crate) fn name(&self) -> &[u8] {
        self.name
    }

    /// A path to the same that works for system calls without an `at` form.
    pub(crate) fn proc_path(&self) -> Vec<u8> {
        proc_path(self.dir(), self.name)
    }
}

/// A path to `name` in `dir` that works for system calls without an `at` form.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    use std::os::fd::AsRawFd as _;
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

impl Root {
    /// Opens `path`. A final symlink is followed unless `flags` has `NOFOLLOW`.
    pub(crate) fn open_at(&self, operation: &'static str, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        check(path)?;
        open_in_root(self.resolver, self.fd.as_fd(), path, flags).map_err(io_error(operation, path))
    }

    /// Finds the directory that holds `path`, following symlinks on the way there.
    pub(crate) fn locate<'a>(&'a self, operation: &'static str, path: &'a [u8]) -> Result<Place<'a>> {
        check(path)?;
        let trimmed = trim(path);
        let (parent, name) = match trimmed.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&trimmed[..slash], &trimmed[slash + 1..]),
            None => (&b""[..], trimmed),
        };
        let (parent, name) = match name {
            // `..` has to be resolved itself.
            b"" | b"." | b".." => (trimmed, &b"."[..]),
            _ => (parent, name),
        };
        let dir = if trim(parent).is_empty() {
            Dir::Root(self.fd.as_fd())
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = open_in_root(self.resolver, self.fd.as_fd(), parent, flags);
            Dir::Opened(opened.map_err(io_error(operation, path))?)
        };
        Ok(Place { dir, name })
    }
}

/// Opens `path` as if `root` were `/`.
fn open_in_root(
    resolver: Resolver,
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = match trim(path) {
        b"" => b".",
        trimmed => trimmed,
    };
    if resolver == Resolver::Kernel && path.len() < PATH_MAX {
        match kernel(root, path, flags, ResolveFlags::IN_ROOT) {
            Err(Refused::NoAnswer) => {}
            Err(Refused::Answer(errno)) => return Err(errno),
            Ok(fd) => return Ok(fd),
        }
    }
    component::open_in_root(root, path, flags)
}

/// Opens the directory at the canonical `path` below `dir`; no component may be a symlink.
pub(crate) fn open_dir_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    if path.is_empty() {
        return rustix::fs::openat(dir, ".", flags | OFlags::CLOEXEC, Mode::empty());
    }
    if path.len() >= PATH_MAX {
        // A tree can be deeper than a path can be long.
        let cut = path[..PATH_MAX - 1]
            .iter()
            .rposition(|&b| b == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let upper = open_dir_beneath(dir, &path[..cut], OFlags::PATH)?;
        return open_dir_beneath(upper.as_fd(), &path[cut + 1..], flags);
    }
    match kernel(
        dir,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    ) {
        Err(Refused::NoAnswer) => component::open_dir_beneath(dir, path, flags),
        Err(Refused::Answer(errno)) => Err(errno),
        Ok(fd) => Ok(fd),
    }
}

enum Refused {
    /// The call itself is not to be had here.
    NoAnswer,
    /// The answer is no.
    Answer(Errno),
}

fn kernel(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Refused> {
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            // The kernel could not rule out that `..` led outside while something was renamed.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Before Linux 5.6, and EPERM from older seccomp profiles. A true EPERM shows again without openat2.
            Err(Errno::NOSYS | Errno::PERM) => return Err(Refused::NoAnswer),
            Err(errno) => return Err(Refused::Answer(errno)),
        }
    }
    Err(Refused::NoAnswer)
}

/// Without slashes at either end: a path is taken inside the root anyhow, and `link/` means the link.
fn trim(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] | [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

fn check(path: &[u8]) -> Result<()> {
    if path.contains(&0) {
        return Err(Error::Nul {
            path: String::from_utf8_lossy(path).into_owned(),
        });
    }
    Ok(())
}
