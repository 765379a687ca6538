//! Fetching: blobs of layers in parallel, unpacked from the bottom up as they come.

use std::sync::{Mutex, PoisonError};

use kiln_cache::variants::ORIGINAL;
use kiln_cache::{BlobWriter, LayerId, Variant};
use kiln_image::layer::{self, UnpackOptions};
use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::BlobSink;
use kiln_tree::Root;

use super::{Images, PullError};
use crate::cancel::Cancel;
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

    /// Brings the missing layers into the store: blobs in parallel, unpacking from the bottom up as they come. The
    /// first failure stops the rest.
    pub fn fetch_layers(&self, source: &ImageSource, task: &Task, cancel: &Cancel) -> Result<(), PullError> {
        let layout = self.layouts().get(&source.digest).cloned();
        let reference: Reference = source
            .reference
            .parse()
            .map_err(|_| PullError::NotLocal(source.reference.clone()))?;
        let fetch = |layer: &SourceLayer, stop: &Cancel| match &layout {
            Some(path) => self.copy_blob(path, layer, task, stop),
            None => self.fetch_blob(&reference, layer, task, stop),
        };
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
            if let Err(error) = result.map_err(|error| error.of_image(&source.reference)) {
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
                .map(|layer| scope.spawn(|| note(fetch(layer, &stop))))
                .collect();
            for (layer, download) in missing.iter().zip(downloads) {
                if let Err(panic) = download.join() {
                    stop.raise();
                    std::panic::resume_unwind(panic);
                }
                if !stop.is_raised() {
                    note(self.unpack(layer, None, task, &stop));
                }
            }
        });
        if cancel.is_raised() {
            return Err(PullError::Canceled);
        }
        if let Some(error) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
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

    pub(crate) fn fetch_blob(
        &self,
        reference: &Reference,
        layer: &SourceLayer,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let part = blob.digest.to_string();
        let progress = |bytes| task.progress(&part, bytes, Some(blob.size), false);
        if self.download(reference, blob, &progress, cancel)? {
            task.progress(&part, blob.size, Some(blob.size), true);
        }
        Ok(())
    }

    /// Brings a blob into the store; false when it is there already.
    fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
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
        let mut sink = StoreSink { writer, cancel };
        if let Err(error) = self.client()?.fetch_blob(reference, blob, &mut sink, progress) {
            // Where nothing came that a later download could go on with, nothing stays.
            if sink.writer.offset() == 0 {
                sink.writer.discard()?;
            }
            return Err(if cancel.is_raised() {
                PullError::Canceled
            } else {
                error.into()
            });
        }
        sink.writer.commit_hashed(&blob.digest)?;
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
            match self.download(&reference, &original.blob, &|_| {}, cancel) {
                Ok(_) => return Ok(true),
                Err(PullError::Canceled) => return Err(PullError::Canceled),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(false), Err)
    }

    /// Makes a layer of its blob, which is in the store: one whose tar has the DiffID and, if the layer's id is that
    /// of its content, whose content has that hash. `created_ms` is when it was made, if that was elsewhere.
    pub(crate) fn unpack(
        &self,
        layer: &SourceLayer,
        created_ms: Option<u64>,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let file = self
            .store
            .blobs()
            .get(&blob.digest)?
            .ok_or_else(|| PullError::LayerLost(layer.diff_id))?;
        self.unpack_file(layer, (&blob.digest, file), created_ms, task, stop)
    }

    /// [`Images::unpack`] of a blob that lies elsewhere.
    pub(crate) fn unpack_file(
        &self,
        layer: &SourceLayer,
        (blob, file): (&Digest, std::fs::File),
        created_ms: Option<u64>,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), PullError> {
        let failed = |source| PullError::Unpack { blob: *blob, source };
        let draft = self.store.layers().draft()?;
        let root = Root::open(&draft.diff_path())?;
        let part = format!("unpacking {blob}");
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
                blob: *blob,
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
        if layer.layer.diff_id().is_none() {
            let found = LayerId::from_content(&unpacked.listing.content_hash());
            if found != layer.layer {
                return Err(PullError::Content {
                    blob: *blob,
                    wanted: layer.layer.clone(),
                    found,
                });
            }
        }
        let layers = self.store.layers();
        let committed = match created_ms {
            Some(created_ms) => layers.commit_made_at(draft, &layer.layer, unpacked.listing, created_ms)?,
            None => layers.commit(draft, &layer.layer, unpacked.listing)?,
        };
        if committed.diff_id() != Some(layer.diff_id) {
            committed.set_diff_id(&layer.diff_id)?;
        }
        task.progress(&part, unpacked.size, Some(unpacked.size), true);
        Ok(())
    }
}

/// A file that can no longer be read once the build is cancelled.
pub(crate) struct Stoppable<'a, R> {
    pub(crate) file: R,
    pub(crate) stop: &'a Cancel,
}

impl<R: std::io::Read> std::io::Read for Stoppable<'_, R> {
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
