//! `Root`: operations inside a directory that no path can leave.
//!
//! Every path is resolved as if the directory were `/`, by the kernel (`openat2` with `RESOLVE_IN_ROOT`) or, where it
//! refuses that call, component by component. A path may start with `/` or not. Unless an operation says otherwise
//! it follows symbolic links in the path but not in its last component, and it acts on the root itself for an
//! empty path.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::{Result, Timestamp};

/// A directory in which every path is resolved as if it were `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// What kind of file a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileType {
    Directory,
    File,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What kind of file it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u32,
    /// For devices: major and minor number.
    pub device: (u32, u32),
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Time of last change.
    pub ctime: Timestamp,
}

/// A device to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A character device with its major and minor number.
    Char(u32, u32),
    /// A block device with its major and minor number.
    Block(u32, u32),
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What kind of file it is.
    pub file_type: FileType,
}

#[expect(unused_variables, reason = "bodies follow")]
impl Root {
    /// Opens the directory at `path` of the host.
    pub fn open(path: &Path) -> Result<Self> {
        todo!()
    }
    /// A root at the directory that `fd` is open on (an `O_PATH` descriptor or a detached mount will do).
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }
    /// Another handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        todo!()
    }
    /// A root at a directory inside this one (final symlink followed).
    pub fn sub_root(&self, path: impl AsRef<[u8]>) -> Result<Self> {
        todo!()
    }

    /// Opens a regular file for reading, following a final symlink. Refuses anything that is no regular file,
    /// without blocking on pipes.
    pub fn open_read(&self, path: impl AsRef<[u8]>) -> Result<File> {
        todo!()
    }
    /// Reads a whole file of at most `limit` bytes.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        todo!()
    }
    /// Opens a directory for reading, following a final symlink.
    pub fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<OwnedFd> {
        todo!()
    }
    /// What a path is, following a final symlink.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        todo!()
    }
    /// What a path is, not following a final symlink.
    pub fn lstat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        todo!()
    }
    /// As [`Self::lstat`], `None` when there is nothing (or a parent is missing or no directory).
    pub fn lstat_opt(&self, path: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        todo!()
    }
    /// The text of a symbolic link.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        todo!()
    }
    /// The entries of a directory, sorted by name, without `.` and `..`. Follows a final symlink.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        todo!()
    }

    /// Makes a directory with exactly this mode (the umask does not count).
    pub fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        todo!()
    }
    /// Makes a directory and those above it that are missing, each with this mode and owner; existing ones are
    /// left alone, symlinks to directories count as such. Tells how many were made.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<[u8]>,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<usize> {
        todo!()
    }
    /// Creates a new file with exactly this mode; whatever non-directory is there is unlinked first.
    pub fn create_file(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<File> {
        todo!()
    }
    /// Makes a symbolic link with the text `target`. Fails when `path` exists.
    pub fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
    /// Gives the file at `existing` (final symlink not followed) a further name.
    pub fn hard_link(&self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
    /// Makes a device node with exactly this mode.
    pub fn mknod(&self, path: impl AsRef<[u8]>, device: Device, mode: u32) -> Result<()> {
        todo!()
    }
    /// Makes a named pipe with exactly this mode.
    pub fn mkfifo(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        todo!()
    }
    /// Makes a socket file that nobody listens on, with exactly this mode.
    pub fn mksocket(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        todo!()
    }
    /// Renames inside the root, replacing what is there.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
    /// Removes anything but a directory.
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
    /// Removes anything, with all below it. Nothing there is no error; tells whether something was. For the root itself, empties it.
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        todo!()
    }

    /// Sets the owner.
    pub fn chown(&self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Result<()> {
        todo!()
    }
    /// Sets the mode. Fails for a symbolic link.
    pub fn chmod(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        todo!()
    }
    /// Sets the time of last modification (and of last access, to the same).
    pub fn set_times(&self, path: impl AsRef<[u8]>, mtime: Timestamp) -> Result<()> {
        todo!()
    }
    /// The names of all extended attributes.
    pub fn list_xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        todo!()
    }
    /// The value of an extended attribute, `None` when there is none of that name.
    pub fn get_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Sets an extended attribute.
    pub fn set_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: &[u8]) -> Result<()> {
        todo!()
    }
    /// Removes an extended attribute.
    pub fn remove_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<()> {
        todo!()
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
