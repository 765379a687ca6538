//! `Manifest` and `Index`: the documents that say what an image is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Platform};

/// Names some bytes: their digest, size and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    #[serde(default)]
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// Other places to get them from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: for which machine the image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}
/// What one image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this is; absent in some OCI manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// The image that this artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}
/// Manifests for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this is; absent in some OCI indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests (or further indexes).
    pub manifests: Vec<Descriptor>,
    /// The image that this artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}
/// What [`parse_manifest`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}
/// Why some bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Too long.
    #[error("manifest has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
}
/// No manifest of an index is for the wanted platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for {wanted}")]
pub struct SelectError {
    /// What was wanted.
    pub wanted: Platform,
    /// What there is.
    pub available: Vec<Platform>,
}
/// Reads a manifest or an index. `media_type` is what the registry or the descriptor said, if anything; it must not
/// contradict the document. The caller keeps `bytes`: their digest is the image's.
pub fn parse_manifest(_bytes: &[u8], _media_type: Option<&str>) -> Result<ManifestOrIndex, ManifestError> {
    todo!()
}
impl Manifest {
    /// The serialized form of an own manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
}
impl Index {
    /// The manifest for `platform`, with the fallbacks between variants that containerd has.
    pub fn select(&self, _platform: &Platform) -> Result<&Descriptor, SelectError> {
        todo!()
    }
    /// The platforms of all images, without attestations.
    pub fn platforms(&self) -> Vec<Platform> {
        todo!()
    }
    /// The serialized form of an own index.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
}
