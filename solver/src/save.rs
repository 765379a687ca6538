//! Writing images of the store to an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use kiln_cache::{ImageLayer, ImageRecord};
use kiln_image::layout::{Form, LayoutError, SavedImage, Writer};
use kiln_image::{Descriptor, Manifest, Reference, layer, media_type};
use kiln_tree::Root;

use crate::engine::Engine;

/// Why images cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The store failed, or does not have an image.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// The archive cannot be written.
    #[error("failed to write the archive")]
    Layout(#[from] LayoutError),
    /// A layer cannot be read.
    #[error("failed to read layer {layer}")]
    Layer {
        /// The layer.
        layer: kiln_cache::LayerId,
        /// The cause.
        #[source]
        source: layer::LayerError,
    },
    /// A temporary file cannot be written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A layer's folder cannot be opened.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The configuration of an image is not in the store.
    #[error("the configuration of image {0} is lost")]
    ConfigLost(kiln_image::Digest),
}

impl Engine {
    /// Writes `images` (names, ids, beginnings of ids) as a tar to `out`, and gives `out` back.
    ///
    /// An image that is given by name is saved under that name, one given by id under none. Layers that were
    /// pulled are written as they came, others uncompressed, so that the digest is the DiffID.
    pub fn save<W: Write>(&self, images: &[String], form: Form, out: W) -> Result<W, SaveError> {
        let mut chosen: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        for image in images {
            let record = self.store.images().require(image)?;
            let name = image
                .parse::<Reference>()
                .ok()
                .filter(|name| record.names.contains(&name.to_string()));
            match chosen.iter_mut().find(|(other, _)| other.id == record.id) {
                Some((_, names)) => names.extend(name),
                None => chosen.push((record, name.into_iter().collect())),
            }
        }
        let mut writer = Writer::tar(out)?;
        let mut saved = Vec::with_capacity(chosen.len());
        for (record, names) in chosen {
            saved.push(self.save_one(&mut writer, &record, names)?);
        }
        Ok(writer.finish(&saved, form)?)
    }

    fn save_one<W: Write>(
        &self,
        writer: &mut Writer<W>,
        record: &ImageRecord,
        names: Vec<Reference>,
    ) -> Result<SavedImage, SaveError> {
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            layers.push(self.save_layer(writer, layer)?);
        }
        let config_bytes = self
            .store
            .blobs()
            .read(&record.config)?
            .ok_or(SaveError::ConfigLost(record.config))?;
        let config = Descriptor::new(media_type::OCI_CONFIG, record.config, config_bytes.len() as u64);
        writer.blob(&config, config_bytes.as_slice())?;
        let manifest = Manifest::new(config.clone(), layers.clone()).to_bytes();
        let digest = kiln_image::Digest::sha256_of(&manifest);
        let mut root = Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64);
        writer.blob(&root, manifest.as_slice())?;
        root.platform = Some(record.platform.clone());
        Ok(SavedImage {
            root,
            names,
            docker: Some((config, layers)),
        })
    }

    fn save_layer<W: Write>(
        &self,
        writer: &mut Writer<W>,
        image_layer: &ImageLayer,
    ) -> Result<Descriptor, SaveError> {
        if let Some(blob) = &image_layer.blob
            && let Some(file) = self.store.blobs().get(&blob.digest)?
        {
            let descriptor = Descriptor::new(oci_media_type(&blob.media_type), blob.digest, blob.size);
            writer.blob(&descriptor, file)?;
            return Ok(descriptor);
        }
        let layer = self.store.layers().require(&image_layer.layer)?;
        let listing = layer.listing()?;
        let root = Root::open(&layer.diff_path())?;
        let failed = |source| SaveError::Layer {
            layer: image_layer.layer.clone(),
            source,
        };
        // Its size comes before its bytes in the archive, so the tar is made beside it first.
        let folder = self.store.temp().dir()?;
        let path = folder.path().join("layer.tar");
        let tar = |source| SaveError::Io {
            path: path.clone(),
            source,
        };
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&path).map_err(tar)?);
        let size = layer::pack(&listing, &root, &mut file).map_err(failed)?;
        drop(file.into_inner().map_err(|error| tar(error.into_error()))?);
        let descriptor = Descriptor::new(media_type::OCI_LAYER, image_layer.diff_id, size);
        writer.blob(&descriptor, File::open(&path).map_err(tar)?)?;
        Ok(descriptor)
    }
}

/// The OCI name of a Docker layer's media type.
fn oci_media_type(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        other => other,
    }
}
