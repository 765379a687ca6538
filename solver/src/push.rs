//! Pushing images: only what a registry does not have moves, and what refers to something comes after it.
//!
//! Each layer becomes a blob (`compressed`) and goes its way as soon as it is one, several at a time: the
//! registry is asked whether it has the blob, then whether it takes it from another of its repositories, and only
//! then it is uploaded. A large one goes out while it is made (`stream`). A layer that is not here but in another registry comes as its blob and goes on as that. The
//! configuration follows, the manifests, the index, and last the tags: whoever looks in the meantime sees the old
//! image or the new one.

mod documents;
mod error;
pub(crate) mod stream;
mod transfer;

use std::collections::BTreeMap;

use kiln_cache::{Found, ImageRecord, LayerId};
use kiln_image::{Descriptor, Digest, Platform, Reference};

pub use error::PushError;

use crate::cancel::Cancel;
use crate::compressed::LayerCompression;
use crate::engine::Engine;
use crate::error::chain;
use crate::lazy::{LazyImage, LazyLayer};
use crate::task::{Reporter, Task};
use documents::{Blobs, Documents};
use transfer::Target;

/// What is to be pushed.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The image: a name, an id, or the beginning of an id.
    pub image: String,
    /// The names that it gets, each in the registry that it says.
    pub names: Vec<Reference>,
    /// Of a multi-platform image only these; all when empty.
    pub platforms: Vec<Platform>,
    /// How layers are compressed that were built here.
    pub compression: LayerCompression,
    /// The names' tags are not touched: the image is there under its digest only.
    pub by_digest: bool,
    /// The image itself, where the store does not have it.
    pub lazy: Option<LazyImage>,
}

/// A pushed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name.
    pub name: Reference,
    /// What it stands for in the registry now: a manifest or an index.
    pub root: Descriptor,
    /// The image that it is: the configurations, one a platform.
    pub configs: Vec<Digest>,
    /// Nothing was missing: the registry had all of it under that name.
    pub was_there: bool,
}

impl Engine {
    /// Brings an image to registries, and remembers its digest there.
    pub fn push(
        &self,
        request: &PushRequest,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<Vec<Pushed>, PushError> {
        let (records, is_index) = self.records_to_push(request)?;
        let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
        for name in &request.names {
            repositories.entry(name.name()).or_default().push(name);
        }
        let mut pushed = Vec::with_capacity(request.names.len());
        for (repository, names) in &repositories {
            let mut task = reporter.announce(format!("pushing {repository}"), Vec::new(), None);
            task.start();
            let job = Push {
                engine: self,
                request,
                records: &records,
                is_index,
                task: &task,
                cancel,
            };
            let result = job.run(names);
            // What was begun for this push and turned out not to be needed.
            self.streams.clear();
            match result {
                Ok(done) => pushed.extend(done),
                Err(_) if cancel.is_raised() => {
                    task.canceled();
                    return Err(PushError::Canceled);
                }
                Err(error) => {
                    task.failed(chain(&error));
                    return Err(error);
                }
            }
            task.done();
        }
        Ok(pushed)
    }

    /// The images, with the platform under which an index lists each, and whether there is an index.
    fn records_to_push(
        &self,
        request: &PushRequest,
    ) -> Result<(Vec<(Platform, ImageRecord)>, bool), PushError> {
        if let Some(lazy) = &request.lazy {
            return Ok((lazy.images.clone(), lazy.is_index));
        }
        let not_found = || kiln_cache::Error::ImageNotFound(request.image.clone());
        let found = self.find_image(&request.image)?.ok_or_else(not_found)?;
        let entries: Vec<(Platform, Digest)> = match &found {
            Found::Image(record) => vec![(record.platform.clone(), record.id)],
            Found::Index(index) => {
                let entry = |image: &kiln_cache::IndexedImage| (image.platform.clone(), image.image);
                index.images.iter().map(entry).collect()
            }
        };
        let mut chosen = Vec::new();
        for wanted in &request.platforms {
            let entry = entries.iter().find(|(listed, _)| listed.matches(wanted));
            let missing = || PushError::NoPlatform {
                image: request.image.clone(),
                wanted: Box::new(wanted.clone()),
                available: found.platforms(),
            };
            chosen.push(entry.cloned().ok_or_else(missing)?);
        }
        if request.platforms.is_empty() {
            chosen = entries;
        }
        let is_index = matches!(found, Found::Index(_)) && request.platforms.len() != 1;
        let mut records = Vec::with_capacity(chosen.len());
        for (platform, id) in chosen {
            // Somebody may be removing it just now.
            records.push((platform, self.hold_image(&id)?.ok_or_else(not_found)?));
        }
        Ok((records, is_index))
    }
}

/// A push to one repository.
struct Push<'a> {
    engine: &'a Engine,
    request: &'a PushRequest,
    records: &'a [(Platform, ImageRecord)],
    is_index: bool,
    task: &'a Task,
    cancel: &'a Cancel,
}

