//! Images: names to manifests, manifests to unpacked layers.
//!
//! A name is looked up in the store first and asked of its registry only when it is missing there or the
//! request says so ([`PullPolicy`]). What was pulled keeps its name in the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_cache::{BlobWriter, ImageLayer, ImageRecord, LayerId, Snapshot, Store};
use kiln_image::layer::{self, UnpackOptions};
use kiln_image::{
    Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, parse_manifest,
};
use kiln_registry::{BlobSink, Client};
use kiln_tree::Root;

use crate::cancel::Cancel;
use crate::graph::{ImageSource, SourceLayer};
use crate::task::Task;

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
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry client's configuration is wrong.
    #[error("the registry configuration is wrong")]
    Config(#[from] kiln_registry::ConfigError),
    /// A registry did not give it.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// The store does not have it, and the registry was not to be asked.
    #[error("{0} is not in the store, and pulling is off")]
    NotLocal(String),
    /// A manifest or configuration is malformed.
    #[error("{reference}: malformed {what} {digest}")]
    Malformed {
        /// The image.
        reference: String,
        /// `manifest` or `configuration`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The index has no image for the platform.
    #[error("{reference}: no image for platform {}", source.wanted)]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was wanted and what there is.
        #[source]
        source: Box<kiln_image::SelectError>,
    },
    /// Manifest and configuration do not name the same number of layers.
    #[error("{reference}: the manifest lists {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// The image.
        reference: String,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// An index that lists indexes too deeply.
    #[error("{0}: the index nests deeper than any real one")]
    TooDeep(String),
    /// The unpacked bytes are not those that the configuration promised.
    #[error("layer {blob}: its content has digest {found} where the configuration says {wanted}")]
    DiffId {
        /// The compressed blob.
        blob: Digest,
        /// What the configuration says.
        wanted: Digest,
        /// What came out.
        found: Digest,
    },
    /// A layer is nowhere to be had: not in the store, and no blob names it.
    #[error(
        "layer {0} is not in the store and the image has no blob for it; build or import the image again"
    )]
    LayerLost(Digest),
    /// A layer cannot be unpacked.
    #[error("failed to unpack layer {blob}")]
    Unpack {
        /// The blob.
        blob: Digest,
        /// The cause.
        #[source]
        source: layer::LayerError,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// A directory could not be read or written.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
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
    client: OnceLock<Client>,
    /// Images that were resolved and are to get their name once their layers are there.
    expected: Mutex<HashMap<Digest, (Resolved, Reference)>>,
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
        }
    }

    fn client(&self) -> Result<&Client, PullError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = (self.client_source)()?;
        Ok(self.client.get_or_init(|| client))
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
        if policy != PullPolicy::Always
            && let Some(local) = self.resolve_local(reference, platform, requested)?
        {
            return Ok(local);
        }
        if policy == PullPolicy::Never {
            return Err(PullError::NotLocal(reference.familiar()));
        }
        self.resolve_remote(reference, platform)
    }

    fn resolve_local(
        &self,
        reference: &Reference,
        platform: &Platform,
        requested: bool,
    ) -> Result<Option<Resolved>, PullError> {
        let Some(record) = self.store.images().get(&reference.to_string())? else {
            return Ok(None);
        };
        if requested && !record.platform.satisfies(platform) {
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
                    if depth > kiln_image::limits::INDEX_DEPTH {
                        return Err(PullError::TooDeep(name));
                    }
                    let chosen = index.select(platform).map_err(|source| PullError::NoPlatform {
                        reference: name.clone(),
                        source: Box::new(source),
                    })?;
                    let next = client.manifest_by_digest(reference, &chosen.digest)?;
                    (digest, bytes, media_type) = (next.digest, next.bytes, next.media_type);
                    manifests.insert(0, descriptor(&media_type, &digest, bytes.len()));
                }
            }
        };
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
        })
    }

    fn config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<ImageConfig, PullError> {
        if let Some(bytes) = self.store.blobs().read(&descriptor.digest)? {
            return parse_config(reference, &descriptor.digest, &bytes);
        }
        let mut bytes = Vec::new();
        self.client()?
            .fetch_blob(reference, descriptor, &mut bytes, &|_| {})?;
        let config = parse_config(reference, &descriptor.digest, &bytes)?;
        self.store.blobs().put_bytes(&bytes)?;
        Ok(config)
    }

    /// Whether all layers are unpacked in the store.
    pub fn is_unpacked(&self, source: &ImageSource) -> Result<bool, kiln_cache::Error> {
        for layer in &source.layers {
            if self.store.layers().get(&layer.layer)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings the missing layers into the store: blobs in parallel, unpacking from the bottom up as they come. The
    /// first failure stops the rest.
    pub fn fetch_layers(&self, source: &ImageSource, task: &Task, cancel: &Cancel) -> Result<(), PullError> {
        let reference: Reference = source
            .reference
            .parse()
            .map_err(|_| PullError::NotLocal(source.reference.clone()))?;
        let mut missing: Vec<&SourceLayer> = Vec::new();
        for layer in &source.layers {
            let twice = missing.iter().any(|other| other.layer == layer.layer);
            if !twice && self.store.layers().get(&layer.layer)?.is_none() {
                missing.push(layer);
            }
        }
        let stop = Cancel::new();
        let stopper = stop.clone();
        let _link = cancel.on_raise(move || stopper.raise());
        let first_error: Mutex<Option<PullError>> = Mutex::default();
        let note = |result: Result<(), PullError>| {
            if let Err(error) = result {
                first_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                stop.raise();
            }
        };
        std::thread::scope(|scope| {
            let downloads: Vec<_> = missing
                .iter()
                .map(|layer| scope.spawn(|| note(self.fetch_blob(&reference, layer, task, &stop))))
                .collect();
            for (layer, download) in missing.iter().zip(downloads) {
                if let Err(panic) = download.join() {
                    stop.raise();
                    std::panic::resume_unwind(panic);
                }
                if !stop.is_raised() {
                    note(self.unpack(layer, task, &stop));
                }
            }
        });
        if cancel.is_raised() {
            return Err(PullError::Canceled);
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => self.settle(source),
        }
    }

    /// Gives an image that was [expected](Images::expect) its name: its layers are there.
    pub(crate) fn settle(&self, source: &ImageSource) -> Result<(), PullError> {
        let expected = self
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&source.digest);
        match expected {
            Some((resolved, reference)) => self.keep(&resolved, &reference),
            None => Ok(()),
        }
    }

    fn fetch_blob(
        &self,
        reference: &Reference,
        layer: &SourceLayer,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        if cancel.is_raised() {
            return Err(PullError::Canceled);
        }
        let Some(writer) = self
            .store
            .blobs()
            .unhashed_writer(&blob.digest, Some(blob.size))?
        else {
            return Ok(());
        };
        let mut sink = StoreSink { writer, cancel };
        let part = blob.digest.to_string();
        let progress = |bytes| task.progress(&part, bytes, Some(blob.size), false);
        if let Err(error) = self.client()?.fetch_blob(reference, blob, &mut sink, &progress) {
            return Err(if cancel.is_raised() {
                PullError::Canceled
            } else {
                error.into()
            });
        }
        sink.writer.commit_hashed(&blob.digest)?;
        task.progress(&part, blob.size, Some(blob.size), true);
        Ok(())
    }

    fn unpack(&self, layer: &SourceLayer, task: &Task, stop: &Cancel) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let file = self
            .store
            .blobs()
            .get(&blob.digest)?
            .ok_or_else(|| PullError::LayerLost(layer.diff_id))?;
        let failed = |source| PullError::Unpack {
            blob: blob.digest,
            source,
        };
        let draft = self.store.layers().draft()?;
        let root = Root::open(&draft.diff_path())?;
        let part = format!("unpacking {}", blob.digest);
        let progress = |bytes| task.progress(&part, bytes, None, false);
        let options = UnpackOptions {
            userxattr: self.store.userxattr(),
            lower: None,
            progress: Some(&progress),
        };
        let reader = layer::decompress(Stoppable { file, stop })
            .map_err(|source| failed(layer::LayerError::Read(source)))?;
        let unpacked = layer::unpack(reader, &root, &options).map_err(failed)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(PullError::DiffId {
                blob: blob.digest,
                wanted: layer.diff_id,
                found: unpacked.diff_id,
            });
        }
        if unpacked.refused.owners > 0 {
            task.warn(
                format!(
                    "{} files keep the owner of this user: only one user id is mapped here (install uidmap and \
                     give the user a range in /etc/subuid and /etc/subgid)",
                    unpacked.refused.owners
                ),
                None,
            );
        }
        self.store
            .layers()
            .commit(draft, &layer.layer, unpacked.listing)?;
        task.progress(&part, unpacked.size, Some(unpacked.size), true);
        Ok(())
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
        let mut record = record.clone();
        record.size = self.size(&record.layers)?;
        let names = if reference.digest.is_some() {
            Vec::new()
        } else {
            vec![reference.to_string()]
        };
        self.store.images().put(&record, &names)?;
        Ok(())
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

