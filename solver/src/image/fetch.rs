//! Fetching: which layers of an image are missing, and their blobs from registries.

use std::sync::PoisonError;

use kiln_cache::variants::ORIGINAL;
use kiln_cache::{BlobWriter, Variant};
use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::BlobSink;

use super::{Images, Origin, PullError};
use crate::cancel::Cancel;
pub(super) use crate::cancel::canceled;
use crate::following::{Feed, Growth};
use crate::graph::{ImageSource, SourceLayer};
use crate::task::Task;

impl Images {
    /// Whether all layers are unpacked in the store. From then on they stay, and so do the blobs that they came as:
    /// what is built on them cannot be pushed without.
    pub fn is_unpacked(&self, source: &ImageSource) -> Result<bool, kiln_cache::Error> {
        for layer in &source.layers {
            if let Some(blob) = &layer.blob {
                self.store.blobs().hold(&blob.digest)?;
            }
            if self.store.layers().get(&layer.layer)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings the missing layers into the store: some at a time, each unpacked while its blob comes. What fails stops
    /// the rest.
    pub fn fetch_layers(&self, source: &ImageSource, task: &Task, cancel: &Cancel) -> Result<(), PullError> {
        let layout = self.layouts().get(&source.digest).cloned();
        let reference: Reference = source
            .reference
            .parse()
            .map_err(|_| PullError::NotLocal(source.reference.clone()))?;
        let origin = match &layout {
            Some(path) => Origin::Layout(path),
            None => Origin::Registry(&reference),
        };
        let mut missing: Vec<&SourceLayer> = Vec::new();
        for layer in &source.layers {
            let twice = missing.iter().any(|other| other.layer == layer.layer);
            if !twice && self.store.layers().get(&layer.layer)?.is_none() {
                missing.push(layer);
            }
        }
        self.bring_layers(origin, &missing, task, cancel)
            .map_err(|error| error.of_image(&source.reference))?;
        for layer in &missing {
            self.keep_original(layer, layout.is_none().then_some(&reference))?;
        }
        self.settle(source)
    }

    /// Remembers which blob the layer came as: it goes out as the same one.
    pub(crate) fn keep_original(
        &self,
        layer: &SourceLayer,
        from: Option<&Reference>,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        Ok(self.store.variants().put(&Variant {
            diff_id: layer.diff_id,
            form: ORIGINAL.to_owned(),
            blob: blob.clone(),
            repositories: from.map(Reference::name).into_iter().collect(),
        })?)
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

    /// Brings the blob of a layer into the store.
    pub(crate) fn fetch_blob(
        &self,
        reference: &Reference,
        layer: &SourceLayer,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        self.fetch_followed(reference, layer, &Growth::new().feed(), task, cancel)
    }

    /// [`Images::fetch_blob`], for who reads the blob as it comes.
    pub(super) fn fetch_followed(
        &self,
        reference: &Reference,
        layer: &SourceLayer,
        feed: &Feed,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let part = blob.digest.to_string();
        let progress = |bytes| task.progress(&part, bytes, Some(blob.size), false);
        if self.download(reference, blob, feed, &progress, cancel)? {
            task.progress(&part, blob.size, Some(blob.size), true);
        }
        Ok(())
    }

    /// Brings a blob into the store; false when it is there already.
    fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        feed: &Feed,
        progress: &dyn Fn(u64),
        cancel: &Cancel,
    ) -> Result<bool, PullError> {
        if cancel.is_raised() {
            return Err(PullError::Canceled);
        }
        let Some(writer) = self
            .store
            .blobs()
            .unhashed_writer(&blob.digest, Some(blob.size))?
        else {
            return Ok(false);
        };
        feed.begin(&writer)?;
        let mut sink = StoreSink { writer, feed, cancel };
        let fetched = self.client()?.fetch_blob(reference, blob, &mut sink, progress);
        let (writer, refused) = (sink.writer, feed.is_refused());
        if let Err(error) = fetched {
            // Where nothing came that a later download could go on with, nothing stays.
            if writer.offset() == 0 || refused {
                writer.discard()?;
            }
            return Err(if cancel.is_raised() || refused {
                PullError::Canceled
            } else {
                error.into()
            });
        }
        writer.commit_hashed(&blob.digest)?;
        feed.whole();
        Ok(true)
    }

    /// Brings back the blob that a layer came as, from a repository that had it. False when none is known.
    pub(crate) fn fetch_original(&self, diff_id: &Digest, cancel: &Cancel) -> Result<bool, PullError> {
        let Some(original) = self.store.variants().get(diff_id, ORIGINAL)? else {
            return Ok(false);
        };
        let mut failure = None;
        for repository in &original.repositories {
            let Ok(reference) = repository.parse::<Reference>() else {
                continue;
            };
            match self.download(&reference, &original.blob, &Growth::new().feed(), &|_| {}, cancel) {
                Ok(_) => return Ok(true),
                Err(PullError::Canceled) => return Err(PullError::Canceled),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(false), Err)
    }
}

/// The store's side of a download: stops when the build is cancelled, or the blob of no use.
struct StoreSink<'a> {
    writer: BlobWriter,
    feed: &'a Feed,
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
        if self.cancel.is_raised() || self.feed.is_refused() {
            return Err(canceled());
        }
        std::io::Write::write_all(&mut self.writer, bytes)?;
        self.feed.grown(self.writer.offset());
        Ok(())
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.feed.restart();
        self.writer.restart().map_err(std::io::Error::other)
    }
}
