//! Layers that stay where they are: their blobs are all that a push needs.

use kiln_cache::{LayerId, Snapshot};

use super::{FETCHES, Imports, lock};
use crate::at_once;
use crate::cancel::Cancel;
use crate::compressed::LayerCompression;
use crate::error::{StepFailure, chain};
use crate::lazy::LazyLayer;
use crate::remote_cache::CacheLocation;
use crate::task::Task;

impl Imports<'_> {
    /// What is known of a layer that is not in the store.
    pub(crate) fn lazy(&self, id: &LayerId) -> Option<LazyLayer> {
        if let Some(image) = self.images.get(id) {
            let layer = image.layers.iter().find(|layer| layer.layer == *id)?;
            let is_remote = !self.engine.images.is_in_layout(&image.digest);
            return Some(LazyLayer {
                diff_id: layer.diff_id,
                blob: layer.blob.clone()?,
                created_ms: None,
                size: 0,
                from: image.reference.parse().ok().filter(|_| is_remote),
            });
        }
        let (_, imported, layer) = self.promised(id)?;
        Some(LazyLayer {
            diff_id: layer.diff_id,
            blob: layer.blob.clone(),
            created_ms: Some(layer.created_ms),
            size: layer.size,
            from: match &imported.location {
                CacheLocation::Registry(reference) => Some(reference.clone()),
                CacheLocation::Folder { .. } => None,
            },
        })
    }

    /// Makes sure that each layer of a snapshot is in the store, or has a blob in a registry that serves as `form`.
    /// Fails as [`Imports::ensure`] does.
    pub(crate) fn ensure_blobs(
        &self,
        snapshot: &Snapshot,
        form: LayerCompression,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), StepFailure> {
        let mut missing: Vec<&LayerId> = Vec::new();
        for id in &snapshot.layers {
            if !missing.contains(&id) && self.engine.store.layers().get(id)?.is_none() {
                missing.push(id);
            }
        }
        let mut unfit = Snapshot::default();
        for some in missing.chunks(FETCHES) {
            let fit = at_once(some, |id| self.has_blob(id, form, stop));
            if stop.is_raised() {
                return Err(StepFailure::Canceled);
            }
            let some = some.iter().zip(fit).filter(|(_, fit)| !fit);
            unfit.layers.extend(some.map(|(id, _)| (*id).clone()));
        }
        self.ensure(&unfit, task, stop)
    }

    /// Whether a layer's blob can go from where it is to a registry. A cache that promised it and does not have it is
    /// passed over from then on.
    fn has_blob(&self, id: &LayerId, form: LayerCompression, stop: &Cancel) -> bool {
        loop {
            let Some(lazy) = self.lazy(id) else { return false };
            let Some(from) = lazy.registry(form) else {
                return false;
            };
            let Some((at, ..)) = self.promised(id).filter(|_| !self.images.contains_key(id)) else {
                // Of an image that was resolved a moment ago.
                return true;
            };
            let asked = self.engine.images.client().map_err(|error| chain(&error));
            let asked =
                asked.and_then(|client| client.has_blob(from, &lazy.blob).map_err(|error| chain(&error)));
            let reason = match asked {
                Ok(true) => return true,
                Ok(false) => "it is not there".to_owned(),
                Err(reason) => reason,
            };
            if stop.is_raised() {
                return false;
            }
            let message = format!(
                "layer {id} of the cache at {} cannot be used: {reason}",
                from.familiar()
            );
            self.reporter.warn(message, None);
            lock(&self.broken).insert((at, id.clone()));
        }
    }
}
