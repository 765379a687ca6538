//! Why an image cannot be pushed.

use kiln_image::{Digest, Platform};

use crate::compressed::CompressError;
use crate::image::PullError;

/// Why an image cannot be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The registry client's configuration is wrong.
    #[error("the registry configuration is wrong")]
    Config(#[from] kiln_registry::ConfigError),
    /// A registry did not take it.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// The store failed, or does not have the image.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// A layer's blob cannot be had.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A layer that is in another registry only cannot be had from there.
    #[error("failed to fetch {blob}")]
    Fetch {
        /// Its blob.
        blob: Digest,
        /// The cause.
        #[source]
        source: Box<PullError>,
    },
    /// The configuration of an image is not in the store.
    #[error("the configuration of image {0} is lost")]
    ConfigLost(Digest),
    /// There is no image for a platform that is needed.
    #[error("{image} has no image for {wanted}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The platform.
        wanted: Box<Platform>,
        /// The platforms that it has images for.
        available: Vec<Platform>,
    },
    /// The user stopped it.
    #[error("canceled")]
    Canceled,
}

impl PushError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            _ => None,
        }
    }
}
