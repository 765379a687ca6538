//! What can go wrong in the store. A damaged cache entry is no error: it is a miss with a [`Warning`].

use std::{io, path::PathBuf};

use kiln_image::Digest;

use crate::LayerId;

/// Result with the store's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn version_text(found: u32, known: u32) -> String {
    if found > known {
        return format!(
            "a newer kiln made, and this one works with format {known}: use the newer kiln, or another --root"
        );
    }
    format!(
        "an older kiln made, and this one works with format {known} and cannot convert it: use another --root, or delete \
         the folder and pull and build its images again"
    )
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed. A full disk is `source.kind() == StorageFull`.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as the end of "cannot …".
        action: &'static str,
        /// The file or folder it was done to.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The disk failed to take what was written, and said so only later. What was published since is not believed.
    #[error("the disk of {} did not take everything that was written to it", root.display())]
    NotWritten {
        /// The store's root.
        root: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The store was made by a newer or an older program that this one cannot work with.
    #[error("store {} has format {found}, which {}", root.display(), version_text(*found, *known))]
    Version {
        /// The store's root.
        root: PathBuf,
        /// The format on disk.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// The store's `version` file cannot be understood.
    #[error("store {} has an unreadable version file: {reason}; move the folder away, or use another --root", root.display())]
    VersionFile {
        /// The store's root.
        root: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store's layers were made with the other kind of overlay attributes.
    #[error("store {} was made by {}; it cannot be shared with the other kind, use another --root", root.display(), if *stored_userxattr { "an ordinary user" } else { "the root user" })]
    XattrMode {
        /// The store's root.
        root: PathBuf,
        /// Whether the store's layers use `user.overlay.*`.
        stored_userxattr: bool,
    },
    /// Somebody else holds a lock for too long.
    #[error("store is busy: {} is locked by another process", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The bytes of a blob are not those of its digest.
    #[error("blob {wanted}: the bytes have digest {found}")]
    DigestMismatch {
        /// The digest that was promised.
        wanted: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// A blob has not the promised size.
    #[error("blob {digest}: expected {wanted} bytes, got {found}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// The promised size.
        wanted: u64,
        /// The size that came.
        found: u64,
    },
    /// A layer that is needed is not in the store.
    #[error("layer {0} is not in the store")]
    LayerMissing(LayerId),
    /// No image has this name or id.
    #[error("no such image: {0}")]
    ImageNotFound(String),
    /// Several images have an id that begins like this.
    #[error("image id prefix {prefix} is ambiguous: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    AmbiguousImage {
        /// The prefix.
        prefix: String,
        /// The images that it fits.
        ids: Vec<Digest>,
    },
    /// An image that has several names was to be removed by its id, without force.
    #[error("image {id} has several names ({}); remove them one by one, or force", names.join(", "))]
    ImageHasNames {
        /// The image.
        id: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// An image without a name of its own was to be removed, and an index lists it.
    #[error("image {id} belongs to the multi-platform image {index}; remove that one")]
    ImageInIndex {
        /// The image.
        id: Digest,
        /// The index.
        index: Digest,
    },
    /// A text is no layer id, key, build id, or the like.
    #[error("{text:?} is no valid {what}: {reason}")]
    Invalid {
        /// What it should be.
        what: &'static str,
        /// The text.
        text: String,
        /// Why it is not.
        reason: &'static str,
    },
    /// A stored file is damaged, and there is no way to go on without it.
    #[error("damaged {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value could not be written as JSON.
    #[error("cannot encode {what}")]
    Encode {
        /// The value.
        what: &'static str,
        /// The encoder's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A directory tree could not be read.
    #[error("cannot read the tree {}", path.display())]
    Tree {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: kiln_tree::Error,
    },
}

/// Turns an I/O error into [`Error::Io`] with its place; for `map_err`.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

/// The same for the errors of system calls.
pub(crate) fn errno(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(rustix::io::Errno) -> Error {
    let path = path.into();
    move |source| Error::Io {
        action,
        path,
        source: source.into(),
    }
}

/// Something in the store was not as it should be. Work went on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}{}", path.display(), moved_to.as_ref().map(|to| format!(" (set aside as {})", to.display())).unwrap_or_default())]
pub struct Warning {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// Where it was moved to, if it was moved.
    pub moved_to: Option<PathBuf>,
}
