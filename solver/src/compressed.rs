//! Layers as blobs: compressed once, found again ever after.
//!
//! A layer of the store is a folder; a registry wants its tar, compressed. What was made of it stays in the store
//! as a [`Variant`] of its DiffID, so a second push packs nothing. A layer that was pulled goes out as the blob that
//! it came as, unless the request forces another form: its digest is one that registries know already.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::variants::ORIGINAL;
use kiln_cache::{ImageLayer, Layer, LayerId, Store, Variant};
use kiln_image::compress::Compression;
use kiln_image::layer::Windows;
use kiln_image::{Descriptor, Digest, layer, media_type};
use kiln_tree::Root;

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::following::{Feed, Growth};
use crate::image::{DecoderMemory, PullError};

/// The form that a layer's blob is wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LayerCompression {
    /// How it is compressed.
    pub compression: Compression,
    /// The level; the compression's usual one when absent.
    pub level: Option<i32>,
    /// Layers that were pulled are compressed anew, too.
    pub force: bool,
}

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> Self {
        Self {
            compression,
            ..Self::default()
        }
    }
}

impl LayerCompression {
    /// The name under which the result is kept.
    pub(crate) fn form(&self) -> String {
        let name = match self.compression {
            Compression::None => return "none".to_owned(),
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        let level = self
            .level
            .or(self.compression.default_level())
            .unwrap_or_default();
        format!("{name}-{level}")
    }
}

/// Why a layer's blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The store failed, or does not have the layer.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// The layer's folder cannot be opened.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The layer cannot be packed.
    #[error("failed to compress layer {layer}")]
    Layer {
        /// The layer.
        layer: LayerId,
        /// The cause.
        #[source]
        source: layer::LayerError,
    },
    /// The layer came as a tar that is not in the store any more, and its files do not give that tar again: it was
    /// arranged in another way, or the files are damaged.
    #[error(
        "the tar of layer {layer} is not in the store, and its files do not give it again (digest {found} instead of {wanted}); pull or load its image anew"
    )]
    DiffId {
        /// The layer.
        layer: LayerId,
        /// Its DiffID.
        wanted: Digest,
        /// What its files give.
        found: Digest,
    },
    /// The tar that the layer came as is not in the store any more, and is not to be had again.
    #[error("the tar of layer {layer} is not in the store, and cannot be fetched again")]
    Lost {
        /// The layer.
        layer: LayerId,
        /// The cause.
        #[source]
        source: Box<PullError>,
    },
    /// The work was stopped.
    #[error("canceled")]
    Canceled,
}

impl Engine {
    /// The blob of a layer: the one that it was pulled as, one that was made earlier, or a new one. Its bytes are
    /// in the store. Threads that want the same one wait for the first.
    pub fn compressed(
        &self,
        layer: &LayerId,
        wanted: impl Into<LayerCompression>,
    ) -> Result<Descriptor, CompressError> {
        self.layer_blob(layer, wanted.into(), &Cancel::new())
    }

    /// The same; the work ends when `cancel` is raised. The tar that a layer was pulled as is fetched once more when
    /// the store has lost it and the layer's files do not give it again.
    pub(crate) fn layer_blob(
        &self,
        layer: &LayerId,
        wanted: LayerCompression,
        cancel: &Cancel,
    ) -> Result<Descriptor, CompressError> {
        self.growing_layer_blob(layer, wanted, &Growth::new(), cancel)
    }

    /// The same, where somebody may want to follow a new blob while it is made.
    pub(crate) fn growing_layer_blob(
        &self,
        layer: &LayerId,
        wanted: LayerCompression,
        growth: &Arc<Growth>,
        cancel: &Cancel,
    ) -> Result<Descriptor, CompressError> {
        match self.layer_blobs.get(layer, wanted, growth, cancel) {
            Err(CompressError::DiffId { wanted: diff_id, .. })
                if self.fetch_original(layer, &diff_id, cancel)? =>
            {
                self.layer_blobs.get(layer, wanted, growth, cancel)
            }
            other => other,
        }
    }

    /// Brings back the blob that a layer came as; false when nobody knows where it is to be had.
    pub(crate) fn fetch_original(
        &self,
        layer: &LayerId,
        diff_id: &Digest,
        cancel: &Cancel,
    ) -> Result<bool, CompressError> {
        self.images
            .fetch_original(diff_id, cancel)
            .map_err(|error| match error {
                PullError::Canceled => CompressError::Canceled,
                error => CompressError::Lost {
                    layer: layer.clone(),
                    source: Box::new(error),
                },
            })
    }
}

type Turn = Arc<Mutex<()>>;

/// Makes and finds the blobs of layers.
#[derive(Debug)]
pub(crate) struct LayerBlobs {
    store: Arc<Store>,
    memory: DecoderMemory,
    /// Who makes a blob holds its lock.
    turns: Mutex<HashMap<(LayerId, String), Turn>>,
}

impl LayerBlobs {
    pub(crate) fn new(store: Arc<Store>, memory: DecoderMemory) -> Self {
        Self {
            store,
            memory,
            turns: Mutex::default(),
        }
    }

