//! Unpacking: of a blob's bytes a draft of a layer, of the draft a layer.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cache::{LayerDraft, LayerId};
use kiln_image::Digest;
use kiln_image::layer::{self, UnpackOptions, Unpacked};
use kiln_tree::Root;

use super::fetch::canceled;
use super::{Images, PullError};
use crate::cancel::Cancel;
use crate::graph::SourceLayer;
use crate::task::Task;

/// A layer that is not in the store yet: unpacked, and what its DiffID or content says. Dropped, it is deleted.
#[derive(Debug)]
pub(super) struct Ready {
    draft: LayerDraft,
    unpacked: Unpacked,
    /// What its progress is told as.
    part: String,
}

impl Images {
    /// Makes a layer of its blob, which is in the store: one whose tar has the DiffID and, if the layer's id is that
    /// of its content, whose content has that hash. `created_ms` is when it was made, if that was elsewhere.
    pub(super) fn unpack(
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
        let ready = self.unpack_draft(layer, (blob, file), None, task, stop)?;
        self.commit(layer, ready, created_ms, task)
    }

    /// Unpacks the blob that `reader` gives, and checks what came out. The store has no layer of it yet. `refused` is
    /// called as soon as the layer is beyond the limits.
    pub(super) fn unpack_draft(
        &self,
        layer: &SourceLayer,
        (blob, reader): (&Digest, impl Read + Send),
        refused: Option<&(dyn Fn() + Sync)>,
        task: &Task,
        stop: &Cancel,
    ) -> Result<Ready, PullError> {
        let failed = |source| PullError::Unpack { blob: *blob, source };
        let draft = self.store.layers().draft()?;
        let root = Root::open(&draft.diff_path())?;
        let part = format!("unpacking {blob}");
        let told = AtomicU64::new(0);
        let progress = |bytes: u64| {
            let before = told.swap(bytes, Ordering::Relaxed);
            self.store.wrote(bytes.saturating_sub(before));
            task.progress(&part, bytes, None, false);
        };
        let options = UnpackOptions {
            userxattr: self.store.userxattr(),
            lower: None,
            progress: Some(&progress),
            refused,
        };
        let windows = self.memory.until(stop);
        let reader = layer::decompress_within(Stoppable { file: reader, stop }, &windows)
            .map_err(|source| failed(layer::LayerError::Read(source)))?;
        let unpacked = layer::unpack(reader, &root, &options).map_err(failed)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(PullError::DiffId {
                blob: *blob,
                wanted: layer.diff_id,
                found: unpacked.diff_id,
            });
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
        Ok(Ready {
            draft,
            unpacked,
            part,
        })
    }

    /// Makes the layer one of the store.
    pub(super) fn commit(
        &self,
        layer: &SourceLayer,
        ready: Ready,
        created_ms: Option<u64>,
        task: &Task,
    ) -> Result<(), PullError> {
        let Ready {
            draft,
            unpacked,
            part,
        } = ready;
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

/// A file that can no longer be read or written once the build is cancelled.
pub(crate) struct Stoppable<'a, R> {
    pub(crate) file: R,
    pub(crate) stop: &'a Cancel,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.is_raised() {
            return Err(canceled());
        }
        self.file.read(buffer)
    }
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.stop.is_raised() {
            return Err(canceled());
        }
        self.file.write(bytes)
    }

    /// A compression that waits for its threads asks here.
    fn flush(&mut self) -> std::io::Result<()> {
        if self.stop.is_raised() {
            return Err(canceled());
        }
        self.file.flush()
    }
}
