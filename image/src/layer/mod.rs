//! Layers: tar streams to and from directories in overlayfs form.

mod decompress;
mod error;
mod frames;
mod name;
mod pack;
mod pipeline;
mod place;
mod unpack;
mod whiteout;

use std::io;

use kiln_tree::{Entry, Listing, Refused, TreePath};

pub(crate) use decompress::fill;
pub use decompress::{Encoding, LARGEST_WINDOW, Windows, decompress, decompress_within};
pub use error::LayerError;
pub(crate) use name::checked_path;
pub use pack::{Exported, diff_id, export, export_tar, pack, pack_beside};
pub(crate) use place::{Attributes, Placer, is_foreign_xattr, place_error};
pub use unpack::unpack;

use crate::Digest;

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
    /// Called when the layer is beyond a [limit](crate::limits): the reader may be waiting for bytes that are of no use
    /// any more, and can be told.
    pub refused: Option<&'a (dyn Fn() + Sync)>,
}

impl std::fmt::Debug for UnpackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnpackOptions")
            .field("userxattr", &self.userxattr)
            .finish_non_exhaustive()
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

#[cfg(test)]
mod tests;