/// A file that can no longer be read once the build is cancelled.
struct Stoppable<'a> {
    file: std::fs::File,
    stop: &'a Cancel,
}

impl std::io::Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.is_raised() {
            return Err(canceled());
        }
        self.file.read(buffer)
    }
}

/// Not of the kind `Interrupted`: that asks to be tried again.
fn canceled() -> std::io::Error {
    std::io::Error::other("canceled")
}

/// The store's side of a download: stops when the build is cancelled.
struct StoreSink<'a> {
    writer: BlobWriter,
    cancel: &'a Cancel,
}

impl BlobSink for StoreSink<'_> {
    fn offset(&self) -> u64 {
        self.writer.offset()
    }

    fn existing(&mut self) -> std::io::Result<Option<Box<dyn std::io::Read + '_>>> {
        Ok(self
            .writer
            .existing()
            .ok()
            .map(|reader| Box::new(reader) as Box<dyn std::io::Read>))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.cancel.is_raised() {
            return Err(canceled());
        }
        std::io::Write::write_all(&mut self.writer, bytes)
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.writer.restart().map_err(std::io::Error::other)
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Descriptor {
    Descriptor::new(media_type, *digest, size as u64)
}

fn parse_config(reference: &Reference, digest: &Digest, bytes: &[u8]) -> Result<ImageConfig, PullError> {
    ImageConfig::parse(bytes).map_err(|source| PullError::Malformed {
        reference: reference.to_string(),
        what: "configuration",
        digest: *digest,
        source: Box::new(source),
    })
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
