//! Bringing blobs and documents to one repository.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::{ImageLayer, LayerId, Store};
use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::{BlobSource, Client};

use super::documents::{Blobs, Documents};
use super::stream::{LARGE, Stream};
use super::{Push, PushError};
use crate::cancel::Cancel;
use crate::following::Growth;
use crate::graph::SourceLayer;
use crate::image::{PullError, Stoppable};
use crate::lazy::LazyLayer;
use crate::task::Task;

/// As many layers are compressed and sent at a time. The client opens no more connections to a host either, and each
/// compression uses all processors.
const WORKERS: usize = 4;

/// Repositories that are tried as the source of a mount: each costs a request.
const MOUNTS: usize = 3;

/// One repository that images are pushed to.
pub(super) struct Target<'a> {
    push: &'a Push<'a>,
    client: &'a Client,
    /// Any name in the repository.
    name: &'a Reference,
    /// Repositories of the same registry by the blobs that images from there have.
    elsewhere: HashMap<Digest, BTreeSet<String>>,
    stop: Cancel,
    _link: crate::cancel::CancelGuard,
}

impl<'a> Target<'a> {
    pub(super) fn new(push: &'a Push<'a>, name: &'a Reference) -> Result<Self, PushError> {
        let stop = Cancel::new();
        let stopper = stop.clone();
        Ok(Self {
            client: push.client()?,
            elsewhere: elsewhere(&push.engine.store, name)?,
            push,
            name,
            stop,
            _link: push.cancel.on_raise(move || stopper.raise()),
        })
    }

