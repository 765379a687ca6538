//! One layer of an archive.

use std::io;

use kiln_cache::variants::ORIGINAL;
use kiln_cache::{ImageLayer, LayerId, Variant};
use kiln_image::layer::{self, Encoding};
use kiln_image::load::{ImageFiles, LoadError as ArchiveError, LoadableLayer, StoredFile};
use kiln_image::{Descriptor, Digest, DigestWriter, limits, media_type};
use kiln_tree::Root;

use super::{LoadError, Loading, open};
use crate::graph::SourceLayer;
use crate::image::{PullError, Stoppable};

impl Loading<'_> {
    /// Brings a layer into the store, with what is needed to give its tar out again: its blob, unless the files alone
    /// make the same tar.
    pub(super) fn layer(
        &self,
        files: &mut ImageFiles,
        layer: &LoadableLayer,
    ) -> Result<ImageLayer, LoadError> {
        let store = &self.engine.store;
        let id = LayerId::from_diff_id(&layer.diff_id);
        let done = |blob| ImageLayer {
            layer: id.clone(),
            diff_id: layer.diff_id,
            blob,
        };
        let is_there = store.layers().get(&id)?.is_some();
        if is_there {
            let original = store.variants().get(&layer.diff_id, ORIGINAL)?;
            if let Some(original) = original
                && store.blobs().contains(&original.blob.digest)?
            {
                return Ok(done(Some(original.blob)));
            }
        }
        let (file, blob) = self.blob(files, layer)?;
        if is_there {
            self.check(&file, layer)?;
        } else {
            let source = SourceLayer {
                layer: id.clone(),
                diff_id: layer.diff_id,
                blob: Some(blob.clone()),
            };
            self.engine.images.unpack_file(
                &source,
                (&file.digest, self.open(&file)?),
                None,
                self.task,
                self.cancel,
            )?;
        }
        if blob.media_type == media_type::OCI_LAYER && self.packs_to(&id, &layer.diff_id)? {
            return Ok(done(None));
        }
        store.blobs().adopt(&file.path, &file.digest, file.size)?;
        store.variants().put(&Variant {
            diff_id: layer.diff_id,
            form: ORIGINAL.to_owned(),
            blob: blob.clone(),
            repositories: std::collections::BTreeSet::new(),
        })?;
        Ok(done(Some(blob)))
    }

    /// The layer's file and what a manifest says of it. What no manifest can express (xz, bzip2) is decompressed.
    fn blob(
        &self,
        files: &mut ImageFiles,
        layer: &LoadableLayer,
    ) -> Result<(StoredFile, Descriptor), LoadError> {
        let mut file = files.require(&layer.file, "a manifest")?;
        if let Some(stated) = &layer.blob
            && (stated.size != file.size || stated.digest != file.digest)
        {
            return Err(LoadError::Archive(ArchiveError::Digest {
                name: layer.file.clone(),
                wanted: format!("{} of {} bytes", stated.digest, stated.size),
                found: file.digest,
                size: file.size,
            }));
        }
        let encoding = Encoding::of_reader(self.open(&file)?).map_err(|source| LoadError::Read {
            path: file.path.clone(),
            source,
        })?;
        let media_type = match encoding {
            Encoding::Gzip => media_type::OCI_LAYER_GZIP,
            Encoding::Zstd => media_type::OCI_LAYER_ZSTD,
            Encoding::Plain => media_type::OCI_LAYER,
            Encoding::Bzip2 | Encoding::Xz => {
                file = files.decompressed(&file)?;
                media_type::OCI_LAYER
            }
        };
        let blob = Descriptor::new(media_type, file.digest, file.size);
        Ok((file, blob))
    }

    fn open(&self, file: &StoredFile) -> Result<std::fs::File, LoadError> {
        // Another layer may have been the same file: then it is a blob by now.
        if !file.path.exists()
            && let Some(blob) = self.engine.store.blobs().get(&file.digest)?
        {
            return Ok(blob);
        }
        open(&file.path)
    }

    /// Whether the file is the layer that the store has already: its bytes are to stand for it.
    fn check(&self, file: &StoredFile, layer: &LoadableLayer) -> Result<(), LoadError> {
        let failed = |source| PullError::Unpack {
            blob: file.digest,
            source: layer::LayerError::Read(source),
        };
        let reader = Stoppable {
            file: self.open(file)?,
            stop: self.cancel,
        };
        let windows = self.engine.images.memory().until(self.cancel);
        let tar = layer::decompress_within(reader, &windows).map_err(failed)?;
        let mut tar = io::Read::take(tar, limits::LAYER_SIZE);
        let mut hashed = DigestWriter::new(io::sink());
        io::copy(&mut tar, &mut hashed).map_err(failed)?;
        let (_, found, _) = hashed.finish();
        if found == layer.diff_id {
            return Ok(());
        }
        Err(LoadError::Layer(PullError::DiffId {
            blob: file.digest,
            wanted: layer.diff_id,
            found,
        }))
    }

    /// Whether the tar that is made of a layer's files has this digest.
    fn packs_to(&self, id: &LayerId, diff_id: &Digest) -> Result<bool, LoadError> {
        let layer = self.engine.store.layers().require(id)?;
        let root = Root::open(&layer.diff_path())?;
        match layer::diff_id(&*layer.listing()?, &root) {
            Ok(found) => Ok(found == *diff_id),
            // Devices that could not be made here are in no tar of it.
            Err(_) => Ok(false),
        }
    }
}
