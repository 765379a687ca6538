//! What can be wrong in a store, and how that is said.

use std::{fmt, path::PathBuf};

use kiln_image::Digest;
use kiln_tree::TreePath;

use crate::{Key, LayerId};

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A record's file is damaged.
    Record {
        /// Its key.
        key: Key,
        /// What is wrong.
        reason: String,
    },
    /// A record names a layer that is damaged. Counts as a miss once that is set aside.
    RecordLayer {
        /// The record's key.
        key: Key,
        /// The layer.
        layer: LayerId,
    },
    /// A layer's meta data or listing is damaged.
    Layer {
        /// The layer.
        id: LayerId,
        /// What is wrong.
        reason: String,
    },
    /// A layer's files are not what its listing says.
    LayerContent {
        /// The layer.
        id: LayerId,
        /// The first path that differs.
        path: TreePath,
        /// What differs.
        reason: String,
    },
    /// A blob's bytes are not those of its digest.
    Blob {
        /// The digest that it should have.
        digest: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// An image's file is damaged, or what it is made of is not there.
    Image {
        /// The image.
        id: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The file of a multi-platform image is damaged, or lists an image that is not there.
    Index {
        /// The index.
        id: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A name points to no image, or to a damaged one.
    Name {
        /// The name.
        name: String,
        /// The missing image.
        image: Digest,
    },
    /// Another file of the store is damaged: a file-hash memory, a build, a name.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { key, reason } => write!(f, "record {key}: {reason}"),
            Self::RecordLayer { key, layer } => write!(f, "record {key}: layer {layer} is damaged"),
            Self::Layer { id, reason } => write!(f, "layer {id}: {reason}"),
            Self::LayerContent { id, path, reason } => write!(f, "layer {id}: /{path}: {reason}"),
            Self::Blob { digest, found } => write!(f, "blob {digest}: the bytes have digest {found}"),
            Self::Image { id, reason } => write!(f, "image {id}: {reason}"),
            Self::Index { id, reason } => write!(f, "index {id}: {reason}"),
            Self::Name { name, image } => write!(f, "name {name}: image {image} is missing or damaged"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}