    /// Images of earlier versions know themselves which blobs they came from.
    pub(crate) fn adopt(&self, layer: &ImageLayer) -> Result<(), kiln_cache::Error> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        if self.store.variants().get(&layer.diff_id, ORIGINAL)?.is_some() {
            return Ok(());
        }
        self.store.variants().put(&Variant {
            diff_id: layer.diff_id,
            form: ORIGINAL.to_owned(),
            blob: blob.clone(),
            repositories: std::collections::BTreeSet::new(),
        })
    }

    /// See [`Engine::compressed`]; the work ends when `cancel` is raised. A blob that has to be made is `growth`
    /// meanwhile. Whatever becomes of it: nobody waits for its beginning any more after that.
    pub(crate) fn get(
        &self,
        layer: &LayerId,
        wanted: LayerCompression,
        growth: &Arc<Growth>,
        cancel: &Cancel,
    ) -> Result<Descriptor, CompressError> {
        let feed = growth.feed();
        if let Some(blob) = self.known(layer, wanted)? {
            return Ok(blob);
        }
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry((layer.clone(), wanted.form())).or_default())
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.known(layer, wanted)? {
            Some(blob) => Ok(blob),
            None => self.make(layer, wanted, &feed, cancel),
        }
    }

    /// The blob, if the store has it.
    pub(crate) fn known(
        &self,
        layer: &LayerId,
        wanted: LayerCompression,
    ) -> Result<Option<Descriptor>, CompressError> {
        let diff_id = match layer.diff_id() {
            Some(diff_id) => diff_id,
            None => match self.store.layers().require(layer)?.diff_id() {
                Some(diff_id) => diff_id,
                None => return Ok(None),
            },
        };
        let form = wanted.form();
        let forms: &[&str] = if wanted.force {
            &[&form]
        } else {
            &[ORIGINAL, &form]
        };
        for form in forms {
            let Some(variant) = self.store.variants().get(&diff_id, form)? else {
                continue;
            };
            // A plain tar is no form that anybody chose: it is how archives are written.
            let plain = *form == ORIGINAL && variant.blob.media_type == media_type::OCI_LAYER;
            if plain && wanted.compression != Compression::None {
                continue;
            }
            if self.store.blobs().contains(&variant.blob.digest)? {
                return Ok(Some(variant.blob));
            }
        }
        Ok(None)
    }

    /// The blob that the layer was pulled as, if there is one.
    fn original(&self, layer: &Layer) -> Result<Option<File>, CompressError> {
        let Some(diff_id) = layer.diff_id() else {
            return Ok(None);
        };
        let original = self.store.variants().get(&diff_id, ORIGINAL)?;
        Ok(match original {
            Some(original) => self.store.blobs().get(&original.blob.digest)?,
            None => None,
        })
    }

    fn make(
        &self,
        id: &LayerId,
        wanted: LayerCompression,
        feed: &Feed,
        cancel: &Cancel,
    ) -> Result<Descriptor, CompressError> {
        let layer = self.store.layers().require(id)?;
        let mut draft = self.store.blobs().draft()?;
        feed.begin_file(draft.reader()?, 0);
        let out = Watched {
            out: &mut draft,
            written: 0,
            feed,
            cancel,
        };
        let exported = if let Some(blob) = self.original(&layer)? {
            recompress(blob, wanted, out, &self.memory.until(cancel))
        } else {
            let root = Root::open(&layer.diff_path())?;
            layer::export(&*layer.listing()?, &root, wanted.compression, wanted.level, out)
        };
        let exported = match exported {
            Ok(exported) => exported,
            Err(_) if cancel.is_raised() => return Err(CompressError::Canceled),
            Err(source) => {
                let layer = id.clone();
                return Err(CompressError::Layer { layer, source });
            }
        };
        match layer.diff_id() {
            Some(diff_id) if diff_id != exported.diff_id => {
                return Err(CompressError::DiffId {
                    layer: id.clone(),
                    wanted: diff_id,
                    found: exported.diff_id,
                });
            }
            Some(_) => {}
            None => layer.set_diff_id(&exported.diff_id)?,
        }
        draft.commit_hashed(&exported.digest, exported.size)?;
        let media_type = media_type::oci_layer(wanted.compression);
        let blob = Descriptor::new(media_type, exported.digest, exported.size);
        self.store.variants().put(&Variant {
            diff_id: exported.diff_id,
            form: wanted.form(),
            blob: blob.clone(),
            repositories: std::collections::BTreeSet::new(),
        })?;
        feed.whole();
        Ok(blob)
    }
}

/// The blob of a layer from another blob of it: the very same tar, which may be arranged otherwise than one packed
/// from the layer's files.
fn recompress(
    blob: File,
    wanted: LayerCompression,
    out: impl Write,
    windows: &dyn Windows,
) -> Result<layer::Exported, layer::LayerError> {
    let mut tar = layer::decompress_within(blob, windows).map_err(layer::LayerError::Read)?;
    layer::export_tar(&mut tar, wanted.compression, wanted.level, out)
}

/// A writer that tells how much was written, and fails once the work is cancelled.
struct Watched<'a, W> {
    out: W,
    written: u64,
    feed: &'a Feed,
    cancel: &'a Cancel,
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        self.feed.grown(self.written);
        Ok(count)
    }

    /// A compression that waits for its threads asks here.
    fn flush(&mut self) -> io::Result<()> {
        self.cancel.check()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
