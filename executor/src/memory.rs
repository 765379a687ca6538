//! A folder in memory that nothing outside of this program sees: for what must never be on a disk.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::{Error, Result};

/// A tmpfs over a folder, in the mount namespace of this program alone. It is gone when dropped.
#[derive(Debug)]
pub struct MemoryFolder {
    path: PathBuf,
}

impl MemoryFolder {
    /// Mounts over `path`, an existing folder. To be called after [`crate::namespace::enter`]. The kernel is asked
    /// not to swap it out, where it can be asked (Linux 6.4, and not in a user namespace).
    pub fn mount(path: &Path) -> Result<Self> {
        let failed =
            |errno: Errno| Error::io(format!("mount a folder in memory on {}", path.display()), errno);
        let context = open(true).or_else(|_| open(false)).map_err(failed)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", CWD, path, flags).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(unswappable: bool) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
    // Whoever gets a file of it passes through no folder: it is bound on its own.
    fsconfig_set_string(context.as_fd(), "mode", "0711")?;
    if unswappable {
        fsconfig_set_flag(context.as_fd(), "noswap")?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(context)
}

impl Drop for MemoryFolder {
    fn drop(&mut self) {
        // Detaching cannot fail for what was mounted; the namespace's end is the last resort anyway.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
