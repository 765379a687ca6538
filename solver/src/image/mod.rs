//! Images: names to manifests, manifests to unpacked layers.
//!
//! A name is looked up in the store first and asked of its registry only when it is missing there or the
//! request says so ([`PullPolicy`]). What was pulled keeps its name in the store.

mod error;
mod fetch;
mod layers;
mod layout;
mod resolve;
mod slots;
mod unpack;
mod windows;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_cache::{ImageLayer, ImageRecord, Snapshot, Store};
use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_registry::Client;

pub use error::PullError;
pub(crate) use layers::Origin;
pub use layout::LayoutSelector;
pub(crate) use unpack::Stoppable;
pub(crate) use windows::DecoderMemory;

use self::slots::Slots;
use crate::graph::ImageSource;

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
