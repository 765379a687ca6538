//! Where base images and remote sources come from: the caller's resolver, and how its failures look.

use std::error::Error;

use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{GitSource, HttpSource, ImageSource, SourceSpan};

/// Finds everything that comes from outside.
pub trait Resolver: ImageResolver + RemoteResolver {}

impl<T: ImageResolver + RemoteResolver> Resolver for T {}

/// Finds out what files and repositories from elsewhere have. Called from several threads at once, once for each
/// different source.
pub trait RemoteResolver: Sync {
    /// Finds out what a URL has; with `checksum` it is enough to say where that content is to be had. `name` is what
    /// a person sees.
    fn http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure>;

    /// Finds the commit of an address.
    fn git(
        &self,
        address: &GitAddress,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure>;
}

/// Why a file or a repository could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFailure {
    /// What happened.
    pub message: String,
    /// What helps.
    pub hint: Option<String>,
}

/// Finds images. Called from several threads at once, once for each different image and platform.
pub trait ImageResolver: Sync {
    /// Finds the manifest and configuration of `reference` for `platform`. `span` is the place of the first
    /// instruction that names it.
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError>;
}

/// An image that was found.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Its manifest's digest and its layers.
    pub source: ImageSource,
    /// Its configuration.
    pub config: ImageConfig,
    /// The platform that it is for. It may differ from the one asked for when the image has no other.
    pub platform: Platform,
}

/// Why an image could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ResolveError {
    /// What sort of failure it is.
    pub kind: ResolveErrorKind,
    /// The failure itself.
    pub source: Box<dyn Error + Send + Sync>,
}

impl ResolveError {
    /// A failure of the given kind.
    pub fn new(kind: ResolveErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: source.into(),
        }
    }
}

/// The sorts of failures that are told apart in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveErrorKind {
    /// Neither the store nor the registry knows the image.
    NotFound,
    /// The image exists, but not for this platform.
    NoPlatform {
        /// The platforms that it exists for.
        available: Vec<Platform>,
    },
    /// The registry refuses access.
    Unauthorized,
    /// The registry cannot be reached.
    Unreachable,
    /// Anything else, such as a damaged manifest.
    Other,
}
