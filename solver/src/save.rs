//! Writing images of the store to an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use kiln_cache::{Found, ImageLayer, ImageRecord};
use kiln_image::layout::{Form, LayoutError, SavedImage, Writer};
use kiln_image::{Descriptor, Digest, Index, Manifest, Platform, Reference, layer, media_type};
use kiln_tree::Root;

use crate::cancel::Cancel;
use crate::compressed::{CompressError, LayerCompression};
use crate::engine::Engine;
use crate::image::Stoppable;

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
    /// There is no image for a platform that is needed.
    #[error("{image} has no image for {wanted}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The platform.
        wanted: Box<Platform>,
        /// The platforms that it has images for.
        available: Vec<Platform>,
    },
    /// A layer cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The configuration of an image is not in the store.
    #[error("the configuration of image {0} is lost")]
    ConfigLost(Digest),
}

/// What is to be saved, and how.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Names, ids, beginnings of ids.
    pub images: Vec<String>,
    /// The archive's form.
    pub form: Form,
    /// Only the images for these platforms; all when empty.
    pub platforms: Vec<Platform>,
    /// The names under which each image is saved, instead of the one by which it is given.
    pub names: Option<Vec<Reference>>,
    /// How layers are compressed that were built here; without, they are not.
    pub compression: Option<LayerCompression>,
}

/// An image of the archive under its names: alone, or one a platform.
struct Chosen {
    id: Digest,
    names: Vec<Reference>,
    /// With the platform that an index lists it for.
    images: Vec<(Platform, ImageRecord)>,
    /// It stays an index, even with one image.
    is_index: bool,
}

impl Engine {
    /// Writes images as a tar to `out`, and gives `out` back.
    ///
    /// An image that is given by name is saved under that name, one given by id under none. Layers that were
    /// pulled are written as they came, others uncompressed, so that the digest is the DiffID. A multi-platform image
    /// is saved as an index; what else [`Form::Docker`] has of it is the image for this machine.
    pub fn save<W: Write>(&self, request: &SaveRequest, out: W) -> Result<W, SaveError> {
        let (out, _) = self.save_to(request, Writer::tar(out)?, &Cancel::new())?;
        Ok(out)
    }