impl Push<'_> {
    fn run(&self, names: &[&Reference]) -> Result<Vec<Pushed>, PushError> {
        let Some(first) = names.first() else {
            return Ok(Vec::new());
        };
        let mut missing = names.to_vec();
        let mut there = Vec::new();
        // Where all blobs are known, so are the digests: then one question may be all that it takes.
        if let Some(blobs) = self.known_blobs()? {
            let documents = Documents::new(self, &blobs)?;
            missing = Vec::new();
            for name in names {
                let name_there = self.name_in_registry(name, &documents.root);
                if self.client()?.is_pushed(&name_there, &documents.root.digest)? {
                    there.push(self.pushed(name, &documents, true));
                } else {
                    missing.push(name);
                }
            }
            if missing.is_empty() {
                self.remember(first, &documents.root)?;
                return Ok(there);
            }
        }
        let target = Target::new(self, first)?;
        let blobs = target.send_layers()?;
        let documents = Documents::new(self, &blobs)?;
        target.send_documents(&documents)?;
        for name in missing {
            let name_there = self.name_in_registry(name, &documents.root);
            target.send_root(&name_there, &documents)?;
            there.push(self.pushed(name, &documents, false));
        }
        self.remember(first, &documents.root)?;
        Ok(there)
    }

    fn client(&self) -> Result<&kiln_registry::Client, PushError> {
        Ok(self.engine.images.client()?)
    }

    /// The name as the registry is told: with a tag, or with nothing but the digest.
    fn name_in_registry(&self, name: &Reference, root: &Descriptor) -> Reference {
        let by_digest = self.request.by_digest || name.tag.is_none();
        Reference {
            tag: if by_digest { None } else { name.tag.clone() },
            digest: by_digest.then_some(root.digest),
            ..name.clone()
        }
    }

    fn pushed(&self, name: &Reference, documents: &Documents, was_there: bool) -> Pushed {
        Pushed {
            name: name.clone(),
            root: documents.root.clone(),
            configs: self.records.iter().map(|(_, record)| record.config).collect(),
            was_there,
        }
    }

    /// The blobs of all layers, if the store knows them all.
    fn known_blobs(&self) -> Result<Option<Blobs>, PushError> {
        let mut blobs = Blobs::new();
        for layer in self.records.iter().flat_map(|(_, record)| &record.layers) {
            if let Some(lazy) = self.lazy(&layer.layer) {
                blobs.insert(layer.layer.clone(), lazy.blob.clone());
                continue;
            }
            self.engine.layer_blobs.adopt(layer)?;
            let known = self
                .engine
                .layer_blobs
                .known(&layer.layer, self.request.compression)?;
            match known {
                Some(blob) => drop(blobs.insert(layer.layer.clone(), blob)),
                None => return Ok(None),
            }
        }
        Ok(Some(blobs))
    }

    /// What is known of a layer that is not in the store.
    fn lazy(&self, id: &LayerId) -> Option<&LazyLayer> {
        self.request.lazy.as_ref()?.layers.get(id)
    }

    /// The images are known by this digest in this repository now.
    fn remember(&self, name: &Reference, root: &Descriptor) -> Result<(), PushError> {
        if self.request.lazy.is_some() {
            return Ok(());
        }
        let repo_digest = format!("{}@{}", name.familiar_name(), root.digest);
        for (_, record) in self.records {
            // One that was removed meanwhile stays removed.
            let is_gone = self.engine.store.images().by_id(&record.id)?.is_none();
            if is_gone || record.repo_digests.contains(&repo_digest) {
                continue;
            }
            let mut record = record.clone();
            record.repo_digests.push(repo_digest.clone());
            self.engine.store.images().put(&record, &[])?;
        }
        Ok(())
    }
}
