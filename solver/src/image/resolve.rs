//! What a name means for a platform: in the store, or in a registry.

use kiln_cache::{Found, ImageLayer, ImageRecord, LayerId};
use kiln_image::{
    ConfigError, Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, limits,
    media_type, parse_manifest,
};

use super::{Images, PullError, PullPolicy, Resolved};
use crate::graph::{ImageSource, SourceLayer};

impl Images {
    /// What `reference` means for `platform`. `requested` says whether the user asked for that platform: a local
    /// image of another platform then counts as missing.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        requested: bool,
        policy: PullPolicy,
    ) -> Result<Resolved, PullError> {
        let local = match policy {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => self.store.images().find(&reference.to_string())?,
        };
        // What the store has for other platforms only: the answer when nobody has it for this one.
        let mut elsewhere = Vec::new();
        if let Some(found) = local {
            let platforms = found.platforms();
            // A single image is taken for whatever it is unless the user asked for a platform.
            let wanted = (requested || matches!(found, Found::Index(_))).then_some(platform);
            match self.store.images().pick(found, wanted)? {
                Some(record) => {
                    if let Some(local) = self.resolve_record(reference, &record)? {
                        return Ok(local);
                    }
                }
                None => elsewhere = platforms,
            }
        }
        let remote = if policy == PullPolicy::Never {
            Err(PullError::NotLocal(reference.familiar()))
        } else {
            self.resolve_remote(reference, platform)
        };
        match remote {
            Err(error) if !elsewhere.is_empty() && !matches!(error, PullError::NoPlatform { .. }) => {
                Err(PullError::OtherPlatforms {
                    reference: reference.familiar(),
                    wanted: Box::new(platform.clone()),
                    available: elsewhere,
                    source: Box::new(error),
                })
            }
            other => other,
        }
    }

    /// An image of the store; `None` when its configuration is lost.
    fn resolve_record(
        &self,
        reference: &Reference,
        record: &ImageRecord,
    ) -> Result<Option<Resolved>, PullError> {
        // Somebody may be removing it just now.
        if !self.store.images().hold(record)? {
            return Ok(None);
        }
        let Some(bytes) = self.store.blobs().read(&record.config)? else {
            return Ok(None);
        };
        let config = parse_config(reference, &record.config, &bytes)?;
        let layers = record
            .layers
            .iter()
            .map(|layer| SourceLayer {
                layer: layer.layer.clone(),
                diff_id: layer.diff_id,
                blob: layer.blob.clone(),
            })
            .collect();
        let digest = record
            .manifests
            .first()
            .map_or_else(|| record.config, |manifest| manifest.digest);
        let source = ImageSource {
            reference: reference.to_string(),
            digest,
            layers,
        };
        Ok(Some(Resolved {
            source,
            config,
            platform: record.platform.clone(),
            record: None,
            offered: Vec::new(),
        }))
    }

    fn resolve_remote(&self, reference: &Reference, platform: &Platform) -> Result<Resolved, PullError> {
        let client = self.client()?;
        let name = reference.to_string();
        let fetched = client.manifest(reference)?;
        let mut manifests = vec![descriptor(
            &fetched.media_type,
            &fetched.digest,
            fetched.bytes.len(),
        )];
        let top_digest = fetched.digest;
        let (mut digest, mut bytes, mut media_type) = (fetched.digest, fetched.bytes, fetched.media_type);
        let mut depth = 0;
        let mut offered = Vec::new();
        let manifest: Manifest = loop {
            let parsed =
                parse_manifest(&bytes, Some(&media_type)).map_err(|source| PullError::Malformed {
                    reference: name.clone(),
                    what: "manifest",
                    digest,
                    source: Box::new(source),
                })?;
            self.store.blobs().put_bytes(&bytes)?;
            match parsed {
                ManifestOrIndex::Manifest(manifest) => break manifest,
                ManifestOrIndex::Index(index) => {
                    depth += 1;
                    if depth > limits::INDEX_DEPTH {
                        return Err(PullError::TooDeep(name));
                    }
                    offered.extend(index.platforms());
                    let chosen = index.select(platform).map_err(|source| PullError::NoPlatform {
                        reference: name.clone(),
                        source: Box::new(source),
                    })?;
                    let next = client.manifest_by_digest(reference, &chosen.digest)?;
                    if next.bytes.len() as u64 != chosen.size {
                        return Err(PullError::ManifestSize {
                            reference: name,
                            digest: next.digest,
                            wanted: chosen.size,
                            found: next.bytes.len(),
                        });
                    }
                    (digest, bytes, media_type) = (next.digest, next.bytes, next.media_type);
                    manifests.insert(0, descriptor(&media_type, &digest, bytes.len()));
                }
            }
        };
        check_media_types(&name, &manifest)?;
        let config = self.config(reference, &manifest.config)?;
        let layers = source_layers(&name, &manifest, &config)?;
        let platform = config.platform();
        let record = ImageRecord {
            id: manifest.config.digest,
            config: manifest.config.digest,
            layers: layers
                .iter()
                .map(|layer| ImageLayer {
                    layer: layer.layer.clone(),
                    diff_id: layer.diff_id,
                    blob: layer.blob.clone(),
                })
                .collect(),
            manifests,
            repo_digests: vec![format!("{}@{top_digest}", reference.familiar_name())],
            platform: platform.clone(),
            created: config.created.clone(),
            size: 0,
            names: Vec::new(),
        };
        let source = ImageSource {
            reference: name,
            digest,
            layers,
        };
        Ok(Resolved {
            source,
            config,
            platform,
            record: Some(record),
            offered,
        })
    }

    fn config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<ImageConfig, PullError> {
        let limit = limits::CONFIG_SIZE;
        // Whatever the descriptor calls a configuration: it is to fit in memory before it is known to be one.
        let fits = |size: u64| {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size <= limit {
                return Ok(());
            }
            Err(malformed_config(
                reference,
                &descriptor.digest,
                ConfigError::TooLarge { size, limit },
            ))
        };
        fits(descriptor.size)?;
        if let Some(size) = self.store.blobs().size(&descriptor.digest)? {
            fits(size)?;
            if let Some(bytes) = self.store.blobs().read(&descriptor.digest)? {
                return parse_config(reference, &descriptor.digest, &bytes);
            }
        }
        let mut bytes = Vec::new();
        self.client()?
            .fetch_blob(reference, descriptor, &mut bytes, &|_| {})?;
        let config = parse_config(reference, &descriptor.digest, &bytes)?;
        self.store.blobs().put_bytes(&bytes)?;
        Ok(config)
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Descriptor {
    Descriptor::new(media_type, *digest, size as u64)
}

fn parse_config(reference: &Reference, digest: &Digest, bytes: &[u8]) -> Result<ImageConfig, PullError> {
    ImageConfig::parse(bytes).map_err(|source| malformed_config(reference, digest, source))
}

fn malformed_config(reference: &Reference, digest: &Digest, source: ConfigError) -> PullError {
    PullError::Malformed {
        reference: reference.to_string(),
        what: "configuration",
        digest: *digest,
        source: Box::new(source),
    }
}

/// Refuses what is no image before any of it is fetched.
fn check_media_types(reference: &str, manifest: &Manifest) -> Result<(), PullError> {
    let refused = |what, blob: &Descriptor| PullError::MediaType {
        reference: reference.to_owned(),
        what,
        digest: blob.digest,
        media_type: blob.media_type.chars().take(200).collect(),
    };
    if !media_type::is_config(&manifest.config.media_type) {
        return Err(refused("configuration", &manifest.config));
    }
    let strange = |blob: &&Descriptor| !blob.media_type.is_empty() && !media_type::is_layer(&blob.media_type);
    match manifest.layers.iter().find(strange) {
        Some(blob) => Err(refused("layer", blob)),
        None => Ok(()),
    }
}

/// The layers of an image, each with its DiffID and its blob.
pub(super) fn source_layers(
    reference: &str,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<SourceLayer>, PullError> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        return Err(PullError::LayerCount {
            reference: reference.to_owned(),
            layers: manifest.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    if let Some(blob) = manifest.layers.iter().find(|blob| blob.size > limits::LAYER_SIZE) {
        return Err(PullError::LayerSize {
            reference: reference.to_owned(),
            blob: blob.digest,
            size: blob.size,
        });
    }
    Ok(manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(blob, diff_id)| SourceLayer {
            layer: LayerId::from_diff_id(diff_id),
            diff_id: *diff_id,
            blob: Some(blob.clone()),
        })
        .collect())
}
