//! What is put together of an image for a registry: manifests, and an index where there are several platforms.

use std::collections::{BTreeSet, HashMap};

use kiln_cache::{ImageRecord, LayerId};
use kiln_image::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, media_type, parse_manifest};

use super::{Push, PushError};
use crate::save::oci_media_type;

/// The blob of each layer.
pub(super) type Blobs = HashMap<LayerId, Descriptor>;

/// A configuration, manifest or index.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
}

/// All documents of a push.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) configs: Vec<Document>,
    /// What an index refers to: it is there before the index.
    pub(super) manifests: Vec<Document>,
    /// The bytes of the index, or of the one manifest.
    pub(super) root_bytes: Vec<u8>,
    pub(super) root: Descriptor,
}

impl Documents {
    pub(super) fn new(push: &Push<'_>, blobs: &Blobs) -> Result<Self, PushError> {
        let mut configs = Vec::with_capacity(push.records.len());
        let mut manifests = Vec::with_capacity(push.records.len());
        for (platform, record) in push.records {
            let bytes = push
                .engine
                .store
                .blobs()
                .read(&record.config)?
                .ok_or(PushError::ConfigLost(record.config))?;
            let config = Descriptor::new(media_type::OCI_CONFIG, record.config, bytes.len() as u64);
            let mut manifest = manifest(push, record, &config, blobs)?;
            manifest.descriptor.platform = Some(platform.clone());
            configs.push(Document {
                descriptor: config,
                bytes,
            });
            manifests.push(manifest);
        }
        let only = if push.is_index {
            known_index(push, &manifests)?
        } else {
            manifests.pop()
        };
        let Document {
            descriptor: root,
            bytes: root_bytes,
        } = only.unwrap_or_else(|| {
            let entries = manifests.iter().map(|manifest| manifest.descriptor.clone());
            let bytes = Index::new(entries.collect()).to_bytes();
            Document {
                descriptor: Descriptor::of(media_type::OCI_INDEX, &bytes),
                bytes,
            }
        });
        Ok(Self {
            configs,
            manifests,
            root_bytes,
            root,
        })
    }
}

/// The index that all of the images came with, where it lists just them: its digest stays.
fn known_index(push: &Push<'_>, manifests: &[Document]) -> Result<Option<Document>, PushError> {
    let digests = |list: &mut dyn Iterator<Item = &Descriptor>| -> BTreeSet<Digest> {
        list.map(|descriptor| descriptor.digest).collect()
    };
    let ours = digests(&mut manifests.iter().map(|manifest| &manifest.descriptor));
    let Some(((_, first), others)) = push.records.split_first() else {
        return Ok(None);
    };
    for known in &first.manifests {
        let is_shared = others.iter().all(|(_, record)| {
            let mut theirs = record.manifests.iter();
            theirs.any(|other| other.digest == known.digest)
        });
        if media_type::is_index(&known.media_type)
            && is_shared
            && let Some(bytes) = push.engine.store.blobs().read(&known.digest)?
            && let Ok(ManifestOrIndex::Index(index)) = parse_manifest(&bytes, Some(&known.media_type))
            && digests(&mut index.manifests.iter()) == ours
        {
            let descriptor = Descriptor::of(&known.media_type, &bytes);
            return Ok(Some(Document { descriptor, bytes }));
        }
    }
    Ok(None)
}

/// The manifest of an image: the one that it was pulled by where that says the same, so that its digest stays.
fn manifest(
    push: &Push<'_>,
    record: &ImageRecord,
    config: &Descriptor,
    blobs: &Blobs,
) -> Result<Document, PushError> {
    let mut layers = Vec::with_capacity(record.layers.len());
    for layer in &record.layers {
        let blob = blobs
            .get(&layer.layer)
            .ok_or_else(|| kiln_cache::Error::LayerMissing(layer.layer.clone()))?;
        layers.push(Descriptor::new(
            oci_media_type(&blob.media_type),
            blob.digest,
            blob.size,
        ));
    }
    if let Some(known) = record.manifests.first()
        && media_type::is_manifest(&known.media_type)
        && let Some(bytes) = push.engine.store.blobs().read(&known.digest)?
        && let Ok(ManifestOrIndex::Manifest(manifest)) = parse_manifest(&bytes, Some(&known.media_type))
        && manifest.config.digest == config.digest
        && manifest.layers.len() == layers.len()
        && manifest
            .layers
            .iter()
            .zip(&layers)
            .all(|(one, other)| one.digest == other.digest)
    {
        let descriptor = Descriptor::of(&known.media_type, &bytes);
        return Ok(Document { descriptor, bytes });
    }
    let bytes = Manifest::new(config.clone(), layers).to_bytes();
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    Ok(Document { descriptor, bytes })
}
