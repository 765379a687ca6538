//! The engine: the store, the registries and the sandbox that builds share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::{Found, ImageRecord, Store};
use kiln_executor::Backend;
use kiln_image::Digest;
use kiln_remote::git::{GitSettings, Repositories};

use crate::compressed::LayerBlobs;
use crate::image::{ClientSource, Images};
use crate::platform::Emulators;
use crate::push::stream::Streams;

/// What the engine is told about the machine, the same for all builds.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// A bundle of certificate authorities that processes of RUN steps trust beside the image's own. It is
    /// bound into their sandboxes read-only and reaches neither a layer nor a key.
    pub ca_bundle: Option<PathBuf>,
    /// The host's resolver configuration, which sandboxes on the host's network see.
    pub resolv_conf: Vec<u8>,
    /// How git is run for sources from repositories.
    pub git: GitSettings,
}

/// Runs builds. Threads share one; it is not bound to a process-wide state.
#[derive(Debug)]
pub struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) images: Images,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) repositories: Repositories,
    pub(crate) settings: EngineSettings,
    pub(crate) emulators: Emulators,
    pub(crate) layer_blobs: Arc<LayerBlobs>,
    pub(crate) streams: Streams,
    notes: Mutex<Vec<String>>,
    exported: Mutex<HashMap<Digest, Found>>,
}

impl Engine {
    /// An engine on `store`. The registry client is made by `client` when it is first needed: a fully cached
    /// build needs none.
    pub fn new(
        store: Arc<Store>,
        client: ClientSource,
        backend: Arc<dyn Backend>,
        settings: EngineSettings,
    ) -> Self {
        let images = Images::new(Arc::clone(&store), client);
        let repositories = Repositories::new(store.root().join("git"), settings.git.clone());
        Self {
            layer_blobs: Arc::new(LayerBlobs::new(Arc::clone(&store), images.memory().clone())),
            store,
            images,
            repositories,
            backend,
            settings,
            emulators: Emulators::default(),
            streams: Streams::default(),
            notes: Mutex::default(),
            exported: Mutex::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Images: local ones and those of registries.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Remembers an image or index that this engine made: it can be pushed and saved even when somebody removes it right
    /// away. What it is made of is in use here.
    pub(crate) fn note_exported(&self, made: Found) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        exported.insert(made.id(), made);
    }

    fn exported(&self, text: &str) -> Option<Found> {
        let id = text.parse::<Digest>().ok()?;
        let exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        exported.get(&id).cloned()
    }

    /// The image or index that is meant: one of the store, or one that was made here.
    pub(crate) fn find_image(&self, text: &str) -> Result<Option<Found>, kiln_cache::Error> {
        Ok(self.store.images().find(text)?.or_else(|| self.exported(text)))
    }

    /// The image with this id, of which from now on nothing is deleted; none when it is gone.
    pub(crate) fn hold_image(&self, id: &Digest) -> Result<Option<ImageRecord>, kiln_cache::Error> {
        if let Some(record) = self.store.images().by_id(id)?
            && self.store.images().hold(&record)?
        {
            return Ok(Some(record));
        }
        Ok(match self.exported(&id.to_string()) {
            Some(Found::Image(record)) => Some(*record),
            _ => None,
        })
    }

    /// Keeps something that is worth telling and stops nothing.
    pub(crate) fn note(&self, note: String) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(note);
    }

    /// What was noted since the last call.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
