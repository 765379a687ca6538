//! Why the images of an archive cannot be had.

use std::io;

use crate::tarball::TarError;
use crate::{Digest, ParseReferenceError, Platform};

/// Why the images of an archive cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The tar stream is damaged, or its source failed.
    #[error("failed to read the archive")]
    Tar(#[from] TarError),
    /// The source of the stream failed, or it cannot be decompressed.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// Nothing came.
    #[error("the archive is empty")]
    NoBytes,
    /// No tar.
    #[error("this is no tar archive")]
    NoTar,
    /// A tar without images.
    #[error(
        "the archive holds no images: it has neither index.json with oci-layout, nor manifest.json, nor repositories"
    )]
    NoImages,
    /// An archive of images that names none.
    #[error("the archive names no image")]
    Empty,
    /// A name that leads out of the archive, or is no name.
    #[error("archive entry {name:?} {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two files of one name: which one counts depends on the reader.
    #[error("the archive holds two different files {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// An entry that is no plain file, where one is needed.
    #[error("archive entry {name:?} {reason}")]
    Kind {
        /// The name.
        name: String,
        /// What it is instead.
        reason: String,
    },
    /// More of something than is allowed.
    #[error("the archive has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A document that is longer than any real one.
    #[error("{name} of the archive is longer than the {limit} bytes allowed")]
    TooLong {
        /// Which file.
        name: String,
        /// The limit.
        limit: usize,
    },
    /// A file is not what its name or descriptor says.
    #[error("{name} of the archive has the digest {found} and {size} bytes; it was to be {wanted}")]
    Digest {
        /// Which file.
        name: String,
        /// What it was to be.
        wanted: String,
        /// The digest of its bytes.
        found: Digest,
        /// How many they are.
        size: u64,
    },
    /// A file is missing.
    #[error("the archive has no {name}, which {by} needs")]
    Missing {
        /// Which file.
        name: String,
        /// What needs it.
        by: String,
    },
    /// A document is malformed.
    #[error("{name} of the archive is malformed")]
    Malformed {
        /// Which file.
        name: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layout of a version that is not known here.
    #[error("the archive is an image layout of version {version:?}, only 1.0.0 is known")]
    Version {
        /// The version.
        version: String,
    },
    /// A name that no image can have.
    #[error("the archive calls an image {text:?}")]
    ImageName {
        /// The name.
        text: String,
        /// What is wrong with it.
        source: ParseReferenceError,
    },
    /// Layers and configuration do not belong together.
    #[error("{name}: the configuration lists {diff_ids} layers and the archive {layers}")]
    LayerCount {
        /// The configuration.
        name: String,
        /// Layers that the archive lists.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// There is no image for a platform that is wanted.
    #[error("{image} has no image for {wanted}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The platform.
        wanted: Box<Platform>,
        /// The platforms that there are images for.
        available: Vec<Platform>,
    },
    /// Indexes within indexes, deeper than any real ones.
    #[error("{name}: the index nests deeper than any real one")]
    TooDeep {
        /// The innermost index.
        name: String,
    },
    /// A file beside the store cannot be written or read.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}
