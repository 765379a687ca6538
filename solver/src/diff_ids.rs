//! DiffIDs computed beside the build.
//!
//! A layer's DiffID is the sha256 of its tar, which nothing needs before the image gets its name. So each new
//! layer is hashed by a thread of its own while the next steps already run, and the exporter waits at the end.
//! A build that ends without an image stops these threads and waits for them: nothing of it goes on.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kiln_cache::{Layer, LayerId};
use kiln_image::{Digest, Sha256};
use kiln_tree::Root;

use crate::cancel::{Cancel, CancelGuard};
use crate::compressed::{LayerBlobs, LayerCompression};
use crate::error::chain;
use crate::following::Growth;

/// Why a DiffID cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to compute the digest of layer {layer}: {message}")]
pub struct DiffIdError {
    /// The layer.
    pub layer: LayerId,
    /// The cause; text, because several steps may wait for the same result.
    pub message: String,
}

/// The DiffIDs of one build's layers.
#[derive(Debug)]
pub(crate) struct DiffIds {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Compresses each new layer, too: whoever pushes the image will want that.
    compress: Option<(Arc<LayerBlobs>, LayerCompression)>,
    /// Raised when nobody wants the results any more.
    stop: Cancel,
    _link: CancelGuard,
}

#[derive(Debug, Default)]
struct Shared {
    /// `None` while a thread works on it.
    known: Mutex<HashMap<LayerId, Option<Result<Digest, DiffIdError>>>>,
    changed: Condvar,
    /// The blobs of layers that are being compressed, or soon will be.
    growing: Mutex<HashMap<LayerId, Arc<Growth>>>,
}

impl DiffIds {
    /// No DiffIDs yet; the threads stop when `cancel` is raised.
    pub(crate) fn new(cancel: &Cancel, compress: Option<(Arc<LayerBlobs>, LayerCompression)>) -> Self {
        let stop = Cancel::new();
        let stopper = stop.clone();
        let link = cancel.on_raise(move || stopper.raise());
        Self {
            shared: Arc::default(),
            threads: Mutex::default(),
            compress,
            stop,
            _link: link,
        }
    }

    /// Starts on `layer` unless its DiffID is known or under way.
    pub(crate) fn begin(&self, layer: &Arc<Layer>) {
        if layer.id().diff_id().is_some() || layer.diff_id().is_some() {
            return;
        }
        let mut known = self.shared.lock();
        if known.contains_key(layer.id()) {
            return;
        }
        known.insert(layer.id().clone(), None);
        drop(known);
        let growth = Growth::new();
        if self.compress.is_some() {
            let mut growing = self.shared.growing();
            growing.insert(layer.id().clone(), Arc::clone(&growth));
        }
        let job = Job {
            shared: Arc::clone(&self.shared),
            layer: Arc::clone(layer),
            compress: self.compress.clone(),
            growth,
            stop: self.stop.clone(),
        };
        match std::thread::Builder::new()
            .name("diff-id".to_owned())
            .spawn(move || job.run())
        {
            Ok(thread) => self
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread),
            // No thread to be had: whoever wants it computes it. (The job's end has told of a failure.)
            Err(_) => drop(self.shared.lock().remove(layer.id())),
        }
    }

    /// The blob of a layer that is being compressed just now.
    pub(crate) fn growing(&self, layer: &LayerId) -> Option<Arc<Growth>> {
        self.shared.growing().get(layer).cloned()
    }

    /// The DiffID of `layer`; waits for it or computes it.
    pub(crate) fn get(&self, layer: &Arc<Layer>) -> Result<Digest, DiffIdError> {
        if let Some(digest) = layer.id().diff_id() {
            return Ok(digest);
        }
        let mut known = self.shared.lock();
        loop {
            match known.get(layer.id()) {
                Some(Some(result)) => return result.clone(),
                Some(None) => {
                    known = self
                        .shared
                        .changed
                        .wait(known)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        drop(known);
        if let Some(digest) = layer.diff_id() {
            return Ok(digest);
        }
        let result = compute(layer, &self.stop);
        self.shared.finish(layer.id(), result.clone());
        result
    }
}

impl Drop for DiffIds {
    fn drop(&mut self) {
        self.stop.raise();
        for thread in self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            // A panic has been reported on its way; the job's end has told who waits.
            let _ = thread.join();
        }
    }
}

/// One layer's computation on a thread of its own. However it ends, those who wait are told.
struct Job {
    shared: Arc<Shared>,
    layer: Arc<Layer>,
    compress: Option<(Arc<LayerBlobs>, LayerCompression)>,
    growth: Arc<Growth>,
    stop: Cancel,
}

impl Job {
    fn run(self) {
        if let Some((blobs, form)) = &self.compress
            && blobs
                .get(self.layer.id(), *form, &self.growth, &self.stop)
                .is_ok()
            && let Some(diff_id) = self.layer.diff_id()
        {
            self.shared.finish(self.layer.id(), Ok(diff_id));
            return;
        }
        // Whoever needs the blob hears why there is none.
        let result = compute(&self.layer, &self.stop);
        self.shared.finish(self.layer.id(), result);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Also where there was nothing to compress: somebody may wait for the beginning.
        self.growth.void();
        self.shared.growing().remove(self.layer.id());
        let mut known = self.shared.lock();
        if let Some(result @ None) = known.get_mut(self.layer.id()) {
            let message = "the thread that computed it panicked".to_owned();
            *result = Some(Err(DiffIdError {
                layer: self.layer.id().clone(),
                message,
            }));
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<LayerId, Option<Result<Digest, DiffIdError>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn growing(&self) -> MutexGuard<'_, HashMap<LayerId, Arc<Growth>>> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, layer: &LayerId, result: Result<Digest, DiffIdError>) {
        self.lock().insert(layer.clone(), Some(result));
        self.changed.notify_all();
    }
}

/// Hashes what is written to it, until the build is stopped.
struct Hashing<'a> {
    hasher: Sha256,
    stop: &'a Cancel,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compute(layer: &Layer, stop: &Cancel) -> Result<Digest, DiffIdError> {
    let failed = |error: &dyn std::error::Error| DiffIdError {
        layer: layer.id().clone(),
        message: chain(error),
    };
    let listing = layer.listing().map_err(|error| failed(&error))?;
    let root = Root::open(&layer.diff_path()).map_err(|error| failed(&error))?;
    let hashing = Hashing {
        hasher: Sha256::new(),
        stop,
    };
    let tar = kiln_image::layer::pack_beside(&listing, &root, hashing).map_err(|error| failed(&error))?;
    let digest = tar.hasher.finish();
    layer.set_diff_id(&digest).map_err(|error| failed(&error))?;
    Ok(digest)
}
