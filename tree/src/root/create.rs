//! Operations that make something new.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType as RawType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::metadata::raw_mode;
use super::resolve::Place;
use super::{Root, metadata::Metadata};
use crate::Result;
use crate::error::io_error;

/// A device to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A character device with its major and minor number.
    Char(u32, u32),
    /// A block device with its major and minor number.
    Block(u32, u32),
}

/// How often somebody else may create a file anew after it was unlinked.
const ATTEMPTS: u32 = 32;

/// As many dangling symlinks as are followed when directories are made.
const MAX_SYMLINKS: u32 = 40;

impl Root {
    /// Makes a directory with exactly this mode (the umask does not count).
    pub fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("create directory", path)?;
        create_dir_unchecked(&place, mode, None).map_err(io_error("create directory", path))
    }

    /// Makes a directory and those above it that are missing, each with this mode and owner; existing ones are
    /// left alone, symlinks to directories count as such, and where a symlink points at nothing the directory that
    /// it names is made. Tells how many were made.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<[u8]>,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<usize> {
        Ok(self.make_dir_all(path.as_ref(), mode, owner)?.len())
    }

    /// As [`Self::create_dir_all`]; tells which directories were made, those above first.
    pub(crate) fn make_dir_all(
        &self,
        path: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut made = Vec::new();
        // The usual case first: all is there.
        if !self.stat_opt(path)?.is_some_and(|metadata| metadata.is_dir()) {
            self.make_missing(path, mode, owner, MAX_SYMLINKS, &mut made)?;
        }
        Ok(made)
    }

    fn make_missing(
        &self,
        path: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
        symlinks: u32,
        made: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let mut end = 0;
        while end < path.len() {
            let start = end;
            end = path[start + 1..]
                .iter()
                .position(|&b| b == b'/')
                .map_or(path.len(), |at| start + 1 + at);
            let prefix = &path[..end];
            let place = self.locate("create directory", prefix)?;
            match create_dir_unchecked(&place, mode, owner) {
                Ok(()) => made.push(prefix.to_vec()),
                Err(Errno::EXIST) => match self.stat_opt(prefix)? {
                    Some(metadata) if metadata.is_dir() => {}
                    Some(_) => return Err(io_error("create directory", prefix)(Errno::NOTDIR)),
                    None if symlinks == 0 => return Err(io_error("create directory", prefix)(Errno::LOOP)),
                    None => {
                        let target = self.dangling(prefix)?;
                        self.make_missing(&target, mode, owner, symlinks - 1, made)?;
                    }
                },
                Err(errno) => return Err(io_error("create directory", prefix)(errno)),
            }
        }
        Ok(())
    }

    /// Where the symlink `path` points, as a path in the root.
    fn dangling(&self, path: &[u8]) -> Result<Vec<u8>> {
        let target = self.read_link(path)?;
        if target.first() == Some(&b'/') {
            return Ok(target);
        }
        let parent = path
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(&b""[..], |slash| &path[..slash]);
        Ok([parent, b"/", &target].concat())
    }

    /// Creates a new file with exactly this mode; whatever non-directory is there is unlinked first.
    ///
    /// Unless the process is the machine's real root, the first write takes set-id bits away again: set them with
    /// `fchmod` on the file, or [`Self::chmod`], once it is written.
    pub fn create_file(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let place = self.locate("create", path)?;
        create_file_unchecked(&place, mode).map_err(io_error("create", path))
    }

    /// Makes a symbolic link with the text `target`. Fails when `path` exists.
    pub fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("create symbolic link", path)?;
        rustix::fs::symlinkat(target.as_ref(), place.dir(), place.name())
            .map_err(io_error("create symbolic link", path))
    }

    /// Gives the file at `existing` (final symlink not followed) a further name.
    pub fn hard_link(&self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let from = self.locate("create hard link", existing.as_ref())?;
        let to = self.locate("create hard link", path)?;
        rustix::fs::linkat(from.dir(), from.name(), to.dir(), to.name(), AtFlags::empty())
            .map_err(io_error("create hard link", path))
    }

    /// Makes a device node with exactly this mode.
    pub fn mknod(&self, path: impl AsRef<[u8]>, device: Device, mode: u32) -> Result<()> {
        let (file_type, major, minor) = match device {
            Device::Char(major, minor) => (RawType::CharacterDevice, major, minor),
            Device::Block(major, minor) => (RawType::BlockDevice, major, minor),
        };
        self.make_node(path.as_ref(), file_type, mode, rustix::fs::makedev(major, minor))
    }

    /// Makes a named pipe with exactly this mode.
    pub fn mkfifo(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        self.make_node(path.as_ref(), RawType::Fifo, mode, 0)
    }

    /// Makes a socket file that nobody listens on, with exactly this mode. Nothing but tests makes such files.
    #[cfg(test)]
    pub(crate) fn mksocket(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        self.make_node(path.as_ref(), RawType::Socket, mode, 0)
    }

    fn make_node(&self, path: &[u8], file_type: RawType, mode: u32, device: u64) -> Result<()> {
        let place = self.locate("create node", path)?;
        rustix::fs::mknodat(place.dir(), place.name(), file_type, raw_mode(mode), device)
            .and_then(|()| exact_mode(&place, mode))
            .map_err(io_error("create node", path))
    }
}

/// The raw call, with exactly this mode and, where given, owner.
fn create_dir_unchecked(place: &Place<'_>, mode: u32, owner: Option<(u32, u32)>) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(place.dir(), place.name(), raw_mode(mode))?;
    if let Some((uid, gid)) = owner {
        let made = Metadata::at_unchecked(place.dir(), place.name())?;
        if (made.uid, made.gid) != (uid, gid) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(place.dir(), place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    exact_mode(place, mode)
}

/// Sets right what the umask or a directory's default ACL took away.
fn exact_mode(place: &Place<'_>, mode: u32) -> rustix::io::Result<()> {
    if Metadata::at_unchecked(place.dir(), place.name())?.mode == mode & 0o7777 {
        return Ok(());
    }
    super::change::chmod_unchecked(place.dir(), place.name(), mode)
}

/// The raw call: unlinks what is there and is no directory; the file is new in any case.
fn create_file_unchecked(place: &Place<'_>, mode: u32) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut attempts = 0;
    let fd = loop {
        match rustix::fs::openat(
            place.dir(),
            place.name(),
            flags,
            Mode::from_raw_mode(mode & 0o777),
        ) {
            Err(Errno::EXIST) if attempts < ATTEMPTS => {
                attempts += 1;
                match rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            other => break other?,
        }
    };
    if Metadata::at_unchecked(fd.as_fd(), c"")?.mode != mode & 0o7777 {
        rustix::fs::fchmod(&fd, raw_mode(mode))?;
    }
    Ok(File::from(fd))
}
