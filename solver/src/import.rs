//! Making an image of a root file system tar.

use std::io::Read;

use kiln_cache::{ImageLayer, ImageRecord, LayerId};
use kiln_image::import::{ImportOptions, import};
use kiln_image::layer::UnpackOptions;
use kiln_image::{Config, Digest, Platform, Reference};
use kiln_tree::Root;

use crate::engine::Engine;

/// What an imported image is to be like.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// How its containers run.
    pub config: Config,
    /// For which platform it is.
    pub platform: Platform,
    /// The user named the platform: images that the name stands for on other platforms stay.
    pub platform_requested: bool,
    /// The remark in its history.
    pub comment: String,
    /// Its name.
    pub name: Option<Reference>,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The tar cannot be unpacked.
    #[error("failed to import the archive")]
    Unpack(#[source] kiln_image::layer::LayerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// A directory could not be read or written.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
}

impl Engine {
    /// Makes an image whose only layer is the tar `reader`, compressed or not.
    pub fn import(&self, reader: impl Read + Send, request: ImportRequest) -> Result<Digest, ImportError> {
        let draft = self.store.layers().draft()?;
        let root = Root::open(&draft.diff_path())?;
        let options = ImportOptions {
            config: request.config,
            platform: request.platform,
            created: jiff::Timestamp::now().to_string(),
            comment: request.comment,
        };
        let unpack = UnpackOptions {
            userxattr: self.store.userxattr(),
            lower: None,
            ..UnpackOptions::default()
        };
        let mut imported = import(reader, &root, options, &unpack).map_err(ImportError::Unpack)?;
        // The tar that came is not kept, so the layer's DiffID is that of the tar which Kiln makes of it.
        let diff_id =
            kiln_image::layer::diff_id(&imported.layer.listing, &root).map_err(ImportError::Unpack)?;
        imported.config.rootfs.diff_ids = vec![diff_id];
        let layer_id = LayerId::from_content(&imported.layer.listing.content_hash());
        let layer = self
            .store
            .layers()
            .commit(draft, &layer_id, imported.layer.listing)?;
        layer.set_diff_id(&diff_id)?;
        let id = self.store.blobs().put_bytes(&imported.config.to_bytes())?;
        let record = ImageRecord {
            id,
            config: id,
            layers: vec![ImageLayer {
                layer: layer_id,
                diff_id,
                blob: None,
            }],
            manifests: Vec::new(),
            repo_digests: Vec::new(),
            platform: imported.config.platform(),
            created: imported.config.created.clone(),
            size: layer.size(),
            names: Vec::new(),
        };
        let images = self.store.images();
        match request.name.map(|name| name.to_string()) {
            Some(name) if request.platform_requested => images.join(&record, &name, |_| true)?,
            name => images.put(&record, name.as_slice())?,
        }
        Ok(id)
    }
}
