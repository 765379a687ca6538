//! Remembered file hashes.

use crate::{ContentHash, Timestamp, TreePath};

/// What tells that a file is unchanged since it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatKey {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of last modification of the content.
    pub mtime: Timestamp,
    /// Time of last change of anything.
    pub ctime: Timestamp,
}

/// Remembers file hashes between walks. Called from several threads at once.
pub trait HashMemory: Sync {
    /// The hash that the file at `path` had when it looked like `key`.
    fn recall(&self, path: &TreePath, key: &StatKey) -> Option<ContentHash>;
    /// Tells the hash of the file at `path`, which looked like `key` before and after it was read. Whether that is
    /// too fresh to be trusted (changed within the file system's clock granularity) is for the memory to judge.
    fn remember(&self, path: &TreePath, key: &StatKey, content: ContentHash);
    /// Whether only files without extended attributes are told and recalled: setting one changes a file's ctime,
    /// so a recalled file need not be asked for its attributes either.
    fn implies_no_xattrs(&self) -> bool {
        false
    }
}

/// Remembers nothing.
#[derive(Debug, Clone, Copy)]
pub struct Forgetful;

impl HashMemory for Forgetful {
    fn recall(&self, _path: &TreePath, _key: &StatKey) -> Option<ContentHash> {
        None
    }

    fn remember(&self, _path: &TreePath, _key: &StatKey, _content: ContentHash) {}
}
