//! Layers: tar streams to and from directories in overlayfs form.

use std::io::{self, Read, Write};

use kiln_tree::{Entry, Listing, Root, TreePath};

use crate::Digest;
use crate::compress::Compression;

/// What lies below a layer that is being unpacked: its merged lower layers.
pub trait Lower {
    /// What is at `path`, if anything.
    fn entry(&self, path: &TreePath) -> Option<Entry>;
    /// Opens the file at `path`.
    fn open(&self, path: &TreePath) -> io::Result<std::fs::File>;
}

/// How a layer is unpacked.
#[derive(Default, Clone, Copy)]
pub struct UnpackOptions<'a> {
    /// Mark opaque directories by `user.overlay.opaque` instead of `trusted.overlay.opaque`: in user namespaces.
    pub userxattr: bool,
    /// For hard links to files of lower layers and for the metadata of directories that the tar does not list. Without
    /// it, the former are an error and the latter become 0755 root.
    pub lower: Option<&'a dyn Lower>,
    /// Called now and then with the number of tar bytes read so far.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

impl std::fmt::Debug for UnpackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnpackOptions").field("userxattr", &self.userxattr).finish_non_exhaustive()
    }
}

/// What [`unpack`] made.
#[derive(Debug)]
pub struct Unpacked {
    /// Everything in the layer, with the owners, modes and attributes that the tar names, even where the file system
    /// could not take them.
    pub listing: Listing,
    /// The SHA-256 of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub size: u64,
    /// Directories above listed entries that have no entry of their own.
    pub implicit_directories: Vec<TreePath>,
    /// What the file system or the kernel refused.
    pub refused: Refused,
}

/// How often something could not be done for want of privilege, and was let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Owners that the user namespace does not map.
    pub owners: u64,
    /// Device nodes (an empty file is there instead).
    pub devices: u64,
    /// Extended attributes.
    pub xattrs: u64,
}

/// What can go wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Reading failed.
    #[error("read layer")]
    Read(#[source] io::Error),
}

/// Unpacks the tar `reader` into `dest`, an empty directory, in overlayfs form.
pub fn unpack(_reader: impl Read + Send, _dest: &Root, _options: &UnpackOptions<'_>) -> Result<Unpacked, LayerError> {
    todo!()
}

/// The plain bytes of `reader`, which may be compressed with gzip, zstd, bzip2 or xz, known by their first bytes.
pub fn decompress<'a>(_reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    todo!()
}

/// Writes the tar of a layer; gives its size.
pub fn pack(_listing: &Listing, _diff: &Root, _out: impl Write) -> Result<u64, LayerError> {
    todo!()
}

/// The SHA-256 of the tar that [`pack`] writes.
pub fn diff_id(_listing: &Listing, _diff: &Root) -> Result<Digest, LayerError> {
    todo!()
}

/// The blob of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub tar_size: u64,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// Writes the blob of a layer: [`pack`], compressed, hashed before and after in one pass.
pub fn export(
    _listing: &Listing,
    _diff: &Root,
    _compression: Compression,
    _level: Option<i32>,
    _out: impl Write,
) -> Result<Exported, LayerError> {
    todo!()
}
