//! Taking images out of an archive.
//!
//! The archive is read once, into a folder of the store's `tmp/`; what it holds is looked through before anything is
//! kept. A layer is unpacked from there, and kept only if its tar has the DiffID that the configuration names. The images
//! come after all layers, their names last: an archive with a fault anywhere changes no name.

mod layer;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_cache::{ImageRecord, IndexRecord, IndexedImage};
use kiln_image::load::{self, ImageFiles, LoadableImage, LoadableManifest};
use kiln_image::{Digest, Platform, Reference};

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::chain;
use crate::image::PullError;
use crate::task::{Reporter, Task};

/// Where images are loaded from.
pub enum LoadSource {
    /// An archive, compressed or not.
    Archive(Box<dyn Read + Send>),
    /// A folder with what an archive has.
    Folder(PathBuf),
}

impl std::fmt::Debug for LoadSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archive(_) => formatter.write_str("Archive"),
            Self::Folder(path) => formatter.debug_tuple("Folder").field(path).finish(),
        }
    }
}

/// What is to be loaded.
#[derive(Debug)]
pub struct LoadRequest {
    /// Where it is.
    pub source: LoadSource,
    /// Only the images for these platforms; all when empty.
    pub platforms: Vec<Platform>,
}

/// A name that was loaded, or an image without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The name.
    pub name: Option<Reference>,
    /// The id of the image, or of the index of a multi-platform one.
    pub id: Digest,
    /// What had the name before.
    pub replaced: Option<Digest>,
}

/// Why an archive's images cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive is not in order, or does not have what is wanted.
    #[error(transparent)]
    Archive(#[from] load::LoadError),
    /// A layer cannot be unpacked, or is not what it should be.
    #[error(transparent)]
    Layer(#[from] PullError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// A directory could not be read or written.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// A file beside the store cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It was cancelled.
    #[error("canceled")]
    Canceled,
}

impl Engine {
    /// Loads the images of an archive. Either all of them get their names, or none.
    pub fn load(
        &self,
        request: LoadRequest,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<Vec<Loaded>, LoadError> {
        let mut task = reporter.announce("load images", Vec::new(), None);
        task.start();
        let folder = self.store.temp().dir()?;
        let loading = Loading {
            engine: self,
            task: &task,
            cancel,
        };
        let result = loading.run(request, folder.path());
        match &result {
            Ok(_) => task.done(),
            Err(_) if cancel.is_raised() => {
                task.canceled();
                return Err(LoadError::Canceled);
            }
            Err(error) => task.failed(chain(error)),
        }
        result
    }
}

struct Loading<'a> {
    engine: &'a Engine,
    task: &'a Task,
    cancel: &'a Cancel,
}

impl Loading<'_> {
    fn run(&self, request: LoadRequest, folder: &Path) -> Result<Vec<Loaded>, LoadError> {
        let mut files = match request.source {
            LoadSource::Archive(reader) => {
                let reader = Watched {
                    reader,
                    read: 0,
                    loading: self,
                };
                ImageFiles::of_tar(reader, folder)?
            }
            LoadSource::Folder(path) => ImageFiles::of_directory(&path, folder),
        };
        let images = load::contents(&mut files, &request.platforms)?;
        let mut records = Vec::with_capacity(images.len());
        for image in &images {
            self.tell_incomplete(image);
            let mut of_platforms = Vec::with_capacity(image.manifests.len());
            for manifest in &image.manifests {
                let record = self.record(&mut files, image, manifest)?;
                of_platforms.push((manifest.platform.clone(), record));
            }
            records.push(of_platforms);
        }
        let mut loaded = Vec::new();
        for (image, records) in images.iter().zip(records) {
            self.keep(image, &records, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn tell_incomplete(&self, image: &LoadableImage) {
        for lost in &image.incomplete {
            let name = image.names.first().map_or_else(String::new, Reference::familiar);
            let platform = lost
                .platform
                .as_ref()
                .map_or_else(|| "a platform".to_owned(), ToString::to_string);
            self.task.warn(
                format!("{name}: the archive does not have the image for {platform}, which is left out"),
                None,
            );
        }
    }

    /// The image, its layers unpacked. One that the store has is taken as it is there.
    fn record(
        &self,
        files: &mut ImageFiles,
        image: &LoadableImage,
        manifest: &LoadableManifest,
    ) -> Result<ImageRecord, LoadError> {
        let store = &self.engine.store;
        let id = Digest::sha256_of(&manifest.config_bytes);
        if let Some(record) = store.images().by_id(&id)?
            && store.blobs().contains(&record.config)?
            && self.has_layers(&record)?
        {
            return Ok(record);
        }
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for layer in &manifest.layers {
            layers.push(self.layer(files, layer)?);
        }
        let size = self.engine.images.size(&layers)?;
        let mut manifests = Vec::new();
        for document in manifest.manifest.iter().chain(&image.index) {
            store.blobs().put_bytes(&document.bytes)?;
            manifests.push(document.descriptor.clone());
        }
        store.blobs().put_bytes(&manifest.config_bytes)?;
        Ok(ImageRecord {
            id,
            config: id,
            layers,
            manifests,
            repo_digests: Vec::new(),
            platform: manifest.config.platform(),
            created: manifest.config.created.clone(),
            size,
            names: Vec::new(),
        })
    }

    fn has_layers(&self, record: &ImageRecord) -> Result<bool, LoadError> {
        for layer in &record.layers {
            if self.engine.store.layers().get(&layer.layer)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives an image its names.
    fn keep(
        &self,
        image: &LoadableImage,
        records: &[(Platform, ImageRecord)],
        loaded: &mut Vec<Loaded>,
    ) -> Result<(), LoadError> {
        let images = self.engine.store.images();
        for (_, record) in records {
            images.put(record, &[])?;
        }
        let id = if let [(_, record)] = records {
            record.id
        } else {
            let entry = |(platform, record): &(Platform, ImageRecord)| IndexedImage {
                image: record.id,
                platform: platform.clone(),
            };
            let index = IndexRecord::new(records.iter().map(entry).collect());
            images.put_index(&index, &[])?;
            index.id
        };
        for name in &image.names {
            let before = images.id_of_name(&name.to_string())?;
            images.tag(&id, &name.to_string())?;
            loaded.push(Loaded {
                name: Some(name.clone()),
                id,
                replaced: before.filter(|before| *before != id),
            });
        }
        if image.names.is_empty() {
            loaded.push(Loaded {
                name: None,
                id,
                replaced: None,
            });
        }
        Ok(())
    }
}

/// The archive on its way in.
struct Watched<'a> {
    reader: Box<dyn Read + Send>,
    read: u64,
    loading: &'a Loading<'a>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.loading.cancel.check()?;
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        self.loading
            .task
            .progress("reading the archive", self.read, None, count == 0);
        Ok(count)
    }
}

fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}
