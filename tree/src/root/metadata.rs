//! What `stat` tells, in this crate's own types.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, Statx, StatxFlags, StatxTimestamp};
use rustix::path::Arg;

use crate::Timestamp;
use crate::walk::StatKey;

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

impl FileType {
    /// Whether this is a directory.
    pub fn is_dir(self) -> bool {
        self == Self::Directory
    }

    pub(crate) fn of(file_type: rustix::fs::FileType) -> Option<Self> {
        use rustix::fs::FileType as Raw;
        Some(match file_type {
            Raw::Directory => Self::Directory,
            Raw::RegularFile => Self::File,
            Raw::Symlink => Self::Symlink,
            Raw::CharacterDevice => Self::CharDevice,
            Raw::BlockDevice => Self::BlockDevice,
            Raw::Fifo => Self::Fifo,
            Raw::Socket => Self::Socket,
            Raw::Unknown => return None,
        })
    }
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

impl Metadata {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type.is_dir()
    }

    /// What tells whether the file is still the same later.
    pub fn key(&self) -> StatKey {
        StatKey {
            dev: self.dev,
            ino: self.ino,
            size: self.size,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    /// The raw call: `name` in `dir`, not following a symlink; the directory itself for an empty name.
    pub(crate) fn at_unchecked(dir: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS).map(|stat| Self::from_statx(&stat))
    }

    fn from_statx(stat: &Statx) -> Self {
        let raw_mode = u32::from(stat.stx_mode);
        let time = |time: StatxTimestamp| Timestamp {
            secs: time.tv_sec,
            nanos: time.tv_nsec,
        };
        Self {
            // A type that Linux does not have cannot come from Linux; a socket is what nobody ever reads.
            file_type: FileType::of(rustix::fs::FileType::from_raw_mode(raw_mode))
                .unwrap_or(FileType::Socket),
            mode: raw_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            nlink: stat.stx_nlink,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
        }
    }
}

/// The permission bits of `mode` as the system calls want them.
pub(crate) fn raw_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}
