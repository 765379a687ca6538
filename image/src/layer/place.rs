//! `Placer`: puts tar entries into the file system. What privilege forbids is counted, all else is an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};

use kiln_tree::root::Device;
use kiln_tree::{ContentHash, ContentHasher, Entry, Refused, Root, Timestamp, TreePath};
use rustix::fs::{Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::LayerError;
use crate::limits;
use crate::tarball::{Chunk, TarEntry, TarReader};

/// Zero bytes of holes are hashed in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl From<&TarEntry> for Attributes {
    fn from(entry: &TarEntry) -> Self {
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        }
    }
}

impl From<Entry> for Attributes {
    fn from(entry: Entry) -> Self {
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs,
        }
    }
}

/// Puts entries into `root`.
pub(crate) struct Placer<'a> {
    root: &'a Root,
    pub(crate) refused: Refused,
    holes: u64,
    /// Whether new files belong to 0:0 by themselves.
    is_root: bool,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Self {
            root,
            refused: Refused::default(),
            holes: 0,
            is_root: rustix::process::geteuid().is_root() && rustix::process::getegid().is_root(),
        }
    }

    /// Creates a file with the content of `entry`, the one that `tar` just gave.
    pub(crate) fn file<R: Read>(
        &mut self,
        path: &TreePath,
        attributes: &Attributes,
        tar: &mut TarReader<R>,
        entry: &TarEntry,
    ) -> Result<ContentHash, LayerError> {
        self.holes = self.holes.saturating_add(entry.holes());
        if self.holes > limits::LAYER_HOLES {
            let limit = limits::LAYER_HOLES;
            return Err(LayerError::TooMuch {
                what: "bytes in holes of sparse files",
                limit,
            });
        }
        let mut file = self.create(path, attributes)?;
        let mut hasher = ContentHasher::new();
        let mut ends_in_hole = false;
        tar.content(entry, |chunk| {
            ends_in_hole = matches!(chunk, Chunk::Hole(_));
            match chunk {
                Chunk::Data(data) => {
                    hasher.update(data);
                    file.write_all(data)
                }
                Chunk::Hole(mut length) => {
                    let skipped = file.seek(SeekFrom::Current(length.cast_signed()));
                    while length > 0 {
                        let n = length.min(ZEROS.len() as u64);
                        hasher.update(&ZEROS[..n as usize]);
                        length -= n;
                    }
                    skipped.map(drop)
                }
            }
            .map_err(file_error("write", path))
        })?;
        if ends_in_hole {
            file.set_len(entry.size).map_err(file_error("write", path))?;
        }
        self.finish_file(path, &file, attributes)?;
        Ok(hasher.finish())
    }

    /// Creates a file with the content of `source`; gives its size and hash.
    pub(crate) fn copy(
        &mut self,
        path: &TreePath,
        attributes: &Attributes,
        mut source: File,
    ) -> Result<(u64, ContentHash), LayerError> {
        let mut file = self.create(path, attributes)?;
        let mut hasher = ContentHasher::new();
        let mut buffer = vec![0; ZEROS.len()];
        let mut size = 0;
        loop {
            let n = source
                .read(&mut buffer)
                .map_err(file_error("read the lower file", path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(file_error("write", path))?;
            size += n as u64;
        }
        self.finish_file(path, &file, attributes)?;
        Ok((size, hasher.finish()))
    }

    fn create(&self, path: &TreePath, attributes: &Attributes) -> Result<File, LayerError> {
        // Set-id bits come last: they vanish with each write and change of owner.
        let mode = attributes.mode & 0o777;
        self.root.create_file(path, mode).map_err(place_error(path))
    }

    /// All through the open file: no further path is resolved.
    fn finish_file(
        &mut self,
        path: &TreePath,
        file: &File,
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        let error = |operation| move |errno: Errno| file_error(operation, path)(errno.into());
        if !(self.is_root && attributes.uid == 0 && attributes.gid == 0 && Self::group_is_kept(file)) {
            let owner = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            let done = rustix::fs::fchown(file, Some(owner.0), Some(owner.1));
            self.tolerate_owner(done).map_err(error("set the owner"))?;
        }
        if attributes.mode & 0o7000 != 0 {
            let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
            rustix::fs::fchmod(file, mode).map_err(error("set the mode"))?;
        }
        for (name, value) in &attributes.xattrs {
            let done = rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            self.tolerate_xattr(done)
                .map_err(error("set an extended attribute"))?;
        }
        rustix::fs::futimens(file, &attributes.mtime.into()).map_err(error("set the time"))
    }

    /// Whether the file got the process's group: below a set-group-id directory it has that one's.
    fn group_is_kept(file: &File) -> bool {
        rustix::fs::fstat(file).is_ok_and(|stat| stat.st_gid == 0)
    }

    /// Sets everything but the kind of what is at `path`, which is no regular file.
    pub(crate) fn attributes(
        &mut self,
        path: &TreePath,
        attributes: &Attributes,
        is_symlink: bool,
    ) -> Result<(), LayerError> {
        let owner = self.root.chown(path, attributes.uid, attributes.gid);
        if let Err(error) = owner {
            let errno = error.io().and_then(Errno::from_io_error);
            if errno != Some(Errno::INVAL) {
                return Err(place_error(path)(error));
            }
            self.refused.owners += 1;
        }
        if !is_symlink {
            self.root
                .chmod(path, attributes.mode)
                .map_err(place_error(path))?;
        }
        for (name, value) in &attributes.xattrs {
            if let Err(error) = self.root.set_xattr(path, name, value) {
                let errno = error.io().and_then(Errno::from_io_error);
                if !matches!(errno, Some(Errno::OPNOTSUPP | Errno::PERM)) {
                    return Err(place_error(path)(error));
                }
                self.refused.xattrs += 1;
            }
        }
        self.root
            .set_times(path, attributes.mtime)
            .map_err(place_error(path))
    }

    /// Makes a device node; `false` where the user namespace forbids it.
    pub(crate) fn device(
        &mut self,
        path: &TreePath,
        device: Device,
        attributes: &Attributes,
    ) -> Result<bool, LayerError> {
        match self.root.mknod(path, device, attributes.mode) {
            Ok(()) => {}
            Err(error) if error.io().and_then(Errno::from_io_error) == Some(Errno::PERM) => {
                self.refused.devices += 1;
                return Ok(false);
            }
            Err(error) => return Err(place_error(path)(error)),
        }
        self.attributes(path, attributes, false)?;
        Ok(true)
    }

    pub(crate) fn fifo(&mut self, path: &TreePath, attributes: &Attributes) -> Result<(), LayerError> {
        self.root
            .mkfifo(path, attributes.mode)
            .map_err(place_error(path))?;
        self.attributes(path, attributes, false)
    }

    pub(crate) fn symlink(
        &mut self,
        path: &TreePath,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        self.root.symlink(target, path).map_err(place_error(path))?;
        self.attributes(path, attributes, true)
    }

    fn tolerate_owner(&mut self, done: Result<(), Errno>) -> Result<(), Errno> {
        match done {
            // The user namespace does not map the owner.
            Err(Errno::INVAL) => self.refused.owners += 1,
            other => return other,
        }
        Ok(())
    }

    fn tolerate_xattr(&mut self, done: Result<(), Errno>) -> Result<(), Errno> {
        match done {
            // The file system has none, or the name needs a privilege outside of the user namespace.
            Err(Errno::OPNOTSUPP | Errno::PERM) => self.refused.xattrs += 1,
            other => return other,
        }
        Ok(())
    }
}

pub(crate) fn place_error(path: &TreePath) -> impl FnOnce(kiln_tree::Error) -> LayerError + '_ {
    |source| LayerError::Place {
        path: path.clone(),
        source,
    }
}

pub(crate) fn file_error<'a>(
    operation: &'static str,
    path: &'a TreePath,
) -> impl FnOnce(std::io::Error) -> LayerError + 'a {
    move |source| LayerError::File {
        operation,
        path: path.clone(),
        source,
    }
}

/// Attributes that an archive must not set: they steer overlayfs, or belong to the machine's security policy.
pub(crate) fn is_foreign_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name == b"security.selinux"
}
