//! Images and their names.
//!
//! `images/ids/<hex of the config's digest>` (kind `image`, version 1) is an [`ImageRecord`];
//! `images/names/<escaped name>` (kind `name`, version 1) points to one. Names are canonical
//! (`docker.io/library/python:3.11-slim`). An image may have any number of names, or none (*dangling*). A name may
//! also point to one image a platform: see [`IndexRecord`].
//!
//! A name is fsynced, because it is what a user was promised, and it is only written after the image's record,
//! layers and blobs are on disk: one sync of the file system covers them all ([`Images::put`] sees to that). Changes
//! take turns under `locks/images`; readers take no lock. Damaged files are set aside and reported, files of a newer
//! version are left alone and not seen.
//!
//! What is kept of an image is in `record`, the files of names are in `names`.

mod indexes;
mod names;
mod record;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use kiln_image::{Digest, Reference};

use crate::{
    Error, Layers, Result, error, files, lease,
    sealed::{self, Flaw},
    store::Shared,
    uses::Place,
};

pub(crate) use indexes::parse_named_index;
pub use indexes::{Found, IndexRecord, IndexedImage, parse_index};
pub(crate) use names::encode_name;
pub use names::parse_name;
use names::{canonical, escape};
pub use record::{ImageLayer, ImageRecord, parse};
pub(crate) use record::{KIND, VERSION, parse_named};
use record::{merge, with_names};

/// What [`Images::remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// The image or index, if it went with its last name, and the images that went with the index.
    pub deleted: Vec<Digest>,
}

/// The images.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    shared: &'a Arc<Shared>,
    layers: &'a Layers,
}