    /// Brings all layers there; gives their blobs.
    pub(super) fn send_layers(&self) -> Result<Blobs, PushError> {
        let mut seen = HashSet::new();
        let layers: Vec<&ImageLayer> = self
            .push
            .records
            .iter()
            .flat_map(|(_, record)| &record.layers)
            .filter(|layer| seen.insert(&layer.layer))
            .collect();
        let next = AtomicUsize::new(0);
        let blobs: Mutex<Blobs> = Mutex::default();
        let sent: Mutex<HashSet<Digest>> = Mutex::default();
        let failure: Mutex<Option<PushError>> = Mutex::default();
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.is_raised() {
                    return;
                }
                match self.send_layer(layer, &sent) {
                    Ok(blob) => drop(lock(&blobs).insert(layer.layer.clone(), blob)),
                    Err(error) => {
                        lock(&failure).get_or_insert(error);
                        self.stop.raise();
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..WORKERS.min(layers.len()) {
                scope.spawn(work);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if self.stop.is_raised() => Err(PushError::Canceled),
            None => Ok(blobs.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn send_layer(&self, layer: &ImageLayer, sent: &Mutex<HashSet<Digest>>) -> Result<Descriptor, PushError> {
        let engine = self.push.engine;
        if let Some(lazy) = self.push.lazy(&layer.layer) {
            if lock(sent).insert(lazy.blob.digest) {
                self.send_lazy(lazy)?;
            }
            return Ok(lazy.blob.clone());
        }
        engine.layer_blobs.adopt(layer)?;
        let growth = Growth::new();
        let stream = self.stream(&layer.layer, &growth)?;
        let compression = self.push.request.compression;
        let blob = engine.growing_layer_blob(&layer.layer, compression, &growth, &self.stop)?;
        // Two layers may be the same bytes.
        if lock(sent).insert(blob.digest) {
            if self.is_there(&blob, &layer.diff_id, None)? {
                if let Some(stream) = stream {
                    stream.abandon();
                }
            } else if stream.is_none_or(|stream| !stream.commit(&blob, self.task())) {
                self.stopped()?;
                self.upload(&blob)?;
            } else {
                self.uploaded(&blob);
            }
            self.note_there(&blob, &layer.diff_id)?;
        }
        Ok(blob)
    }

    /// An upload of a layer's blob that goes on while the blob is made, where that is worth it.
    fn stream(&self, layer: &LayerId, growth: &Arc<Growth>) -> Result<Option<Stream>, PushError> {
        let engine = self.push.engine;
        let compression = self.push.request.compression;
        let way = (self.name.name(), layer.clone(), compression.form());
        if let Some(early) = engine.streams.take(&way) {
            return Ok(Some(early));
        }
        let size = engine.store.layers().get(layer)?.map_or(0, |layer| layer.size());
        if size < LARGE || engine.layer_blobs.known(layer, compression)?.is_some() {
            return Ok(None);
        }
        let client = engine.images.shared_client()?;
        Ok(engine.streams.begin(client, self.name, growth, &self.stop))
    }

    /// Brings the blob of a layer there that is not in the store.
    fn send_lazy(&self, lazy: &LazyLayer) -> Result<(), PushError> {
        if !self.is_there(&lazy.blob, &lazy.diff_id, Some(lazy))? {
            self.fetch(lazy)?;
            self.upload(&lazy.blob)?;
        }
        self.note_there(&lazy.blob, &lazy.diff_id)
    }

    /// Whether the registry has the blob, or takes it from another of its repositories. `lazy` says where it is when it
    /// is not in the store.
    fn is_there(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        lazy: Option<&LazyLayer>,
    ) -> Result<bool, PushError> {
        if self.client.blob_exists(self.name, blob)? {
            self.tell(blob, "already exists");
            return Ok(true);
        }
        self.mount(blob, diff_id, lazy)
    }

    fn note_there(&self, blob: &Descriptor, diff_id: &Digest) -> Result<(), PushError> {
        let variants = self.push.engine.store.variants();
        Ok(variants.add_repository(diff_id, &blob.digest, &self.name.name())?)
    }

    /// Uploads a blob of the store.
    fn upload(&self, blob: &Descriptor) -> Result<(), PushError> {
        let part = blob.digest.to_string();
        let source = StoreBlob {
            store: &self.push.engine.store,
            digest: blob.digest,
            stop: &self.stop,
        };
        let progress = |bytes| self.task().progress(&part, bytes, Some(blob.size), false);
        self.client.put_blob(self.name, blob, &source, &progress)?;
        self.uploaded(blob);
        Ok(())
    }

    fn uploaded(&self, blob: &Descriptor) {
        let part = blob.digest.to_string();
        self.task().progress(part, blob.size, Some(blob.size), true);
    }

    /// Brings a blob into the store that is in another registry only. It is not unpacked.
    fn fetch(&self, lazy: &LazyLayer) -> Result<(), PushError> {
        let failed = |source| PushError::Fetch {
            blob: lazy.blob.digest,
            source: Box::new(source),
        };
        let layer = SourceLayer {
            layer: LayerId::from_diff_id(&lazy.diff_id),
            diff_id: lazy.diff_id,
            blob: Some(lazy.blob.clone()),
        };
        let Some(from) = &lazy.from else {
            return Err(failed(PullError::LayerLost(lazy.diff_id)));
        };
        let images = &self.push.engine.images;
        images
            .fetch_blob(from, &layer, self.task(), &self.stop)
            .and_then(|()| images.keep_original(&layer, Some(from)))
            .map_err(failed)
    }

    /// Lets the registry take the blob from another of its repositories.
    fn mount(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        lazy: Option<&LazyLayer>,
    ) -> Result<bool, PushError> {
        let own = self.name.name();
        let mut sources: BTreeSet<String> = self.elsewhere.get(&blob.digest).cloned().unwrap_or_default();
        for variant in self.push.engine.store.variants().of(diff_id)? {
            if variant.blob.digest == blob.digest {
                sources.extend(variant.repositories);
            }
        }
        let prefix = format!("{}/", self.name.registry);
        // Where it is for certain goes first.
        let certain = lazy.and_then(|lazy| lazy.from.as_ref()).map(Reference::name);
        let others = sources.iter().filter(|source| Some(*source) != certain.as_ref());
        let usable = certain
            .iter()
            .chain(others)
            .filter(|source| **source != own)
            .filter_map(|source| source.strip_prefix(&prefix));
        for repository in usable.take(MOUNTS) {
            let from = Reference {
                registry: self.name.registry.clone(),
                repository: repository.to_owned(),
                tag: None,
                digest: None,
            };
            // Whatever a registry has against it, an upload may still do.
            if self
                .client
                .mount_blob(self.name, &blob.digest, &from)
                .unwrap_or(false)
            {
                self.tell(blob, &format!("mounted from {repository}"));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Brings configurations there, and the manifests that an index refers to.
    pub(super) fn send_documents(&self, documents: &Documents) -> Result<(), PushError> {
        for config in &documents.configs {
            self.stopped()?;
            if !self.client.blob_exists(self.name, &config.descriptor)? {
                self.client
                    .put_blob(self.name, &config.descriptor, &config.bytes, &|_| {})?;
            }
        }
        for manifest in &documents.manifests {
            self.stopped()?;
            let name = Reference {
                tag: None,
                digest: Some(manifest.descriptor.digest),
                ..self.name.clone()
            };
            self.client
                .put_manifest(&name, &manifest.descriptor.media_type, &manifest.bytes)?;
        }
        Ok(())
    }

    /// Gives the image its name there.
    pub(super) fn send_root(&self, name: &Reference, documents: &Documents) -> Result<(), PushError> {
        self.stopped()?;
        self.client
            .put_manifest(name, &documents.root.media_type, &documents.root_bytes)?;
        let part = format!("manifest {} for {}", documents.root.digest, name.familiar());
        self.task()
            .progress(part, documents.root.size, Some(documents.root.size), true);
        Ok(())
    }

    fn stopped(&self) -> Result<(), PushError> {
        if self.stop.is_raised() {
            Err(PushError::Canceled)
        } else {
            Ok(())
        }
    }

    fn task(&self) -> &Task {
        self.push.task
    }

    fn tell(&self, blob: &Descriptor, what: &str) {
        self.task()
            .progress(format!("{} {what}", blob.digest), 0, None, true);
    }
}

/// Where else in the registry of `name` the blobs of the store's images are, as far as the images tell.
fn elsewhere(
    store: &Store,
    name: &Reference,
) -> Result<HashMap<Digest, BTreeSet<String>>, kiln_cache::Error> {
    let mut found: HashMap<Digest, BTreeSet<String>> = HashMap::new();
    for record in store.images().list()? {
        let repositories: BTreeSet<String> = record
            .repo_digests
            .iter()
            .filter_map(|known| Reference::parse(known).ok())
            .filter(|known| known.registry == name.registry)
            .map(|known| known.name())
            .collect();
        if repositories.is_empty() {
            continue;
        }
        for blob in record.layers.iter().filter_map(|layer| layer.blob.as_ref()) {
            found
                .entry(blob.digest)
                .or_default()
                .extend(repositories.iter().cloned());
        }
    }
    Ok(found)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blob of the store on its way out, until the push is stopped.
struct StoreBlob<'a> {
    store: &'a Store,
    digest: Digest,
    stop: &'a Cancel,
}

impl BlobSource for StoreBlob<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let file = self.store.blobs().get(&self.digest).map_err(io::Error::other)?;
        let mut file = file.ok_or_else(|| io::Error::other(format!("blob {} is lost", self.digest)))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        Ok(Box::new(Stoppable {
            file,
            stop: self.stop,
        }))
    }
}
