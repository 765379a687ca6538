//! Images for several platforms under one name.
//!
//! `images/indexes/<hex>` (kind `image-index`, version 1) is an [`IndexRecord`]: which image of the store a name
//! stands for on which platform. Its id is the digest of that list, so it says as much as the ids of its images and,
//! like those, does not depend on how layers are compressed when they leave the store. A name's file points to an
//! index as it points to an image.
//!
//! The images of an index have records of their own; they go with the last index that lists them, unless they have
//! a name too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use kiln_image::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use super::{ImageRecord, Images, Removed, delete, with_names};
use crate::{
    Error, Result, error, files, lease,
    sealed::{self, Flaw},
};

pub(crate) const KIND: &str = "image-index";
pub(crate) const VERSION: u32 = 1;

/// An image of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedImage {
    /// The image's id.
    pub image: Digest,
    /// For which platform it is listed.
    pub platform: Platform,
}

/// One image a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Its id: the digest of the list.
    pub id: Digest,
    /// Its images, in the order in which they were asked for.
    pub images: Vec<IndexedImage>,
    /// Its names. Not in the file of the index: filled in from the names.
    #[serde(skip)]
    pub names: Vec<String>,
}

/// What a name or an id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// One image.
    Image(Box<ImageRecord>),
    /// One image a platform.
    Index(IndexRecord),
}

impl Found {
    /// The id of the image or of the index.
    pub fn id(&self) -> Digest {
        match self {
            Self::Image(record) => record.id,
            Self::Index(index) => index.id,
        }
    }

    /// Its names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Image(record) => &record.names,
            Self::Index(index) => &index.names,
        }
    }

    /// The platforms that there is an image for.
    pub fn platforms(&self) -> Vec<Platform> {
        match self {
            Self::Image(record) => vec![record.platform.clone()],
            Self::Index(index) => index.platforms().cloned().collect(),
        }
    }
}

impl IndexRecord {
    /// The index of these images.
    pub fn new(images: Vec<IndexedImage>) -> Self {
        Self {
            id: id_of(&images),
            images,
            names: Vec::new(),
        }
    }

    /// The platforms, in order.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.images.iter().map(|entry| &entry.platform)
    }

    /// The best image for `wanted`: one for that platform, or for one whose programs run there, too.
    pub fn select(&self, wanted: &Platform) -> Option<&IndexedImage> {
        wanted
            .fallbacks()
            .iter()
            .find_map(|platform| self.images.iter().find(|entry| entry.platform.matches(platform)))
    }
}

fn id_of(images: &[IndexedImage]) -> Digest {
    // Only a map with keys that are no strings could fail.
    Digest::sha256_of(&serde_json::to_vec(images).unwrap_or_default())
}

/// Parses the bytes of an index's file. Never panics, whatever the bytes are; for fuzzing and for tools.
pub fn parse_index(bytes: &[u8]) -> Result<IndexRecord, Flaw> {
    let record: IndexRecord = sealed::open(KIND, VERSION, bytes)?;
    if record.images.is_empty() {
        return Err(Flaw::Damaged("lists no image".to_owned()));
    }
    if record.id == id_of(&record.images) {
        Ok(record)
    } else {
        Err(Flaw::Damaged("is not the index of its images".to_owned()))
    }
}

/// The same of a file that is named for `id`.
pub(crate) fn parse_named_index(bytes: &[u8], id: &Digest) -> Result<IndexRecord, Flaw> {
    let record = parse_index(bytes)?;
    if record.id == *id {
        Ok(record)
    } else {
        Err(Flaw::Damaged(format!("is the record of index {}", record.id)))
    }
}

