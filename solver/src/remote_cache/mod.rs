//! Caches that come from elsewhere and go elsewhere: a registry, a folder, the configuration of an image.
//!
//! [`kiln_cache::portable`] has the form. `import` looks keys up in caches that a request names and fetches layers
//! when a step or the user needs their files; `export` writes what a build used to such a cache; `place` speaks to
//! a registry and `folder` to an OCI layout; `read` makes a cache of what lies there.
//!
//! An import never fails a build: what is missing, broken or foreign is a warning and a miss. An export does, unless
//! the request says otherwise.

mod export;
mod folder;
pub(crate) mod import;
mod place;
mod read;
mod upload;

use std::fmt;
use std::path::PathBuf;

use kiln_image::layout::LayoutError;
use kiln_image::{Digest, Reference};
use kiln_registry::ErrorKind;

pub use export::SolvedCache;

use crate::compressed::{CompressError, LayerCompression};

/// Where a cache is read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheLocation {
    /// A name in a registry: of a cache, or of an image that has one in its configuration.
    Registry(Reference),
    /// An OCI layout in a directory.
    Folder {
        /// The directory.
        path: PathBuf,
        /// The cache's tag.
        tag: String,
        /// The digest of its manifest; goes before the tag.
        digest: Option<Digest>,
    },
}

impl fmt::Display for CacheLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Folder { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// Which steps are exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those whose layers are part of the result.
    #[default]
    Min,
    /// All.
    Max,
}

/// A cache to write.
#[derive(Debug, Clone)]
pub struct CacheExport {
    /// Where to. What is there already is added to.
    pub target: CacheLocation,
    /// Which steps.
    pub mode: CacheMode,
    /// How layers are compressed.
    pub compression: LayerCompression,
    /// A failure is a warning.
    pub ignore_error: bool,
}

/// The caches that a build reads and writes.
#[derive(Debug, Clone, Default)]
pub struct CacheOptions {
    /// Caches to read, the first goes first.
    pub imports: Vec<CacheLocation>,
    /// Caches to write.
    pub exports: Vec<CacheExport>,
    /// Whether the image's configuration gets a cache of its layers.
    pub inline: bool,
}

impl CacheOptions {
    /// How layers are to be compressed while the build still runs: as for a cache of all of them.
    pub fn early_compression(&self) -> Option<LayerCompression> {
        let all = |export: &&CacheExport| export.mode == CacheMode::Max;
        self.exports.iter().find(all).map(|export| export.compression)
    }

    /// Whether any cache is written.
    pub fn exports_any(&self) -> bool {
        self.inline || !self.exports.is_empty()
    }
}

/// Why a cache cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The registry client's configuration is wrong.
    #[error("the registry configuration is wrong")]
    Config(#[from] kiln_registry::ConfigError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// The folder is no OCI layout, or is damaged.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A file of the folder cannot be written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A layer cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The documents are not what they should be.
    #[error("the cache cannot be used: {0}")]
    Portable(#[from] kiln_cache::portable::PortableError),
    /// There is something, and it is no cache.
    #[error("{0}")]
    Foreign(Foreign),
    /// A document is too long or malformed.
    #[error("the cache cannot be used: {0}")]
    Malformed(String),
    /// A layer that was imported is not to be had.
    #[error("layer {0} of the cache cannot be had")]
    LayerLost(kiln_cache::LayerId),
    /// Others wrote to the same name again and again.
    #[error("others write to the same name all the time (gave up after {0} attempts)")]
    Conflict(u32),
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
}

impl CacheError {
    /// Whether the caller stopped it.
    pub(crate) fn is_canceled(&self) -> bool {
        match self {
            Self::Canceled => true,
            Self::Registry(error) => error.kind() == ErrorKind::Interrupted,
            _ => false,
        }
    }
}

/// What lies where a cache was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A cache of BuildKit.
    BuildKit,
    /// An image without a cache in its configuration.
    Image,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BuildKit => "it is a cache of BuildKit, whose keys mean something else",
            Self::Image => "it is an image without a cache of Kiln",
        })
    }
}
