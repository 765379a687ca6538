//! Cache records: key → layers, one small file each.
//!
//! `records/<first 2 hex digits>/<key>`, kind `record`, version 1, body [`Record`] as JSON. An older or newer
//! reader that does not know the version takes the file for a miss and leaves it alone; a damaged one is moved to
//! `damaged/` and reported. Unknown fields are ignored, so fields may be added within a version; a field that
//! changes what a hit *means* needs a new version. The last writer of a key wins: both wrote a right answer.
//!
//! A record whose layers are not all there, or whose stamp is not trusted, is a miss.

use std::{path::PathBuf, sync::Arc};

use kiln_image::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    IndexHandle, Key, KeyPart, LayerId, Layers, Result, Stamp, Warning, files,
    index::Entry,
    sealed::{self, Flaw},
    store::Shared,
};

const KIND: &str = "record";
const VERSION: u32 = 1;

/// Which kind of key a record is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// Operation and the definition of its inputs.
    Definition,
    /// Operation and the content of its inputs.
    Content,
}

/// The answer to a key: what the step made when it last ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key that it is kept under.
    pub key: Key,
    /// Which kind of key.
    pub kind: RecordKind,
    /// What the key is made of, readable.
    pub parts: Vec<KeyPart>,
    /// The layers of the result, the lowest first.
    pub output: Vec<LayerId>,
    /// The step as the user knows it: `RUN pip install -r requirements.txt`.
    pub step: String,
    /// When the step ended, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long it ran.
    pub duration_ms: u64,
}

impl Record {
    /// The lists of files that it refers to.
    pub(crate) fn lists(&self) -> impl Iterator<Item = Digest> {
        self.parts.iter().filter_map(|part| part.listing)
    }
}

#[derive(Serialize)]
struct StampedRef<'a> {
    #[serde(flatten)]
    record: &'a Record,
    stamp: &'a Stamp,
}

#[derive(Deserialize)]
struct Stamped {
    #[serde(flatten)]
    record: Record,
    stamp: Stamp,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup {
    /// The record; its layers are there.
    Hit(Box<Record>),
    /// Nothing to go by.
    Miss(Miss),
}

/// Why a lookup is a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No such record.
    Absent,
    /// The record is there, its layer is not (any more).
    LayerMissing(LayerId),
    /// It was made in an earlier boot and may not have reached the disk.
    Unsynced,
    /// It was written by a newer program, in a format that this one does not know.
    Newer(u32),
    /// It could not be read, or is damaged and was set aside.
    Damaged(Warning),
}

/// Parses the bytes of a record file. Never panics, whatever the bytes are; for fuzzing and for tools.
pub fn parse(bytes: &[u8]) -> Result<(Record, Stamp), Flaw> {
    let stamped: Stamped = sealed::open(KIND, VERSION, bytes)?;
    Ok((stamped.record, stamped.stamp))
}

/// The bytes of a record file.
pub fn encode(record: &Record, stamp: &Stamp) -> Result<Vec<u8>> {
    sealed::seal(KIND, VERSION, &StampedRef { record, stamp })
}

/// The cache records.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    shared: &'a Arc<Shared>,
    layers: &'a Layers,
    index: &'a IndexHandle,
}

impl<'a> Records<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, layers: &'a Layers, index: &'a IndexHandle) -> Self {
        Self {
            shared,
            layers,
            index,
        }
    }

    /// The record of a key, if it is a hit. What is found damaged goes to [`crate::Store::take_warnings`].
    pub fn get(&self, key: &Key) -> Result<Option<Record>> {
        match self.lookup(key)? {
            Lookup::Hit(record) => Ok(Some(*record)),
            Lookup::Miss(Miss::Damaged(warning)) => {
                self.shared.warn(warning);
                Ok(None)
            }
            Lookup::Miss(_) => Ok(None),
        }
    }

    /// The record of a key, or why there is none.
    pub fn lookup(&self, key: &Key) -> Result<Lookup> {
        let path = self.path(key);
        let bytes = match files::read_opt(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Lookup::Miss(Miss::Absent)),
            Err(error) => {
                let reason = format!("cannot be read: {}", source_text(&error));
                return Ok(Lookup::Miss(Miss::Damaged(Warning {
                    path,
                    reason,
                    moved_to: None,
                })));
            }
        };
        let (record, stamp) = match parse(&bytes) {
            Ok(read) => read,
            Err(Flaw::Newer(version)) => return Ok(Lookup::Miss(Miss::Newer(version))),
            Err(Flaw::Damaged(reason)) => {
                return Ok(Lookup::Miss(Miss::Damaged(self.shared.set_aside(&path, reason))));
            }
        };
        if record.key != *key {
            let warning = self
                .shared
                .set_aside(&path, format!("is the record of key {}", record.key));
            return Ok(Lookup::Miss(Miss::Damaged(warning)));
        }
        if !self.shared.durability.trusted(&stamp) {
            return Ok(Lookup::Miss(Miss::Unsynced));
        }
        for layer in &record.output {
            if self.layers.get(layer)?.is_none() {
                return Ok(Lookup::Miss(Miss::LayerMissing(layer.clone())));
            }
        }
        Ok(Lookup::Hit(Box::new(record)))
    }

    /// The record as it is on disk, whether its layers are there or not; for *why*.
    pub fn peek(&self, key: &Key) -> Result<Option<Record>> {
        let Some(bytes) = files::read_opt(&self.path(key))? else {
            return Ok(None);
        };
        Ok(parse(&bytes)
            .ok()
            .map(|(record, _)| record)
            .filter(|record| record.key == *key))
    }

    /// Keeps a record under its key.
    pub fn put(&self, record: &Record) -> Result<()> {
        // Before it is there, so that the index knows every record that is.
        self.index.note(&Entry::of(record));
        self.shared
            .publish_stamped(&self.path(&record.key), |stamp| encode(record, stamp))
    }

    /// Takes a record out.
    pub fn remove(&self, key: &Key) -> Result<()> {
        files::remove_if_there(&self.path(key))
    }

    /// The keys of all records, good or not.
    pub fn list(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for shard in self.shards()? {
            keys.extend(self.of_shard(&shard)?);
        }
        Ok(keys)
    }

    /// The folders that the records are spread over, in order.
    pub(crate) fn shards(&self) -> Result<Vec<String>> {
        files::names(&self.shared.root.join("records"))
    }

    /// The keys of one of these.
    pub(crate) fn of_shard(&self, shard: &str) -> Result<Vec<Key>> {
        let names = files::names(&self.shared.root.join("records").join(shard))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        let name = key.to_string();
        let mut path = self.shared.root.join("records");
        path.push(&name[..2]);
        path.push(name);
        path
    }
}

/// The innermost reason of an error.
fn source_text(error: &crate::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests;
