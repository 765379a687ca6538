//! What an entry looks like: owner, mode, extended attributes and times.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::CopyError;
use super::plan::Item;
use super::target::mtime;
use super::write::{Outcome, Spot, Writer};
use crate::Refused;
use crate::root::{Metadata, chmod_unchecked, proc_path, raw_mode};

impl Refused {
    /// Linux answers `EINVAL` for ids that this user namespace does not have, and for nothing else.
    fn owner(&mut self, result: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match result {
            Err(Errno::INVAL) => self.owners += 1,
            other => return other,
        }
        Ok(())
    }

    /// Not every file system takes every attribute, and not every user may set every one.
    fn xattr(&mut self, result: rustix::io::Result<()>) {
        self.xattrs += u64::from(result.is_err());
    }
}

impl Writer<'_> {
    /// Gives an open file or directory owner, mode, attributes and times.
    pub(super) fn finish_open(&self, fd: &OwnedFd, spot: Spot<'_>, mode: u32) -> Result<Refused, CopyError> {
        let now = Metadata::at_unchecked(fd.as_fd(), c"").map_err(|errno| spot.failed("stat", errno))?;
        let xattrs = &spot.item.source.xattrs;
        let mut refused = Refused::default();
        let mut mode_is_right = now.mode == mode;
        if let Some((uid, gid)) = self.new_owner(spot.item, now) {
            // A change of owner takes set-id bits and capabilities away, so it comes first.
            mode_is_right &= mode & 0o6000 == 0;
            refused
                .owner(rustix::fs::fchown(fd, uid, gid))
                .map_err(|errno| spot.failed("change owner of", errno))?;
        }
        for (name, value) in xattrs {
            refused.xattr(rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()));
        }
        // An access control list among the attributes is a mode, too.
        if !mode_is_right || !xattrs.is_empty() {
            rustix::fs::fchmod(fd, raw_mode(mode)).map_err(|errno| spot.failed("change mode of", errno))?;
        }
        rustix::fs::futimens(fd, &mtime(self.request, spot.item.source).into())
            .map_err(|errno| spot.failed("set times of", errno))?;
        Ok(refused)
    }

    /// As [`Self::finish_open`], for what cannot be opened. A symlink has no mode.
    pub(super) fn finish_node(&self, spot: Spot<'_>, mode: Option<u32>) -> Result<Outcome, CopyError> {
        let now =
            Metadata::at_unchecked(spot.dir, spot.name()).map_err(|errno| spot.failed("stat", errno))?;
        let mut refused = Refused::default();
        if let Some((uid, gid)) = self.new_owner(spot.item, now) {
            let changed = rustix::fs::chownat(spot.dir, spot.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            refused
                .owner(changed)
                .map_err(|errno| spot.failed("change owner of", errno))?;
        }
        if !spot.item.source.xattrs.is_empty() {
            let path = proc_path(spot.dir, spot.name());
            for (name, value) in &spot.item.source.xattrs {
                refused.xattr(rustix::fs::lsetxattr(
                    &path[..],
                    &name[..],
                    value,
                    XattrFlags::empty(),
                ));
            }
        }
        if let Some(mode) = mode {
            chmod_unchecked(spot.dir, spot.name(), mode)
                .map_err(|errno| spot.failed("change mode of", errno))?;
        }
        let times = mtime(self.request, spot.item.source).into();
        rustix::fs::utimensat(spot.dir, spot.name(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| spot.failed("set times of", errno))?;
        Ok(Outcome {
            refused,
            ..Outcome::default()
        })
    }

    /// The owner that an item gets, unless it has it already.
    fn new_owner(&self, item: &Item<'_>, now: Metadata) -> Option<(Option<Uid>, Option<Gid>)> {
        let (uid, gid) = self.request.owner.unwrap_or((item.source.uid, item.source.gid));
        ((now.uid, now.gid) != (uid, gid)).then(|| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }
}
