//! `Root`: operations inside a directory that no path can leave.
//!
//! Every path is resolved as if the directory were `/`, by the kernel (`openat2` with `RESOLVE_IN_ROOT`) or, where it
//! refuses that call, component by component. A path may start with `/` or not; slashes at its end do not count.
//! Unless an operation says otherwise it follows symbolic links in the path but not in its last component, and it
//! acts on the root itself for an empty path.
//!
//! The raw calls, which trust the one component that they are given, end in `_unchecked` and are private.

mod change;
mod component;
mod create;
mod dir;
mod metadata;
mod read;
mod remove;
mod resolve;
#[cfg(test)]
mod tests;
mod xattr;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

pub(crate) use change::chmod_unchecked;
pub use create::Device;
pub use dir::DirEntry;
pub(crate) use dir::read_dir_unchecked;
pub(crate) use metadata::raw_mode;
pub use metadata::{FileType, Metadata};
use resolve::Resolver;
pub(crate) use resolve::{open_dir_beneath, proc_path};
pub(crate) use xattr::Subject;

use crate::Result;
use crate::error::io_error;

/// A directory in which every path is resolved as if it were `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    resolver: Resolver,
}

impl Root {
    /// Opens the directory at `path` of the host.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(io_error("open directory", path.as_os_str().as_bytes()))?;
        Ok(Self::from_fd(fd))
    }

    /// A root at the directory that `fd` is open on (an `O_PATH` descriptor or a detached mount will do).
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self {
            fd,
            resolver: Resolver::Kernel,
        }
    }

    /// Another handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(io_error("duplicate", b""))?;
        Ok(Self {
            fd,
            resolver: self.resolver,
        })
    }

    /// A root at a directory inside this one (final symlink followed).
    pub fn sub_root(&self, path: impl AsRef<[u8]>) -> Result<Self> {
        let fd = self.open_at("open directory", path.as_ref(), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Self {
            fd,
            resolver: self.resolver,
        })
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
