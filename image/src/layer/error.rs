//! What can go wrong with a layer.

use std::io;

use kiln_tree::TreePath;

use crate::tarball::TarError;

/// What can go wrong with a layer or another tar.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The tar stream is damaged, or its source failed.
    #[error("read layer")]
    Tar(#[from] TarError),
    /// The source of the stream failed.
    #[error("read layer")]
    Read(#[source] io::Error),
    /// A name that cannot be unpacked.
    #[error("layer entry {path:?} {reason}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something other than a directory is where an entry's directory should be.
    #[error("layer entry {path:?} lies below {parent}, which is no directory")]
    NotADirectory {
        /// The entry.
        path: String,
        /// What is above it.
        parent: TreePath,
    },
    /// The file that a hard link names is not there.
    #[error("layer entry {path:?} is a hard link to {target:?}, which is not there")]
    HardLinkTarget {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// The layer marks the root directory opaque, which overlayfs cannot express.
    #[error("layer hides everything below it by an opaque marker in its root, which is not supported")]
    OpaqueRoot,
    /// More of something than is allowed.
    #[error("layer has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An entry could not be written or read in the file system.
    #[error("layer entry {path}")]
    Place {
        /// The entry.
        path: TreePath,
        /// What failed.
        source: kiln_tree::Error,
    },
    /// A file's data or attributes could not be written or read.
    #[error("{operation} of layer entry {path}")]
    File {
        /// What was tried: `write`, `set the owner`.
        operation: &'static str,
        /// The entry.
        path: TreePath,
        /// The system's answer.
        source: io::Error,
    },
    /// A stored file is not what the layer's listing says.
    #[error("stored layer is damaged: {path} {reason}")]
    Damaged {
        /// The file.
        path: TreePath,
        /// In what it differs.
        reason: &'static str,
    },
    /// Writing the tar or blob failed.
    #[error("write layer")]
    Write(#[source] io::Error),
}
