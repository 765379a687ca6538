//! A cache that travels: records and the layers that they lead to, as documents for a registry or a folder.
//!
//! ```text
//! manifest  an OCI image manifest, so that every registry takes it
//!   config  the document below, of the media type [`MEDIA_TYPE`]
//!   layers  the layers' compressed tars, and their listings ([`LISTING_MEDIA_TYPE`]), sorted by digest
//! ```
//!
//! The document, JSON:
//!
//! | field | holds |
//! |---|---|
//! | `version` | 1; a higher one is refused |
//! | `layers[]` | sorted by `id`: `id` (as in the store), and for layers that came along `diff_id`, `blob`, `listing?` (digests of the manifest's descriptors), `created_ms`, `size` |
//! | `records[]` | sorted by `key`: `key`, `kind`, `output` (positions in `layers`, the lowest first), `step`, `created_ms`, `duration_ms`, `seen` (the day of an export that had it, since 1970) |
//!
//! A layer without a blob is one of a base image: a record can only be hit by a build that has resolved the same
//! image, and so knows where its layers are. Equal caches give equal bytes: everything is sorted, and nothing is
//! said of who wrote it. Of a key only its hash travels: what it is made of may hold values of build arguments.
//!
//! The *inline* form lies in an image's configuration under [`INLINE_KEY`]: the same document, where `layers` are
//! those of the image, in their order, with `id`, `created_ms` and `size` alone.
//!
//! Nothing here is trusted because it was parsed: a blob counts when its digest is right, a layer when its tar has
//! the DiffID and its content the hash that its id says, a listing when its content hash is the layer's id.

mod bounded;
mod inline;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_image::{Descriptor, Digest, Manifest};
use serde::{Deserialize, Serialize};

use crate::{Key, LayerId, RecordKind};

pub use inline::{encode_inline, parse_inline};
pub use merge::Day;

/// The media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.kiln.cache.v1+json";
/// The media type of a layer's listing: the tree crate's format, compressed by zstd.
pub const LISTING_MEDIA_TYPE: &str = "application/vnd.kiln.listing.v1+zstd";
/// Where the inline form lies in an image's configuration.
pub const INLINE_KEY: &str = "kiln.cache.v1";
/// The media type by which caches of BuildKit are told.
pub const BUILDKIT_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Bytes of a document: far more than the most records take.
pub const MAX_DOCUMENT: usize = 16 << 20;
/// Bytes of a cache's manifest; registries take no more than 4 MiB.
pub const MAX_MANIFEST: usize = 4 << 20;
/// Records of one cache. Older ones give way.
pub(crate) const MAX_RECORDS: usize = 10_000;
/// Layers of one cache that came along. With their listings they make a manifest of about 1 MiB.
pub(crate) const MAX_LAYERS: usize = 2_000;
/// Layers of the results of all records together: three MiB of a document.
const MAX_OUTPUTS: usize = 500_000;
/// Layers and records that are read of a document, and that all documents of one place come to: some more than are
/// written, for those who do not drop what is old.
const MAX_FOREIGN_LAYERS: usize = 4 * MAX_LAYERS;
const MAX_FOREIGN_RECORDS: usize = 2 * MAX_RECORDS;
/// Layers of one record's result, as many as an image may have.
const MAX_OUTPUT: usize = kiln_image::limits::LAYERS;
/// Characters of a step's text that travel.
const MAX_STEP: usize = 400;
const VERSION: u32 = 1;

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// It is too long, or has too many parts.
    #[error("it has {count} {what}, more than the {limit} allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or not of this form.
    #[error("it is malformed")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("it has version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// A part contradicts another one.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A layer that came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortableLayer {
    /// The sha256 of its tar.
    pub diff_id: Digest,
    /// Its compressed tar.
    pub blob: Descriptor,
    /// What is in it; absent in the inline form.
    pub listing: Option<Descriptor>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Sum of the sizes of its files.
    pub size: u64,
}

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortableRecord {
    /// Which kind of key.
    pub kind: RecordKind,
    /// The layers of the result, the lowest first.
    pub output: Vec<LayerId>,
    /// The step as the user knows it.
    pub step: String,
    /// When the step ended, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long it ran.
    pub duration_ms: u64,
    /// The day of an export that had it.
    pub seen: Day,
}

/// Records, and layers that they lead to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortableCache {
    /// The layers that came along. Those of base images are not among them.
    pub layers: BTreeMap<LayerId, PortableLayer>,
    /// The records by their keys.
    pub records: BTreeMap<Key, PortableRecord>,
}

/// A cache as it is written: the manifest's bytes, and those of its configuration.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The document.
    pub document: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(deserialize_with = "bounded::layers")]
    layers: Vec<DocumentLayer>,
    #[serde(deserialize_with = "bounded::records")]
    records: Vec<DocumentRecord>,
}