    /// As [`Engine::save`], to an archive or a directory, until `cancel` is raised; gives also the manifests and indexes that
    /// were saved.
    pub fn save_to<W: Write>(
        &self,
        request: &SaveRequest,
        mut writer: Writer<W>,
        cancel: &Cancel,
    ) -> Result<(W, Vec<Descriptor>), SaveError> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for image in &request.images {
            let found = self.find_image(image)?;
            let found = found.ok_or_else(|| kiln_cache::Error::ImageNotFound(image.clone()))?;
            let name = image
                .parse::<Reference>()
                .ok()
                .filter(|name| found.names().contains(&name.to_string()));
            match chosen.iter_mut().find(|other| other.id == found.id()) {
                Some(other) => other.names.extend(name),
                None => chosen.push(self.choose(image, &found, name, &request.platforms)?),
            }
        }
        let mut saved = Vec::with_capacity(chosen.len());
        for mut chosen in chosen {
            if let Some(names) = &request.names {
                chosen.names.clone_from(names);
            }
            saved.push(self.save_chosen(&mut writer, chosen, request, cancel)?);
        }
        let roots = saved.iter().map(|image| image.root.clone()).collect();
        Ok((writer.finish(&saved, request.form)?, roots))
    }

    fn choose(
        &self,
        text: &str,
        found: &Found,
        name: Option<Reference>,
        platforms: &[Platform],
    ) -> Result<Chosen, SaveError> {
        let id = found.id();
        let available = found.platforms();
        let is_index = matches!(found, Found::Index(_)) && platforms.len() != 1;
        let entries = match found {
            Found::Image(record) => vec![(record.platform.clone(), record.id)],
            Found::Index(index) => index
                .images
                .iter()
                .map(|entry| (entry.platform.clone(), entry.image))
                .collect(),
        };
        let missing = |wanted: &Platform| SaveError::NoPlatform {
            image: text.to_owned(),
            wanted: Box::new(wanted.clone()),
            available: available.clone(),
        };
        let mut wanted = Vec::new();
        for platform in platforms {
            let entry = entries.iter().find(|(listed, _)| listed.matches(platform));
            wanted.push(entry.cloned().ok_or_else(|| missing(platform))?);
        }
        if platforms.is_empty() {
            wanted = entries;
        }
        let mut images = Vec::with_capacity(wanted.len());
        for (platform, id) in wanted {
            let not_found = || kiln_cache::Error::ImageNotFound(text.to_owned());
            // Somebody may be removing it just now.
            images.push((platform, self.hold_image(&id)?.ok_or_else(not_found)?));
        }
        Ok(Chosen {
            id,
            names: name.into_iter().collect(),
            images,
            is_index,
        })
    }

    fn save_chosen<W: Write>(
        &self,
        writer: &mut Writer<W>,
        chosen: Chosen,
        request: &SaveRequest,
        cancel: &Cancel,
    ) -> Result<SavedImage, SaveError> {
        let mut saved = Vec::with_capacity(chosen.images.len());
        for (platform, record) in chosen.images {
            let mut image = self.save_one(writer, &record, request.compression, cancel)?;
            image.root.platform = Some(platform.clone());
            saved.push((platform, image));
        }
        if !chosen.is_index
            && let Some((_, image)) = saved.pop()
        {
            return Ok(SavedImage {
                names: chosen.names,
                ..image
            });
        }
        let index = Index::new(saved.iter().map(|(_, image)| image.root.clone()).collect());
        let bytes = index.to_bytes();
        let root = Descriptor::of(media_type::OCI_INDEX, &bytes);
        writer.blob(&root, bytes.as_slice())?;
        let host = Platform::host();
        let own = host
            .fallbacks()
            .iter()
            .find_map(|wanted| saved.iter().position(|(platform, _)| platform.matches(wanted)));
        let docker = match own {
            Some(position) => saved.swap_remove(position).1.docker,
            None if request.form == Form::Docker => {
                return Err(SaveError::NoPlatform {
                    image: chosen
                        .names
                        .first()
                        .map_or_else(|| chosen.id.to_string(), Reference::familiar),
                    wanted: Box::new(host),
                    available: saved.into_iter().map(|(platform, _)| platform).collect(),
                });
            }
            None => None,
        };
        Ok(SavedImage {
            root,
            names: chosen.names,
            docker,
        })
    }

    fn save_one<W: Write>(
        &self,
        writer: &mut Writer<W>,
        record: &ImageRecord,
        compression: Option<LayerCompression>,
        cancel: &Cancel,
    ) -> Result<SavedImage, SaveError> {
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            layers.push(self.save_layer(writer, layer, compression, cancel)?);
        }
        let config_bytes = self
            .store
            .blobs()
            .read(&record.config)?
            .ok_or(SaveError::ConfigLost(record.config))?;
        let config = Descriptor::new(media_type::OCI_CONFIG, record.config, config_bytes.len() as u64);
        writer.blob(&config, config_bytes.as_slice())?;
        let manifest = Manifest::new(config.clone(), layers.clone()).to_bytes();
        let digest = Digest::sha256_of(&manifest);
        let mut root = Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64);
        writer.blob(&root, manifest.as_slice())?;
        root.platform = Some(record.platform.clone());
        Ok(SavedImage {
            root,
            names: Vec::new(),
            docker: Some((config, layers)),
        })
    }

    fn save_layer<W: Write>(
        &self,
        writer: &mut Writer<W>,
        image_layer: &ImageLayer,
        compression: Option<LayerCompression>,
        cancel: &Cancel,
    ) -> Result<Descriptor, SaveError> {
        if let Some(compression) = compression {
            self.layer_blobs.adopt(image_layer)?;
            let blob = self.layer_blob(&image_layer.layer, compression, cancel)?;
            let file = self.store.blobs().get(&blob.digest)?;
            let file = file.ok_or_else(|| kiln_cache::Error::LayerMissing(image_layer.layer.clone()))?;
            let descriptor = Descriptor::new(oci_media_type(&blob.media_type), blob.digest, blob.size);
            writer.blob(&descriptor, Stoppable { file, stop: cancel })?;
            return Ok(descriptor);
        }
        if let Some(descriptor) = self.save_blob(writer, image_layer, cancel)? {
            return Ok(descriptor);
        }
        let layer = self.store.layers().require(&image_layer.layer)?;
        let listing = layer.listing()?;
        let root = Root::open(&layer.diff_path())?;
        if image_layer.blob.is_some() {
            // The blob that it came as is lost. If its files do not give the same tar again, that has to come back.
            let failed = |source| SaveError::Layer {
                layer: image_layer.layer.clone(),
                source,
            };
            let found = layer::diff_id(&listing, &root).map_err(failed)?;
            if found != image_layer.diff_id {
                return self.save_fetched(writer, image_layer, found, cancel);
            }
        }
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
        let file = File::create_new(&path).map_err(tar)?;
        let mut file = BufWriter::with_capacity(1 << 20, Stoppable { file, stop: cancel });
        let size = layer::pack(&listing, &root, &mut file).map_err(failed)?;
        drop(file.into_inner().map_err(|error| tar(error.into_error()))?);
        let descriptor = Descriptor::new(media_type::OCI_LAYER, image_layer.diff_id, size);
        let file = File::open(&path).map_err(tar)?;
        writer.blob(&descriptor, Stoppable { file, stop: cancel })?;
        Ok(descriptor)
    }
}

impl Engine {
    /// Writes the blob that a layer came as, if the store has it.
    fn save_blob<W: Write>(
        &self,
        writer: &mut Writer<W>,
        layer: &ImageLayer,
        cancel: &Cancel,
    ) -> Result<Option<Descriptor>, SaveError> {
        let Some(blob) = &layer.blob else { return Ok(None) };
        let Some(file) = self.store.blobs().get(&blob.digest)? else {
            return Ok(None);
        };
        let descriptor = Descriptor::new(oci_media_type(&blob.media_type), blob.digest, blob.size);
        writer.blob(&descriptor, Stoppable { file, stop: cancel })?;
        Ok(Some(descriptor))
    }

    /// The same after it was fetched once more. `found` is the digest of the tar that the layer's files give.
    fn save_fetched<W: Write>(
        &self,
        writer: &mut Writer<W>,
        layer: &ImageLayer,
        found: Digest,
        cancel: &Cancel,
    ) -> Result<Descriptor, SaveError> {
        self.layer_blobs.adopt(layer)?;
        self.fetch_original(&layer.layer, &layer.diff_id, cancel)?;
        let lost = || CompressError::DiffId {
            layer: layer.layer.clone(),
            wanted: layer.diff_id,
            found,
        };
        Ok(self.save_blob(writer, layer, cancel)?.ok_or_else(lost)?)
    }
}

/// The OCI name of a Docker layer's media type.
pub(crate) fn oci_media_type(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        other => other,
    }
}
