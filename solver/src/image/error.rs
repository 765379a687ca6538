//! Why an image cannot be had.

use std::io;
use std::path::PathBuf;

use kiln_image::layout::LayoutError;
use kiln_image::{Digest, Platform, layer};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry client's configuration is wrong.
    #[error("the registry configuration is wrong")]
    Config(#[from] kiln_registry::ConfigError),
    /// A registry did not give it.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// The store does not have it, and the registry was not to be asked.
    #[error("{0} is not in the store, and pulling is off")]
    NotLocal(String),
    /// A manifest or configuration is malformed.
    #[error("{reference}: malformed {what} {digest}")]
    Malformed {
        /// The image.
        reference: String,
        /// `manifest` or `configuration`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The index has no image for the platform.
    #[error("{reference}")]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was wanted and what there is.
        #[source]
        source: Box<kiln_image::SelectError>,
    },
    /// The store has the name for other platforms, and nobody else has it for the one that is wanted.
    #[error("{reference} is in the store for {} only", listed(available))]
    OtherPlatforms {
        /// The image.
        reference: String,
        /// The platform that is wanted.
        wanted: Box<Platform>,
        /// The platforms that the store has.
        available: Vec<Platform>,
        /// Why the registry was of no help.
        #[source]
        source: Box<PullError>,
    },
    /// Manifest and configuration do not name the same number of layers.
    #[error("{reference}: the manifest lists {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// The image.
        reference: String,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A layer is said to be larger than any can be.
    #[error(
        "{reference}: layer {blob} is said to have {size} bytes, more than the {} allowed",
        kiln_image::limits::LAYER_SIZE
    )]
    LayerSize {
        /// The image.
        reference: String,
        /// The compressed blob.
        blob: Digest,
        /// What the manifest says.
        size: u64,
    },
    /// An OCI layout cannot be read, or is not what it should be.
    #[error("OCI layout {}", path.display())]
    Layout {
        /// The layout's directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: LayoutError,
    },
    /// An OCI layout has several images, and none by the name asked for.
    #[error("OCI layout {} has no image {tag:?}{}", path.display(), other_names(available))]
    LayoutTag {
        /// The layout's directory.
        path: PathBuf,
        /// What was asked for.
        tag: String,
        /// The names that it has.
        available: Vec<String>,
    },
    /// An index that lists indexes too deeply.
    #[error("{0}: the index nests deeper than any real one")]
    TooDeep(String),
    /// The unpacked bytes are not those that the configuration promised.
    #[error("layer {blob}: its content has digest {found} where the configuration says {wanted}")]
    DiffId {
        /// The compressed blob.
        blob: Digest,
        /// What the configuration says.
        wanted: Digest,
        /// What came out.
        found: Digest,
    },
    /// The unpacked files are not those that the layer's id names.
    #[error("layer {blob}: its files are {found} where the cache says {wanted}")]
    Content {
        /// The compressed blob.
        blob: Digest,
        /// The layer that it was to be.
        wanted: kiln_cache::LayerId,
        /// The layer that it is.
        found: kiln_cache::LayerId,
    },
    /// A layer is nowhere to be had: not in the store, and no blob names it.
    #[error(
        "layer {0} is not in the store and the image has no blob for it; build or import the image again"
    )]
    LayerLost(Digest),
    /// A layer cannot be unpacked.
    #[error("failed to unpack layer {blob}")]
    Unpack {
        /// The blob.
        blob: Digest,
        /// The cause.
        #[source]
        source: layer::LayerError,
    },
    /// A layer of this image is not what it should be.
    #[error("{reference}")]
    OfImage {
        /// The image.
        reference: String,
        /// What is wrong with the layer.
        #[source]
        source: Box<PullError>,
    },
    /// A layer or configuration is something that no image has.
    #[error(
        "{reference}: {what} {digest} has the media type {media_type:?}, which is none of an image{}",
        encrypted(media_type)
    )]
    MediaType {
        /// The image.
        reference: String,
        /// `layer` or `configuration`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What it is said to be.
        media_type: String,
    },
    /// A manifest of an index is longer or shorter than the index says.
    #[error("{reference}: manifest {digest} has {found} bytes where the index says {wanted}")]
    ManifestSize {
        /// The image.
        reference: String,
        /// The manifest.
        digest: Digest,
        /// What the index says.
        wanted: u64,
        /// What came.
        found: usize,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// A directory could not be read or written.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
}

impl PullError {
    /// Whether a layer came well, and is not what it should be.
    pub(super) fn is_of_content(&self) -> bool {
        matches!(
            self,
            Self::DiffId { .. } | Self::Content { .. } | Self::Unpack { .. }
        )
    }

    /// Whether there was no room on a disk.
    pub(super) fn is_disk_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// With the image's name, where the message has only a layer's digest.
    pub(crate) fn of_image(self, reference: &str) -> Self {
        match self {
            Self::DiffId { .. } | Self::Content { .. } | Self::Unpack { .. } | Self::LayerLost(_) => {
                Self::OfImage {
                    reference: reference.to_owned(),
                    source: Box::new(self),
                }
            }
            other => other,
        }
    }
}

fn encrypted(media_type: &str) -> &'static str {
    if media_type.ends_with("+encrypted") {
        "; encrypted images are not supported"
    } else {
        ""
    }
}

/// What there is instead.
fn other_names(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("; it has {}", names.join(", "))
}

fn listed(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}
