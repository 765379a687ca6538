//! The form that lies in an image's configuration.

use std::collections::{BTreeMap, HashMap};

use kiln_image::{Descriptor, Digest};

use super::{
    Document, DocumentLayer, PortableCache, PortableError, PortableLayer, PortableRecord, VERSION, bounded,
    check_version, document_records, portable_records,
};
use crate::{Key, LayerId};

/// The document for an image of these layers: those of `records` that lead to layers of the image alone. `made`
/// gives a layer's time in milliseconds and its size.
pub fn encode_inline(
    layers: &[LayerId],
    records: &BTreeMap<Key, PortableRecord>,
    made: impl Fn(&LayerId) -> (u64, u64),
) -> Result<serde_json::Value, PortableError> {
    // The first of two equal layers stands for both.
    let positions: HashMap<&LayerId, u32> = layers
        .iter()
        .enumerate()
        .rev()
        .map(|(at, id)| (id, at as u32))
        .collect();
    let layer = |id: &LayerId| {
        let (created_ms, size) = made(id);
        DocumentLayer {
            id: id.clone(),
            diff_id: None,
            blob: None,
            listing: None,
            created_ms,
            size,
        }
    };
    Ok(serde_json::to_value(Document {
        version: VERSION,
        layers: layers.iter().map(layer).collect(),
        records: document_records(records, &positions),
    })?)
}

/// Reads the document in the configuration of an image that has these blobs and DiffIDs.
pub fn parse_inline(
    document: &serde_json::Value,
    blobs: &[Descriptor],
    diff_ids: &[Digest],
) -> Result<PortableCache, PortableError> {
    let bytes = serde_json::to_vec(document)?;
    bounded("bytes", bytes.len(), super::MAX_DOCUMENT)?;
    check_version(&bytes)?;
    let read: Document = serde_json::from_slice(&bytes)?;
    if read.layers.len() != blobs.len() || blobs.len() != diff_ids.len() {
        return Err(PortableError::Invalid(
            "it is not the cache of this image's layers",
        ));
    }
    let ids: Vec<LayerId> = read.layers.iter().map(|layer| layer.id.clone()).collect();
    let mut layers = BTreeMap::new();
    for ((layer, blob), diff_id) in read.layers.into_iter().zip(blobs).zip(diff_ids) {
        if layer.id.diff_id().is_some_and(|own| own != *diff_id) {
            return Err(PortableError::Invalid(
                "a layer's id and its DiffID contradict each other",
            ));
        }
        layers.entry(layer.id).or_insert(PortableLayer {
            diff_id: *diff_id,
            blob: Descriptor::new(&blob.media_type, blob.digest, blob.size),
            listing: None,
            created_ms: layer.created_ms,
            size: layer.size,
        });
    }
    Ok(PortableCache {
        layers,
        records: portable_records(read.records, &ids)?,
    })
}
