//! Operations that change nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::metadata::{FileType, Metadata};
use super::{Root, resolve};
use crate::error::io_error;
use crate::{Error, Result};

impl Root {
    /// Opens a regular file for reading, following a final symlink. Refuses anything that is no regular file,
    /// without blocking on pipes.
    pub fn open_read(&self, path: impl AsRef<[u8]>) -> Result<File> {
        let path = path.as_ref();
        // Opening a pipe must not wait for a writer, opening a terminal must not make it ours.
        let fd = self.open_at("open", path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let metadata = Metadata::at_unchecked(fd.as_fd(), c"").map_err(io_error("stat", path))?;
        match metadata.file_type {
            FileType::File => Ok(File::from(fd)),
            FileType::Directory => Err(io_error("open", path)(Errno::ISDIR)),
            _ => Err(io_error("open", path)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ))),
        }
    }

    /// Reads a whole file of at most `limit` bytes.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = self.open_read(path)?;
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(io_error("read", path))?;
        if bytes.len() as u64 > limit {
            let reason = format!("larger than {limit} bytes");
            return Err(io_error("read", path)(io::Error::new(
                io::ErrorKind::FileTooLarge,
                reason,
            )));
        }
        Ok(bytes)
    }

    /// As [`Self::read`], `None` when there is nothing (or a parent is missing or no directory).
    pub fn read_opt(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Option<Vec<u8>>> {
        missing_is_none(self.read(path, limit))
    }

    /// What a path is, following a final symlink.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let fd = self.open_at("stat", path, OFlags::PATH)?;
        Metadata::at_unchecked(fd.as_fd(), c"").map_err(io_error("stat", path))
    }

    /// What a path is, not following a final symlink.
    pub fn lstat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let place = self.locate("stat", path)?;
        Metadata::at_unchecked(place.dir(), place.name()).map_err(io_error("stat", path))
    }

    /// As [`Self::lstat`], `None` when there is nothing (or a parent is missing or no directory).
    pub fn lstat_opt(&self, path: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        missing_is_none(self.lstat(path))
    }

    /// As [`Self::stat`], `None` when there is nothing (or a parent is missing or no directory).
    pub fn stat_opt(&self, path: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        missing_is_none(self.stat(path))
    }

    /// The text of a symbolic link.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let place = self.locate("read link", path)?;
        read_link_unchecked(&place).map_err(io_error("read link", path))
    }
}

fn read_link_unchecked(place: &resolve::Place<'_>) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(place.dir(), place.name(), Vec::new())?.into_bytes())
}

fn missing_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
