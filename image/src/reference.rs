//! `Reference`: which image is meant, in Docker's grammar.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, ParseDigestError};

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// An image's name, completed as Docker does it: `alpine` is `docker.io/library/alpine:latest`.
///
/// `Display` gives this complete form, [`Self::familiar`] the short one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port of the registry.
    pub registry: String,
    /// Path of the repository.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest is named.
    pub tag: Option<String>,
    /// The digest of the manifest or index.
    pub digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing there.
    #[error("image name is empty")]
    Empty,
}

impl Reference {
    /// Reads an image's name and completes it, with `latest` when neither tag nor digest is named.
    pub fn parse(_text: &str) -> Result<Self, ParseReferenceError> { todo!() }
    /// As [`Self::parse`], but leaves a missing tag out.
    pub fn parse_untagged(_text: &str) -> Result<Self, ParseReferenceError> { todo!() }
    /// The short form: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String { todo!() }
    /// Registry and repository, complete.
    pub fn name(&self) -> String { todo!() }
    /// The short form of the name alone.
    pub fn familiar_name(&self) -> String { todo!() }
    /// What a registry is asked for: the digest, or else the tag.
    pub fn tag_or_digest(&self) -> String { todo!() }
    /// The same image by this digest.
    #[must_use]
    pub fn with_digest(&self, _digest: Digest) -> Self { todo!() }
}
impl FromStr for Reference {
    type Err = ParseReferenceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> { Self::parse(text) }
}
impl fmt::Display for Reference {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result { todo!() }
}
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct _Unused(ParseDigestError);
