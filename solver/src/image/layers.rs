//! Bringing layers into the store: each is unpacked while its blob comes, and counts once the blob is verified.
//!
//! The download decides: when it fails, its error is told and whatever was unpacked meanwhile is dropped. Only when it
//! succeeded does the unpacking have a say, for only then were its bytes those that the image names.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use kiln_image::{Descriptor, Reference};

use super::unpack::Ready;
use super::{Images, PullError};
use crate::cancel::Cancel;
use crate::following::Growth;
use crate::graph::SourceLayer;
use crate::task::Task;

/// So many layers come at the same time, of all images: as many as there are connections to one host. Each that is
/// unpacked takes 4 MiB for what waits between its threads, and 8 MiB for its decoder, or of what all share ([`super::DecoderMemory`]).
pub(super) const AT_A_TIME: usize = 4;

/// Where the blobs of layers are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// In a repository.
    Registry(&'a Reference),
    /// In an OCI layout on disk.
    Layout(&'a Path),
}

/// A layer on its way, and what stops it.
struct Job<'a> {
    layer: &'a SourceLayer,
    stop: Cancel,
}

impl Images {
    /// Brings layers, the lowest first.
    ///
    /// A download that fails stops all others. A layer that is bad stops those above it: so of several bad layers
    /// always the lowest is told.
    pub(super) fn bring_layers(
        &self,
        origin: Origin<'_>,
        layers: &[&SourceLayer],
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        let stops: Vec<Cancel> = layers.iter().map(|_| Cancel::new()).collect();
        let all = stops.clone();
        let _link = cancel.on_raise(move || all.iter().for_each(Cancel::raise));
        let jobs: Vec<Job<'_>> = layers
            .iter()
            .zip(stops)
            .map(|(layer, stop)| Job { layer, stop })
            .collect();
        let (next, told) = (AtomicUsize::new(0), Mutex::default());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(at) else { return };
                if let Err(error) = self.bring_layer(origin, job.layer, None, task, &job.stop) {
                    note(&told, &jobs, at, error);
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_A_TIME.min(jobs.len()))
                .map(|_| scope.spawn(work))
                .collect();
            for worker in workers {
                if let Err(panic) = worker.join() {
                    for job in &jobs {
                        job.stop.raise();
                    }
                    std::panic::resume_unwind(panic);
                }
            }
        });
        if cancel.is_raised() {
            return Err(PullError::Canceled);
        }
        match told.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Brings one layer. `created_ms` is when it was made, if that was elsewhere.
    pub(crate) fn bring_layer(
        &self,
        origin: Origin<'_>,
        layer: &SourceLayer,
        created_ms: Option<u64>,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let _slot = self.slots.take(stop).ok_or(PullError::Canceled)?;
        // Another image may have brought it meanwhile.
        if self.store.layers().get(&layer.layer)?.is_some() {
            return Ok(());
        }
        let growth = Growth::new();
        // Raised, too, when the download has failed: the unpacking may be waiting for memory that others hold.
        let useless = Cancel::new();
        let (voided, is_useless) = (Arc::clone(&growth), useless.clone());
        let _link = stop.on_raise(move || {
            voided.void();
            is_useless.raise();
        });
        let (fetched, early) = thread::scope(|scope| {
            let early = scope.spawn(|| self.unpack_growing(layer, blob, &growth, task, &useless));
            let fetched = self.fetch(origin, layer, &growth, task, stop);
            if fetched.is_err() {
                useless.raise();
            }
            (fetched, early.join())
        });
        let early = early.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let done = match (fetched, early) {
            (Err(PullError::Canceled), Some(Err(refusal))) if growth.is_refused() => Err(refusal),
            // What is unpacked so far may have taken the room. It is gone by now.
            (Err(error), Some(early)) if error.is_disk_full() => {
                drop(early);
                self.fetch(origin, layer, &Growth::new(), task, stop)
                    .and_then(|()| self.unpack(layer, created_ms, task, stop))
            }
            (Err(error), _) => Err(error),
            (Ok(()), Some(ready)) if growth.is_whole() => {
                ready.and_then(|ready| self.commit(layer, ready, created_ms, task))
            }
            // The blob was there before, or its download began anew in between.
            (Ok(()), early) => {
                drop(early);
                self.unpack(layer, created_ms, task, stop)
            }
        };
        done.map_err(|error| {
            if stop.is_raised() {
                PullError::Canceled
            } else {
                error
            }
        })
    }

    fn fetch(
        &self,
        origin: Origin<'_>,
        layer: &SourceLayer,
        growth: &Arc<Growth>,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), PullError> {
        let feed = growth.feed();
        match origin {
            Origin::Registry(reference) => self.fetch_followed(reference, layer, &feed, task, stop),
            Origin::Layout(path) => self.copy_followed(path, layer, &feed, task, stop),
        }
    }

    /// Unpacks a blob as it comes. `None` when there is nothing to follow.
    fn unpack_growing(
        &self,
        layer: &SourceLayer,
        blob: &Descriptor,
        growth: &Arc<Growth>,
        task: &Task,
        stop: &Cancel,
    ) -> Option<Result<Ready, PullError>> {
        let follower = growth.follow()?;
        // Beyond the limits of any layer, whatever else comes: no reason to go on, be the bytes right or wrong.
        let refused = || growth.refuse();
        Some(self.unpack_draft(layer, (&blob.digest, follower), Some(&refused), task, stop))
    }
}

/// The failure to tell, and whose it is.
type Told = Option<(usize, PullError)>;

fn note(told: &Mutex<Told>, jobs: &[Job<'_>], at: usize, error: PullError) {
    // What canceled it has stopped the others, too.
    let is_canceled = matches!(error, PullError::Canceled);
    let stopped = if is_canceled || error.is_of_content() {
        at
    } else {
        0
    };
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = told.as_ref().is_none_or(|(above, known)| match known {
        // It was stopped, by this or another failure.
        _ if is_canceled => false,
        PullError::Canceled => true,
        known => known.is_of_content() && at < *above,
    });
    if is_first {
        *told = Some((at, error));
    }
    drop(told);
    for job in jobs.get(stopped..).unwrap_or_default() {
        job.stop.raise();
    }
}

#[cfg(test)]
mod tests;
