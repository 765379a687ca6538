//! DiffIDs computed beside the build.
//!
//! A layer's DiffID is the sha256 of its tar, which nothing needs before the image gets its name. So each new
//! layer is hashed by a thread of its own while the next steps already run, and the exporter waits at the end.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use kiln_cache::{Layer, LayerId};
use kiln_image::Digest;
use kiln_tree::Root;

/// Why a DiffID cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to compute the digest of layer {layer}: {message}")]
pub struct DiffIdError {
    /// The layer.
    pub layer: LayerId,
    /// The cause; text, because several steps may wait for the same result.
    pub message: String,
}

/// The DiffIDs of one build's layers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiffIds {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// `None` while a thread works on it.
    known: Mutex<HashMap<LayerId, Option<Result<Digest, DiffIdError>>>>,
    changed: Condvar,
}

impl DiffIds {
    /// Starts on `layer` unless its DiffID is known or under way.
    pub(crate) fn begin(&self, layer: &Arc<Layer>) {
        if layer.id().diff_id().is_some() || layer.diff_id().is_some() {
            return;
        }
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(layer.id()) {
            return;
        }
        known.insert(layer.id().clone(), None);
        drop(known);
        let (shared, worker_layer) = (Arc::clone(&self.shared), Arc::clone(layer));
        let worker = std::thread::Builder::new()
            .name("diff-id".to_owned())
            .spawn(move || {
                let result = compute(&worker_layer);
                shared.finish(worker_layer.id(), result);
            });
        if worker.is_err() {
            // No thread to be had: whoever waits computes it.
            self.shared
                .known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(layer.id());
        }
    }

    /// The DiffID of `layer`; waits for it or computes it.
    pub(crate) fn get(&self, layer: &Arc<Layer>) -> Result<Digest, DiffIdError> {
        if let Some(digest) = layer.id().diff_id() {
            return Ok(digest);
        }
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match known.get(layer.id()) {
                Some(Some(result)) => return result.clone(),
                Some(None) => {
                    known = self
                        .shared
                        .changed
                        .wait(known)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                None => break,
            }
        }
        drop(known);
        if let Some(digest) = layer.diff_id() {
            return Ok(digest);
        }
        let result = compute(layer);
        self.shared.finish(layer.id(), result.clone());
        result
    }
}

impl Shared {
    fn finish(&self, layer: &LayerId, result: Result<Digest, DiffIdError>) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(layer.clone(), Some(result));
        self.changed.notify_all();
    }
}

fn compute(layer: &Layer) -> Result<Digest, DiffIdError> {
    let failed = |error: &dyn std::error::Error| DiffIdError {
        layer: layer.id().clone(),
        message: chain(error),
    };
    let listing = layer.listing().map_err(|error| failed(&error))?;
    let root = Root::open(&layer.diff_path()).map_err(|error| failed(&error))?;
    let digest = kiln_image::layer::diff_id(&listing, &root).map_err(|error| failed(&error))?;
    layer.set_diff_id(&digest).map_err(|error| failed(&error))?;
    Ok(digest)
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}
