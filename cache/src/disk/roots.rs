//! What images are made of: it is not cache, and stays as long as they do.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use crate::{Error, ImageRecord, LayerId, Result, Store, files, images, sealed::Flaw};

/// The layers and blobs of all images.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    pub(crate) images: Vec<ImageRecord>,
    /// Layers, and by how many images each is used.
    pub(crate) layers: BTreeMap<LayerId, usize>,
    pub(crate) blobs: BTreeSet<Digest>,
    /// The DiffIDs of these layers.
    pub(crate) diff_ids: BTreeSet<Digest>,
}

impl Roots {
    /// Reads all images. One of a newer format is an error: nobody can tell what it needs.
    pub(crate) fn read(store: &Store) -> Result<Self> {
        Self::read_without(store, &BTreeSet::new())
    }

    /// The same, as if these images were removed.
    pub(crate) fn read_without(store: &Store, gone: &BTreeSet<Digest>) -> Result<Self> {
        let mut roots = Self::default();
        for id in store.images().ids()? {
            if gone.contains(&id) {
                continue;
            }
            let path = store.images().id_path(&id);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            match images::parse(&bytes) {
                Ok(record) => roots.add(record),
                Err(Flaw::Newer(version)) => {
                    return Err(Error::Damaged {
                        path,
                        reason: format!(
                            "the image is of format {version}, which a newer program wrote; what it needs is not known"
                        ),
                    });
                }
                // Whoever wants the image finds that out, too; it is lost.
                Err(Flaw::Damaged(_)) => {}
            }
        }
        Ok(roots)
    }

    pub(super) fn add(&mut self, record: ImageRecord) {
        let layers: BTreeSet<&LayerId> = record.layers.iter().map(|layer| &layer.layer).collect();
        for layer in layers {
            *self.layers.entry(layer.clone()).or_default() += 1;
        }
        self.diff_ids
            .extend(record.layers.iter().map(|layer| layer.diff_id));
        self.blobs.insert(record.config);
        self.blobs
            .extend(record.manifests.iter().map(|manifest| manifest.digest));
        let compressed = record.layers.iter().filter_map(|layer| layer.blob.as_ref());
        self.blobs.extend(compressed.map(|blob| blob.digest));
        self.images.push(record);
    }
}
