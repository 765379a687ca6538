//! Images: names to manifests, manifests to unpacked layers.
//!
//! A name is looked up in the store first and asked of its registry only when it is missing there or the
//! request says so ([`PullPolicy`]). What was pulled keeps its name in the store.

mod error;
mod fetch;
mod layers;
mod layout;
mod slots;
mod unpack;
mod windows;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_cache::{Found, ImageLayer, ImageRecord, LayerId, Snapshot, Store};
use kiln_image::{
    ConfigError, Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, limits,
    media_type, parse_manifest,
};
use kiln_registry::Client;

pub use error::PullError;
pub(crate) use layers::Origin;
pub use layout::LayoutSelector;
pub(crate) use unpack::Stoppable;
pub(crate) use windows::DecoderMemory;

use self::slots::Slots;
use crate::graph::{ImageSource, SourceLayer};

/// Makes the registry client when it is first needed.
pub type ClientSource = Box<dyn Fn() -> Result<Client, kiln_registry::ConfigError> + Send + Sync>;

/// When the registry is asked although the store has the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only for names that the store does not have (Docker's `--pull=missing`).
    #[default]
    Missing,
    /// Always: a moved tag is noticed.
    Always,
    /// Never: a name that the store does not have is an error.
    Never,
}

/// A name resolved for one platform.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The layers, and where they come from.
    pub source: ImageSource,
    /// The image's configuration.
    pub config: ImageConfig,
    /// The platform that the image is for.
    pub platform: Platform,
    /// What the store keeps of the image once its layers are there; `None` when it is there already.
    pub record: Option<ImageRecord>,
    /// The platforms that the registry's index of that name has; empty when it has no index.
    pub offered: Vec<Platform>,
}

impl ImageSource {
    /// The image's root file system, whether its layers are there or not.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            layers: self.layers.iter().map(|layer| layer.layer.clone()).collect(),
        }
    }
}

/// Images of the store and of registries.
pub struct Images {
    store: Arc<Store>,
    client_source: ClientSource,
    client: OnceLock<Arc<Client>>,
    /// Images that were resolved and are to get their name once their layers are there.
    expected: Mutex<HashMap<Digest, (Resolved, Reference)>>,
    /// Layouts that images were resolved from, by the digest of the image's manifest.
    layouts: Mutex<HashMap<Digest, PathBuf>>,
    /// For the layers that come, of all images.
    slots: Arc<Slots>,
    /// For all layers that are unpacked or compressed anew.
    memory: DecoderMemory,
}

impl fmt::Debug for Images {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Images")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Images {
    pub(crate) fn new(store: Arc<Store>, client_source: ClientSource) -> Self {
        Self {
            store,
            client_source,
            client: OnceLock::new(),
            expected: Mutex::default(),
            layouts: Mutex::default(),
            slots: Slots::new(layers::AT_A_TIME),
            memory: DecoderMemory::new(),
        }
    }

    /// What decoders of layers share.
    pub(crate) fn memory(&self) -> &DecoderMemory {
        &self.memory
    }

    fn layouts(&self) -> MutexGuard<'_, HashMap<Digest, PathBuf>> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the image with this manifest was resolved from a layout.
    pub(crate) fn is_in_layout(&self, manifest: &Digest) -> bool {
        self.layouts().contains_key(manifest)
    }

    /// The client, made when it is first needed.
    pub(crate) fn client(&self) -> Result<&Client, kiln_registry::ConfigError> {
        self.known_client().map(|client| &**client)
    }

    /// The same, for a thread that is not waited for.
    pub(crate) fn shared_client(&self) -> Result<Arc<Client>, kiln_registry::ConfigError> {
        self.known_client().map(Arc::clone)
    }

    fn known_client(&self) -> Result<&Arc<Client>, kiln_registry::ConfigError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = (self.client_source)()?;
        Ok(self.client.get_or_init(|| Arc::new(client)))
    }

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

    /// Remembers that `resolved` is to be kept under `reference` when [`Images::fetch_layers`] has its layers.
    pub fn expect(&self, resolved: &Resolved, reference: &Reference) {
        if resolved.record.is_some() {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            expected.insert(resolved.source.digest, (resolved.clone(), reference.clone()));
        }
    }

    /// Keeps a pulled image under `reference`, after its layers are there.
    pub fn keep(&self, resolved: &Resolved, reference: &Reference) -> Result<(), PullError> {
        let Some(record) = &resolved.record else {
            return Ok(());
        };
        // Of layers that were here before, the blobs may be gone: now it is known where they are to be had.
        let is_layout = self.layouts().contains_key(&resolved.source.digest);
        for layer in &resolved.source.layers {
            self.keep_original(layer, (!is_layout).then_some(reference))?;
        }
        let mut record = record.clone();
        record.size = self.size(&record.layers)?;
        let images = self.store.images();
        if reference.digest.is_some() {
            return Ok(images.put(&record, &[])?);
        }
        // Images that were pulled for other platforms stay, as long as the name still has those platforms.
        let stays = |platform: &Platform| resolved.offered.iter().any(|offered| offered.matches(platform));
        Ok(images.join(&record, &reference.to_string(), stays)?)
    }

    /// Bytes of all files in the layers.
    pub(crate) fn size(&self, layers: &[ImageLayer]) -> Result<u64, kiln_cache::Error> {
        let mut size = 0;
        for layer in layers {
            size += self.store.layers().require(&layer.layer)?.size();
        }
        Ok(size)
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

fn source_layers(
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
