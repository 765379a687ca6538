//! `Manifest` and `Index`: the documents that say what an image is made of.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Platform, json, limits, media_type};

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
#[expect(clippy::large_enum_variant, reason = "one per image, taken apart at once")]
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
    /// Not JSON, or not of this form.
    #[error("manifest is malformed")]
    Json(#[source] serde_json::Error),
    /// Docker's first format.
    #[error(
        "image has a Docker schema 1 manifest, a format without content digests that was given up in 2017; push it again with a newer tool"
    )]
    Schema1,
    /// Neither 1 nor 2.
    #[error("manifest has the unknown schema version {version}")]
    SchemaVersion {
        /// The version.
        version: u64,
    },
    /// Both a manifest and an index, so that two readers could see two images.
    #[error("manifest has fields of both a manifest and an index")]
    Ambiguous,
    /// Something else.
    #[error("media type {media_type:?} is neither that of a manifest nor that of an index")]
    MediaType {
        /// What it is.
        media_type: String,
    },
    /// The document says another media type than the registry or descriptor.
    #[error("manifest calls itself {found:?} but was announced as {expected:?}")]
    Mismatch {
        /// What was announced.
        expected: String,
        /// What the document says or is.
        found: String,
    },
    /// A list is too long.
    #[error("manifest has {count} {what}, more than the {limit} allowed")]
    TooMany {
        /// `layers` or `manifests`.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// No manifest of an index is for the wanted platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for platform {wanted}; there are {}", list(available))]
pub struct SelectError {
    /// What was wanted.
    pub wanted: Platform,
    /// What there is.
    pub available: Vec<Platform>,
}

/// Platforms that a message lists.
const LISTED: usize = 20;

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none at all".to_owned();
    }
    let names: Vec<String> = platforms.iter().take(LISTED).map(Platform::to_string).collect();
    let more = match platforms.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    names.join(", ") + &more
}

/// The fields by which the kind of a document is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index. `media_type` is what the registry or the descriptor said, if anything; it must not
/// contradict the document. The caller keeps `bytes`: their digest is the image's.
pub fn parse_manifest(bytes: &[u8], media_type: Option<&str>) -> Result<ManifestOrIndex, ManifestError> {
    if bytes.len() > limits::MANIFEST_SIZE {
        return Err(ManifestError::TooLarge {
            size: bytes.len(),
            limit: limits::MANIFEST_SIZE,
        });
    }
    // `type; charset=utf-8` is how some registries say it.
    let announced = media_type
        .map(|media_type| media_type.split(';').next().unwrap_or_default().trim())
        // What servers say that do not know.
        .filter(|media_type| {
            !matches!(
                *media_type,
                "" | "application/json" | "application/octet-stream" | "text/plain"
            )
        });
    if matches!(
        announced,
        Some(media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED)
    ) {
        return Err(ManifestError::Schema1);
    }
    let probe: Probe = json::from_slice(bytes).map_err(ManifestError::Json)?;
    if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
        return Err(ManifestError::Schema1);
    }
    if let Some(version) = probe.schema_version.filter(|&version| version != 2) {
        return Err(ManifestError::SchemaVersion { version });
    }
    let is_manifest = probe.config.is_some() || probe.layers.is_some();
    let is_index = probe.manifests.is_some();
    if is_manifest && is_index {
        return Err(ManifestError::Ambiguous);
    }
    check_media_type(announced, probe.media_type.as_deref(), is_index)?;
    if is_index { index(bytes) } else { manifest(bytes) }
}

fn check_media_type(
    announced: Option<&str>,
    stated: Option<&str>,
    is_index: bool,
) -> Result<(), ManifestError> {
    let stated = stated.filter(|stated| !stated.is_empty());
    for media_type in [announced, stated].into_iter().flatten() {
        if !media_type::is_manifest(media_type) && !media_type::is_index(media_type) {
            let media_type = media_type.chars().take(200).collect();
            return Err(ManifestError::MediaType { media_type });
        }
        if media_type::is_index(media_type) != is_index {
            return Err(ManifestError::Mismatch {
                expected: media_type.to_owned(),
                found: if is_index { "an index" } else { "a manifest" }.to_owned(),
            });
        }
    }
    match (announced, stated) {
        (Some(announced), Some(stated)) if announced != stated => Err(ManifestError::Mismatch {
            expected: announced.to_owned(),
            found: stated.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn manifest(bytes: &[u8]) -> Result<ManifestOrIndex, ManifestError> {
    let manifest: Manifest = json::from_slice(bytes).map_err(ManifestError::Json)?;
    at_most(limits::LAYERS, "layers", manifest.layers.len())?;
    Ok(ManifestOrIndex::Manifest(manifest))
}

fn index(bytes: &[u8]) -> Result<ManifestOrIndex, ManifestError> {
    let index: Index = json::from_slice(bytes).map_err(ManifestError::Json)?;
    at_most(limits::INDEX_ENTRIES, "manifests", index.manifests.len())?;
    Ok(ManifestOrIndex::Index(index))
}

fn at_most(limit: usize, what: &'static str, count: usize) -> Result<(), ManifestError> {
    if count > limit {
        return Err(ManifestError::TooMany { what, count, limit });
    }
    Ok(())
}

impl Descriptor {
    /// A descriptor of these bytes.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
            extra: BTreeMap::new(),
        }
    }

    /// A descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256_of(bytes), bytes.len() as u64)
    }

    /// Whether this is a statement about an image (provenance, bill of materials) rather than an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations
            .get("vnd.docker.reference.type")
            .is_some_and(|kind| kind == "attestation-manifest")
    }
}

impl Manifest {
    /// An OCI manifest of an image.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The serialized form of an own manifest. A foreign one must be kept as it was.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only a map with keys that are no strings could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The manifest for `platform`, with the fallbacks between variants that containerd has. Where no entry states a
    /// fitting platform, the first one that states none is given: what it is for stands in its configuration, or it is
    /// an index within the index.
    #[expect(
        clippy::result_large_err,
        reason = "one per image; the error lists what there is"
    )]
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor, SelectError> {
        let stated = |wanted: &Platform| {
            self.images().find(|image| {
                image
                    .platform
                    .as_ref()
                    .is_some_and(|platform| platform.matches(wanted))
            })
        };
        platform
            .fallbacks()
            .iter()
            .find_map(stated)
            .or_else(|| self.images().find(|image| image.platform.is_none()))
            .ok_or_else(|| SelectError {
                wanted: platform.clone(),
                available: self.platforms(),
            })
    }

    /// The platforms of all images, without attestations.
    pub fn platforms(&self) -> Vec<Platform> {
        self.images().filter_map(|image| image.platform.clone()).collect()
    }

    fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests
            .iter()
            .filter(|manifest| !manifest.is_attestation())
    }

    /// The serialized form of an own index. A foreign one must be kept as it was.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only a map with keys that are no strings could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
