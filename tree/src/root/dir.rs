//! Reading directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, RawDir};

use super::Root;
use super::metadata::{FileType, Metadata};
use crate::Result;
use crate::error::io_error;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What kind of file it is.
    pub file_type: FileType,
}

impl Root {
    /// Opens a directory for reading, following a final symlink.
    pub(crate) fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<OwnedFd> {
        self.open_at(
            "open directory",
            path.as_ref(),
            OFlags::RDONLY | OFlags::DIRECTORY,
        )
    }

    /// The entries of a directory, sorted by name, without `.` and `..`. Follows a final symlink.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        let path = path.as_ref();
        let dir = self.open_dir(path)?;
        let mut entries = read_dir_unchecked(&dir).map_err(io_error("read directory", path))?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// The entries of the open directory `dir`, in no order, without `.` and `..`.
pub(crate) fn read_dir_unchecked(dir: impl AsFd) -> rustix::io::Result<Vec<DirEntry>> {
    let dir = dir.as_fd();
    let mut entries = Vec::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 16 * 1024];
    let mut raw = RawDir::new(dir, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let file_type = match FileType::of(entry.file_type()) {
            Some(file_type) => file_type,
            // Some file systems do not tell the type here.
            None => match Metadata::at_unchecked(dir, entry.file_name()) {
                Ok(metadata) => metadata.file_type,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            },
        };
        entries.push(DirEntry {
            name: name.to_vec(),
            file_type,
        });
    }
    Ok(entries)
}
