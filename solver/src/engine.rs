//! The engine: the store, the registries and the sandbox that builds share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::Store;
use kiln_executor::Backend;
use kiln_remote::git::{GitSettings, Repositories};

use crate::compressed::LayerBlobs;
use crate::image::{ClientSource, Images};
use crate::platform::Emulators;

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
    notes: Mutex<Vec<String>>,
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
            layer_blobs: Arc::new(LayerBlobs::new(Arc::clone(&store))),
            store,
            images,
            repositories,
            backend,
            settings,
            emulators: Emulators::default(),
            notes: Mutex::default(),
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