impl Images<'_> {
    /// Finds an image or an index by name, `name@digest`, id, or beginning of an id. The images that were pulled for
    /// several platforms by one digest are an index, too, although no file of the store has it.
    pub fn find(&self, text: &str) -> Result<Option<Found>> {
        let names = self.names()?;
        if let Ok(reference) = Reference::parse(text)
            && let Some(digest) = reference.digest
            && let several = self.by_repo_digest(&reference, &digest)?
            && several.len() > 1
        {
            let images = several.into_iter().map(|record| IndexedImage {
                image: record.id,
                platform: record.platform,
            });
            return Ok(Some(Found::Index(IndexRecord::new(images.collect()))));
        }
        match self.resolve(text, &names)? {
            Some(id) => self.found(&id, &names),
            None => Ok(None),
        }
    }

    /// The image behind `text` for a platform: the best of an index, and a single image if it runs there. With
    /// `None`, a single image whatever it is for, and the best of an index for this machine, else its first.
    pub fn get_for(&self, text: &str, platform: Option<&Platform>) -> Result<Option<ImageRecord>> {
        match self.find(text)? {
            Some(found) => self.pick(found, platform),
            None => Ok(None),
        }
    }

    /// [`Images::get_for`] of what was found already. The record has the names of its index.
    pub fn pick(&self, found: Found, platform: Option<&Platform>) -> Result<Option<ImageRecord>> {
        let index = match found {
            Found::Image(record) => {
                let fits = platform.is_none_or(|platform| record.platform.satisfies(platform));
                return Ok(fits.then_some(*record));
            }
            Found::Index(index) => index,
        };
        let entry = match platform {
            Some(platform) => index.select(platform),
            None => index.select(&Platform::host()).or(index.images.first()),
        };
        let Some(entry) = entry else { return Ok(None) };
        let record = self.read(&entry.image)?;
        Ok(record.map(|record| ImageRecord {
            names: index.names,
            ..record
        }))
    }

    /// All indexes, those without a name too, sorted by id.
    pub fn indexes(&self) -> Result<Vec<IndexRecord>> {
        let names = self.names()?;
        let mut indexes = Vec::new();
        for id in self.index_ids()? {
            let index = self.read_index(&id)?;
            indexes.extend(index.map(|index| named(index, &names)));
        }
        Ok(indexes)
    }

    /// Keeps an index and gives it names (canonical). Its images must be in the store; that they are on disk was
    /// their own [`Images::put`]'s business. A name that something else had moves here.
    pub fn put_index(&self, index: &IndexRecord, names: &[String]) -> Result<()> {
        let _turn = lease::short(&self.shared.root, "images")?;
        self.write_index(index, names)
    }

    /// Keeps an image that a name stands for on one platform, as a pull does: images that the name has for other
    /// platforms stay, as far as `stays` says so. With nothing to stay this is [`Images::put`].
    pub fn join(&self, record: &ImageRecord, name: &str, stays: impl Fn(&Platform) -> bool) -> Result<()> {
        // Its layers are made durable here, before the name can point to it.
        self.put(record, &[])?;
        let _turn = lease::short(&self.shared.root, "images")?;
        let names = self.names()?;
        let before = match names.get(name) {
            Some(id) => self.found(id, &names)?,
            None => None,
        };
        let mut images = match &before {
            None => Vec::new(),
            Some(Found::Image(there)) => vec![IndexedImage {
                image: there.id,
                platform: there.platform.clone(),
            }],
            Some(Found::Index(index)) => index.images.clone(),
        };
        images.retain(|entry| {
            entry.image == record.id || (!entry.platform.matches(&record.platform) && stays(&entry.platform))
        });
        if !images.iter().any(|entry| entry.image == record.id) {
            images.push(IndexedImage {
                image: record.id,
                platform: record.platform.clone(),
            });
        }
        if images.len() == 1 {
            self.write_name(name, &record.id)?;
        } else {
            self.write_index(&IndexRecord::new(images), &[name.to_owned()])?;
        }
        // The index that this one replaces was never anything but this name's list.
        match before {
            Some(Found::Index(old)) if old.names.len() == 1 && self.id_of_name(name)? != Some(old.id) => {
                delete(self.index_path(&old.id))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn index_path(&self, id: &Digest) -> PathBuf {
        self.shared.root.join("images/indexes").join(id.hex())
    }

    /// The ids of all indexes, as far as the files' names go.
    pub(crate) fn index_ids(&self) -> Result<Vec<Digest>> {
        files::digests(&self.shared.root.join("images/indexes"))
    }

    /// What an id stands for.
    pub(super) fn found(&self, id: &Digest, names: &BTreeMap<String, Digest>) -> Result<Option<Found>> {
        if let Some(record) = self.read(id)? {
            return Ok(Some(Found::Image(Box::new(with_names(record, names)))));
        }
        let index = self.read_index(id)?;
        Ok(index.map(|index| Found::Index(named(index, names))))
    }

    pub(super) fn read_index(&self, id: &Digest) -> Result<Option<IndexRecord>> {
        let path = self.index_path(id);
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        Ok(self.usable(&path, parse_named_index(&bytes, id)))
    }

    fn write_index(&self, index: &IndexRecord, names: &[String]) -> Result<()> {
        for entry in &index.images {
            if self.read(&entry.image)?.is_none() {
                return Err(Error::ImageNotFound(entry.image.to_string()));
            }
        }
        if self.read_index(&index.id)?.is_none() {
            let bytes = sealed::seal(KIND, VERSION, index)?;
            let path = self.index_path(&index.id);
            // Stores of earlier versions do not have the folder.
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(error::io("create", folder))?;
            }
            self.shared.temp.publish(&bytes, &path, true)?;
        }
        names.iter().try_for_each(|name| self.write_name(name, &index.id))
    }

    /// The indexes that list an image.
    pub(super) fn indexes_of(&self, image: &Digest) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for id in self.index_ids()? {
            let index = self.read_index(&id)?;
            if index.is_some_and(|index| index.images.iter().any(|entry| entry.image == *image)) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Takes an index away, and those of its images that nothing else refers to. The names are gone already.
    pub(super) fn remove_index(&self, index: &IndexRecord, removed: &mut Removed) -> Result<()> {
        delete(self.index_path(&index.id))?;
        removed.deleted.push(index.id);
        let named: BTreeSet<Digest> = self.names()?.into_values().collect();
        for entry in &index.images {
            if !named.contains(&entry.image)
                && !removed.deleted.contains(&entry.image)
                && self.indexes_of(&entry.image)?.is_empty()
            {
                delete(self.id_path(&entry.image))?;
                removed.deleted.push(entry.image);
            }
        }
        Ok(())
    }
}

fn named(mut index: IndexRecord, names: &BTreeMap<String, Digest>) -> IndexRecord {
    index.names = names
        .iter()
        .filter(|(_, id)| **id == index.id)
        .map(|(name, _)| name.clone())
        .collect();
    index
}

#[cfg(test)]
mod tests;