impl<'a> Images<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, layers: &'a Layers) -> Self {
        Self { shared, layers }
    }

    /// Finds an image by name (familiar or canonical), `name@digest`, id, or beginning of an id. Of an index, the
    /// image for this machine, else its first: [`Images::get_for`] asks for another platform.
    pub fn get(&self, text: &str) -> Result<Option<ImageRecord>> {
        self.get_for(text, None)
    }

    /// [`Images::get`], or an error that names what was asked for.
    pub fn require(&self, text: &str) -> Result<ImageRecord> {
        self.get(text)?
            .ok_or_else(|| Error::ImageNotFound(text.to_owned()))
    }

    /// The id behind a name in canonical form: one small file read, for a build that looks at nothing else.
    pub fn id_of_name(&self, canonical: &str) -> Result<Option<Digest>> {
        let path = self.name_path(canonical);
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        match parse_name(&bytes, &escape(canonical)) {
            Ok((name, image)) => Ok((name == canonical).then_some(image)),
            Err(flaw) => {
                self.flawed(&path, flaw);
                Ok(None)
            }
        }
    }

    /// The image with this id, without its names.
    pub fn by_id(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        self.read(id)
    }

    /// From now on nobody deletes what the image is made of, until this process has closed the store. False when the
    /// image is gone by now: then some of it may be, too.
    pub fn hold(&self, record: &ImageRecord) -> Result<bool> {
        let uses = &self.shared.uses;
        for layer in &record.layers {
            uses.hold(Place::of_layer(&layer.layer))?;
        }
        let blobs = record.layers.iter().filter_map(|layer| layer.blob.as_ref());
        for blob in blobs.chain(&record.manifests) {
            uses.hold(Place::of_blob(&blob.digest))?;
        }
        uses.hold(Place::of_blob(&record.config))?;
        Ok(self.id_path(&record.id).exists())
    }

    /// All images, dangling ones too, sorted by id.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            images.extend(self.read(&id)?.map(|record| with_names(record, &names)));
        }
        Ok(images)
    }

    /// Keeps an image and gives it names (canonical). Its layers must be in the store. A name that another image had
    /// moves here. If all is as it should be already, nothing is written.
    ///
    /// The record goes first and is made durable by the same sync as the layers; only then come the names. A power
    /// loss between leaves an image without a name.
    pub fn put(&self, record: &ImageRecord, names: &[String]) -> Result<()> {
        let _turn = lease::short(&self.shared.root, "images")?;
        let there = self.read(&record.id)?;
        let merged = merge(there.as_ref(), record);
        let is_new = there.as_ref() != Some(&merged);
        let mut missing = Vec::new();
        for name in names {
            if self.id_of_name(name)? != Some(record.id) {
                missing.push(name);
            }
        }
        let mut settled = !is_new;
        for layer in &record.layers {
            settled &= self.layers.require(&layer.layer)?.on_disk();
        }
        // What a failing disk did not take is known in memory only.
        settled &= !self.shared.durability.lost_any();
        if !settled {
            let bytes = sealed::seal(KIND, VERSION, &merged)?;
            self.shared
                .temp
                .publish(&bytes, &self.id_path(&record.id), false)?;
            self.shared.durability.sync()?;
        }
        missing
            .into_iter()
            .try_for_each(|name| self.write_name(name, &record.id))
    }

    /// Gives an image or an index one more name (canonical). A name that another image had moves here.
    pub fn tag(&self, id: &Digest, name: &str) -> Result<()> {
        let _turn = lease::short(&self.shared.root, "images")?;
        if self.read(id)?.is_none() && self.read_index(id)?.is_none() {
            return Err(Error::ImageNotFound(id.to_string()));
        }
        self.write_name(name, id)
    }

    /// Takes names (canonical) away from whatever has them: they stand for something that is not kept here. Nothing
    /// else goes: what had its last name is dangling then.
    pub fn untag(&self, names: &[String]) -> Result<()> {
        let _turn = lease::short(&self.shared.root, "images")?;
        let mut any = false;
        for name in names {
            any |= self.id_of_name(name)?.is_some();
            delete(self.name_path(name))?;
        }
        if any {
            files::sync_folder(&self.shared.root.join("images/names"))?;
        }
        Ok(())
    }

    /// `rmi`: by a name, takes the name away, and the image or index too if that was its last one. By an id, takes
    /// it with its one name away; with more names only if `force`. The images of an index go with it, and not before.
    /// Layers stay: they are the cache.
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed> {
        let _turn = lease::short(&self.shared.root, "images")?;
        let names = self.names()?;
        let not_found = || Error::ImageNotFound(text.to_owned());
        let by_name = canonical(text).filter(|name| names.contains_key(name));
        let id = match &by_name {
            Some(name) => names.get(name).copied(),
            None => self.resolve(text, &names)?,
        }
        .ok_or_else(not_found)?;
        let all: Vec<String> = names
            .iter()
            .filter(|(_, of)| **of == id)
            .map(|(name, _)| name.clone())
            .collect();
        let untagged = match by_name {
            Some(name) => vec![name],
            None if all.len() > 1 && !force => return Err(Error::ImageHasNames { id, names: all }),
            None => all.clone(),
        };
        let last = untagged.len() == all.len();
        let index = self.read_index(&id)?;
        let listed = if index.is_none() && last {
            self.indexes_of(&id)?
        } else {
            Vec::new()
        };
        if let (Some(index), []) = (listed.first(), untagged.as_slice()) {
            return Err(Error::ImageInIndex { id, index: *index });
        }
        for name in &untagged {
            delete(self.name_path(name))?;
        }
        let mut removed = Removed {
            untagged,
            deleted: Vec::new(),
        };
        match index {
            Some(index) if last => self.remove_index(&index, &mut removed)?,
            None if last && listed.is_empty() => {
                delete(self.id_path(&id))?;
                removed.deleted.push(id);
            }
            _ => {}
        }
        files::sync_folder(&self.shared.root.join("images/names"))?;
        Ok(removed)
    }

    /// All names and the images that they point to.
    pub fn names(&self) -> Result<BTreeMap<String, Digest>> {
        let folder = self.shared.root.join("images/names");
        let mut names = BTreeMap::new();
        for file in files::names(&folder)? {
            let path = folder.join(&file);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            match parse_name(&bytes, &file) {
                Ok((name, image)) => drop(names.insert(name, image)),
                Err(flaw) => self.flawed(&path, flaw),
            }
        }
        Ok(names)
    }

    /// The ids of all images, as far as the files' names go.
    pub fn ids(&self) -> Result<Vec<Digest>> {
        files::digests(&self.shared.root.join("images/ids"))
    }

    pub(crate) fn id_path(&self, id: &Digest) -> PathBuf {
        self.shared.root.join("images/ids").join(id.hex())
    }

    pub(crate) fn name_path(&self, name: &str) -> PathBuf {
        self.shared.root.join("images/names").join(escape(name))
    }

    fn resolve(&self, text: &str, names: &BTreeMap<String, Digest>) -> Result<Option<Digest>> {
        if let Ok(id) = text.parse::<Digest>() {
            return Ok(Some(id));
        }
        if let Ok(reference) = Reference::parse(text) {
            if let Some(digest) = reference.digest {
                let known = self.by_repo_digest(&reference, &digest)?;
                return Ok(known.first().map(|record| record.id));
            }
            if let Some(id) = names.get(&reference.to_string()) {
                return Ok(Some(*id));
            }
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty()
            || !prefix
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Ok(None);
        }
        let fits: Vec<Digest> = self
            .ids()?
            .into_iter()
            .chain(self.index_ids()?)
            .filter(|id| id.hex().starts_with(prefix))
            .collect();
        match fits.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            _ => Err(Error::AmbiguousImage {
                prefix: prefix.to_owned(),
                ids: fits,
            }),
        }
    }

    /// The images that were pulled or pushed under `name@digest`: several when the digest is that of an index.
    fn by_repo_digest(&self, reference: &Reference, digest: &Digest) -> Result<Vec<ImageRecord>> {
        let wanted = [reference.name(), reference.familiar_name()].map(|name| format!("{name}@{digest}"));
        let mut found = Vec::new();
        for id in self.ids()? {
            let record = self.read(&id)?;
            found.extend(
                record.filter(|record| record.repo_digests.iter().any(|known| wanted.contains(known))),
            );
        }
        Ok(found)
    }

    fn write_name(&self, name: &str, id: &Digest) -> Result<()> {
        if self.id_of_name(name)? == Some(*id) {
            return Ok(());
        }
        let bytes = encode_name(name, id)?;
        self.shared.temp.publish(&bytes, &self.name_path(name), true)
    }

    fn read(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let path = self.id_path(id);
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        Ok(self.usable(&path, parse_named(&bytes, id)))
    }

    /// What was read of the file at `path`, unless it has a flaw.
    fn usable<T>(&self, path: &std::path::Path, read: Result<T, Flaw>) -> Option<T> {
        read.map_err(|flaw| self.flawed(path, flaw)).ok()
    }

    fn flawed(&self, path: &std::path::Path, flaw: Flaw) {
        if let Flaw::Damaged(reason) = flaw {
            let warning = self.shared.set_aside(path, reason);
            self.shared.warn(warning);
        }
    }
}

fn delete(path: PathBuf) -> Result<()> {
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(error::io("delete", path)(source))
        }
        _ => Ok(()),
    }
}