#[derive(Default, Deserialize)]
struct Probe {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct DocumentLayer {
    id: LayerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    diff_id: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listing: Option<Digest>,
    #[serde(default, skip_serializing_if = "is_zero")]
    created_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
}

#[derive(Serialize, Deserialize)]
struct DocumentRecord {
    key: Key,
    kind: RecordKind,
    #[serde(deserialize_with = "bounded::output")]
    output: Vec<u32>,
    #[serde(default)]
    step: String,
    #[serde(default)]
    created_ms: u64,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    seen: Day,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PortableCache {
    /// The bytes, always the same for the same cache.
    pub fn encode(&self) -> Result<Encoded, PortableError> {
        let mut ids: BTreeSet<&LayerId> = self.layers.keys().collect();
        ids.extend(self.records.values().flat_map(|record| &record.output));
        let layers = ids
            .iter()
            .map(|id| document_layer(id, self.layers.get(id)))
            .collect();
        let positions: HashMap<&LayerId, u32> = ids.into_iter().zip(0..).collect();
        let document = serde_json::to_vec(&Document {
            version: VERSION,
            layers,
            records: document_records(&self.records, &positions),
        })?;
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for layer in self.layers.values() {
            for blob in std::iter::once(&layer.blob).chain(&layer.listing) {
                blobs.entry(blob.digest).or_insert_with(|| plain(blob));
            }
        }
        let config = Descriptor::of(MEDIA_TYPE, &document);
        let manifest = Manifest::new(config, blobs.into_values().collect()).to_bytes();
        Ok(Encoded { manifest, document })
    }

    /// Reads what [`Self::encode`] wrote, or what somebody wants to be taken for it. A layer whose blob the manifest
    /// does not have counts as one that did not come along.
    pub fn parse(manifest: &Manifest, document: &[u8]) -> Result<Self, PortableError> {
        bounded("bytes", document.len(), MAX_DOCUMENT)?;
        check_version(document)?;
        let read: Document = serde_json::from_slice(document)?;
        bounded("layers", manifest.layers.len(), MAX_FOREIGN_LAYERS)?;
        let blobs: HashMap<&Digest, &Descriptor> =
            manifest.layers.iter().map(|blob| (&blob.digest, blob)).collect();
        let ids: Vec<LayerId> = read.layers.iter().map(|layer| layer.id.clone()).collect();
        let mut layers = BTreeMap::new();
        for layer in read.layers {
            if let Some((id, layer)) = portable_layer(layer, &blobs)? {
                layers.entry(id).or_insert(layer);
            }
        }
        Ok(Self {
            layers,
            records: portable_records(read.records, &ids)?,
        })
    }
}

/// Without remarks, other addresses and unknown fields: nobody but the place of the manifest is asked for a blob.
fn plain(blob: &Descriptor) -> Descriptor {
    Descriptor::new(&blob.media_type, blob.digest, blob.size)
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), PortableError> {
    if count > limit {
        return Err(PortableError::TooMany { what, count, limit });
    }
    Ok(())
}

fn check_version(document: &[u8]) -> Result<(), PortableError> {
    let Probe { version } = serde_json::from_slice(document)?;
    if version == VERSION {
        Ok(())
    } else {
        Err(PortableError::Version(version))
    }
}

fn document_layer(id: &LayerId, layer: Option<&PortableLayer>) -> DocumentLayer {
    DocumentLayer {
        id: id.clone(),
        diff_id: layer.map(|layer| layer.diff_id),
        blob: layer.map(|layer| layer.blob.digest),
        listing: layer.and_then(|layer| layer.listing.as_ref().map(|listing| listing.digest)),
        created_ms: layer.map_or(0, |layer| layer.created_ms),
        size: layer.map_or(0, |layer| layer.size),
    }
}

/// Records with a layer that has no position are left out.
fn document_records(
    records: &BTreeMap<Key, PortableRecord>,
    positions: &HashMap<&LayerId, u32>,
) -> Vec<DocumentRecord> {
    let record = |(key, record): (&Key, &PortableRecord)| {
        let output: Option<Vec<u32>> = record
            .output
            .iter()
            .map(|id| positions.get(id).copied())
            .collect();
        Some(DocumentRecord {
            key: *key,
            kind: record.kind,
            output: output?,
            step: record.step.chars().take(MAX_STEP).collect(),
            created_ms: record.created_ms,
            duration_ms: record.duration_ms,
            seen: record.seen,
        })
    };
    records.iter().filter_map(record).collect()
}

fn portable_layer(
    layer: DocumentLayer,
    blobs: &HashMap<&Digest, &Descriptor>,
) -> Result<Option<(LayerId, PortableLayer)>, PortableError> {
    let blob = layer.blob.and_then(|digest| blobs.get(&digest));
    let (Some(diff_id), Some(blob)) = (layer.diff_id, blob) else {
        return Ok(None);
    };
    if layer.id.diff_id().is_some_and(|own| own != diff_id) {
        return Err(PortableError::Invalid(
            "a layer's id and its DiffID contradict each other",
        ));
    }
    let listing = layer.listing.and_then(|digest| blobs.get(&digest));
    Ok(Some((
        layer.id,
        PortableLayer {
            diff_id,
            blob: plain(blob),
            listing: listing.map(|listing| plain(listing)),
            created_ms: layer.created_ms,
            size: layer.size,
        },
    )))
}

fn portable_records(
    records: Vec<DocumentRecord>,
    ids: &[LayerId],
) -> Result<BTreeMap<Key, PortableRecord>, PortableError> {
    let mut result = BTreeMap::new();
    let mut outputs = 0;
    for mut record in records {
        outputs += record.output.len();
        bounded("layers of records", outputs, MAX_OUTPUTS)?;
        let output: Option<Vec<LayerId>> = record
            .output
            .iter()
            .map(|at| ids.get(*at as usize).cloned())
            .collect();
        let output = output.ok_or(PortableError::Invalid(
            "a record names a layer that is not listed",
        ))?;
        if let Some((end, _)) = record.step.char_indices().nth(MAX_STEP) {
            record.step.truncate(end);
            record.step.shrink_to_fit();
        }
        result.entry(record.key).or_insert(PortableRecord {
            kind: record.kind,
            output,
            step: record.step,
            created_ms: record.created_ms,
            duration_ms: record.duration_ms,
            seen: record.seen,
        });
    }
    Ok(result)
}
