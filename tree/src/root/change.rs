//! Operations that change what is there.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::Root;
use super::metadata::{FileType, Metadata, raw_mode};
use crate::error::io_error;
use crate::{Result, Timestamp};

impl Root {
    /// Renames inside the root, replacing what is there.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let path = from.as_ref();
        let from = self.locate("rename", path)?;
        let to = self.locate("rename", to.as_ref())?;
        rustix::fs::renameat(from.dir(), from.name(), to.dir(), to.name()).map_err(io_error("rename", path))
    }

    /// Sets the owner.
    pub fn chown(&self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("change owner", path)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(place.dir(), place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("change owner", path))
    }

    /// Sets the mode. Fails for a symbolic link.
    pub fn chmod(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("change mode", path)?;
        chmod_unchecked(place.dir(), place.name(), mode).map_err(io_error("change mode", path))
    }

    /// Sets the time of last modification (and of last access, to the same).
    pub fn set_times(&self, path: impl AsRef<[u8]>, mtime: Timestamp) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("set times", path)?;
        rustix::fs::utimensat(
            place.dir(),
            place.name(),
            &mtime.into(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(io_error("set times", path))
    }
}

/// The raw call on one component. `fchmodat` follows symlinks and `fchmodat2` is young, so the file is pinned first.
pub(crate) fn chmod_unchecked(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if Metadata::at_unchecked(fd.as_fd(), c"")?.file_type == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), raw_mode(mode))
}

/// For both times of a file.
impl From<Timestamp> for Timestamps {
    fn from(mtime: Timestamp) -> Self {
        let time = Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.into(),
        };
        Self {
            last_access: time,
            last_modification: time,
        }
    }
}
