//! What is kept of an image.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::{Descriptor, Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::{
    LayerId,
    sealed::{self, Flaw},
};

pub(crate) const KIND: &str = "image";
pub(crate) const VERSION: u32 = 1;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The unpacked layer in the store.
    pub layer: LayerId,
    /// The sha256 of its tar, as the config names it.
    pub diff_id: Digest,
    /// The compressed tar, where one is known; its blob need not be in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its id: the digest of its config.
    pub id: Digest,
    /// The blob with its config.
    pub config: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// Manifests (and indexes) by which it is known to registries; blobs of the store.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// `name@digest` in canonical form, as pulled or pushed.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// For which platform it is.
    pub platform: Platform,
    /// When it was created, as its config says (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Size of its unpacked layers.
    pub size: u64,
    /// Its names. Not in the file of the image: filled in from the names.
    #[serde(skip)]
    pub names: Vec<String>,
}

/// Parses the bytes of an image's file. Never panics, whatever the bytes are; for fuzzing and for tools.
pub fn parse(bytes: &[u8]) -> Result<ImageRecord, Flaw> {
    let record: ImageRecord = sealed::open(KIND, VERSION, bytes)?;
    if record.id == record.config {
        Ok(record)
    } else {
        Err(Flaw::Damaged("id and config differ".to_owned()))
    }
}

/// The same of a file that is named for `id`.
pub(crate) fn parse_named(bytes: &[u8], id: &Digest) -> Result<ImageRecord, Flaw> {
    let record = parse(bytes)?;
    if record.id == *id {
        Ok(record)
    } else {
        Err(Flaw::Damaged(format!("is the record of image {}", record.id)))
    }
}

/// The record with its names filled in.
pub(super) fn with_names(mut record: ImageRecord, names: &BTreeMap<String, Digest>) -> ImageRecord {
    record.names = names
        .iter()
        .filter(|(_, id)| **id == record.id)
        .map(|(name, _)| name.clone())
        .collect();
    record
}

/// The new record, with what only the old one knew: where else the image is known.
pub(super) fn merge(old: Option<&ImageRecord>, new: &ImageRecord) -> ImageRecord {
    let mut merged = ImageRecord {
        names: Vec::new(),
        ..new.clone()
    };
    let Some(old) = old else { return merged };
    let digests: BTreeSet<String> = old
        .repo_digests
        .iter()
        .chain(&new.repo_digests)
        .cloned()
        .collect();
    merged.repo_digests = digests.into_iter().collect();
    for manifest in &old.manifests {
        if !merged
            .manifests
            .iter()
            .any(|known| known.digest == manifest.digest)
        {
            merged.manifests.push(manifest.clone());
        }
    }
    for layer in &mut merged.layers {
        let known = || {
            old.layers
                .iter()
                .find(|other| other.diff_id == layer.diff_id)?
                .blob
                .clone()
        };
        layer.blob = layer.blob.take().or_else(known);
    }
    merged
}
