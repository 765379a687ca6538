//! sled behind the [`Index`] trait.
//!
//! One tree. Keys and values, integers big-endian in keys and little-endian in values:
//!
//! ```text
//! "o" upper " " lower  check 4 bytes: some record has the layer `upper` right above the layer `lower`
//! "r" layer record     check 4 bytes: the layer is the topmost of the record's result
//! "d" list record      check 4 bytes: the record refers to the list of files
//! "m" "count"          number of all other keys u64, number of batches so far u64, check 4 bytes
//! ```
//!
//! A layer is the text of its id: none is the beginning of another. Lists and keys of records are 32 bytes.
//!
//! `check` is the beginning of the blake3 of key and value: sled's own checksums do not cover what a power loss
//! does. The counts are written in the same atomic batch as what they count, so they tell whether a tree that was
//! not closed cleanly is whole. The number of batches is in `index/state` too, written after the flush: a tree
//! that has fewer was rolled back to an earlier state (a torn log, a copy), however whole it looks.

use std::{collections::BTreeMap, fs::File, path::Path, sync::Arc};

use kiln_image::Digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Entry, Index, rebuild};
use crate::{Key, LayerId, Stamp, error, files, remove, sealed, store::Shared};

/// Earlier versions wrote `index`, beside a tree of other things.
const KIND: &str = "index-state";
const VERSION: u32 = 1;
const COUNT: &[u8] = b"mcount";
const STANDING: &[u8] = b"o";
const RECORD: &[u8] = b"r";
const REFERRING: &[u8] = b"d";
const DAMAGED: &str = "an entry is damaged";
/// sled never gives space back. A tree this many times larger than its content is built anew.
const BLOAT: u64 = 8;
const BLOAT_FREE: u64 = 16 << 20;
/// What sled keeps in memory: it is opened beside builds, which are not to notice.
const CACHE: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    clean: bool,
    /// How many batches the database had taken in, at least.
    batches: u64,
    stamp: Stamp,
}

/// The database, held by this process.
#[derive(Debug)]
pub(super) struct Sled {
    db: sled::Db,
    count: u64,
    batches: u64,
    shared: Arc<Shared>,
    _lock: File,
}

impl Sled {
    /// Opens it, or makes it from the files of the store. `None` if another process has it.
    pub(super) fn open(shared: &Arc<Shared>, stop: &dyn Fn() -> bool) -> Result<Option<Self>, String> {
        let folder = shared.root.join("index");
        std::fs::create_dir_all(&folder).map_err(text)?;
        let path = folder.join("lock");
        let lock = files::open_lock(&path).map_err(text)?;
        if !files::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &path).map_err(text)? {
            return Ok(None);
        }
        let doubt = folder.join("doubt");
        // After a power loss, or with no word of how it ended, there is nothing to go by.
        let state = read_state(&folder).filter(|state| shared.durability.trusted(&state.stamp));
        write_state(shared, false, state.as_ref().map_or(0, |state| state.batches))?;
        if let Some(state) = state
            && folder.join("sled").exists()
            && !doubt.exists()
            && let Ok(mut sled) = open_sled(&folder, shared, &lock)
            && super::guarded(|| sled.whole(&state)).unwrap_or(false)
            && !sled.bloated()
        {
            return rebuild::go_on(shared, sled, stop);
        }
        // Away with it, by rename first: a half-deleted one must not be opened.
        discard(&folder, shared)?;
        rebuild::begin(shared)?;
        files::remove_if_there(&doubt).map_err(text)?;
        let mut sled = open_sled(&folder, shared, &lock)?;
        sled.apply(&[])?;
        rebuild::go_on(shared, sled, stop)
    }

    /// Whether everything in it can be believed. After a clean end only the counts are read.
    fn whole(&mut self, state: &StateFile) -> Result<bool, String> {
        let Some(counts) = self.read(COUNT)? else {
            return Ok(false);
        };
        (self.count, self.batches) = (number(&counts, 0), number(&counts, 8));
        if state.clean || self.batches < state.batches {
            return Ok(self.batches == state.batches);
        }
        let mut found = 0;
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(text)?;
            if open_value(&key, &value).is_none() {
                return Ok(false);
            }
            found += u64::from(&*key != COUNT);
        }
        Ok(found == self.count)
    }

    fn bloated(&self) -> bool {
        // A key and its value are about 120 bytes.
        let logical = self.count.saturating_mul(120);
        let size = folder_size(&self.shared.root.join("index/sled"));
        size > BLOAT_FREE.saturating_add(logical.saturating_mul(BLOAT))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Some(value) = self.db.get(key).map_err(text)? else {
            return Ok(None);
        };
        open_value(key, &value)
            .map(|value| Some(value.to_vec()))
            .ok_or_else(|| DAMAGED.to_owned())
    }

    /// Gives what follows `prefix` in each key to `take`, which says `None` to what it cannot read.
    fn scan(&self, prefix: &[u8], mut take: impl FnMut(&[u8]) -> Option<()>) -> Result<(), String> {
        for pair in self.db.scan_prefix(prefix) {
            let (key, value) = pair.map_err(text)?;
            open_value(&key, &value)
                .and_then(|_| take(key.get(prefix.len()..)?))
                .ok_or(DAMAGED)?;
        }
        Ok(())
    }

    /// The keys of records that follow `prefix`.
    fn keys_after(&self, prefix: &[u8]) -> Result<Vec<Key>, String> {
        let mut found = Vec::new();
        self.scan(prefix, |key| {
            found.push(Key(key.try_into().ok()?));
            Some(())
        })?;
        Ok(found)
    }

    /// Everything that begins with `prefix` is to go, also what would be there only now.
    fn remove(&self, prefix: &[u8], changes: &mut BTreeMap<Vec<u8>, bool>) -> Result<(), String> {
        for key in self.db.scan_prefix(prefix).keys() {
            changes.insert(key.map_err(text)?.to_vec(), false);
        }
        let new = changes.range_mut(prefix.to_vec()..);
        for (_, stays) in new.take_while(|(key, _)| key.starts_with(prefix)) {
            *stays = false;
        }
        Ok(())
    }
}

impl Index for Sled {
    fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        // What is to be there, or not to be there.
        let mut changes: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Record { key, output, lists } => {
                    for (lower, upper) in output.iter().zip(output.iter().skip(1)) {
                        changes.insert(joined(STANDING, upper, format!(" {lower}").as_bytes()), true);
                    }
                    if let Some(top) = output.last() {
                        changes.insert(joined(RECORD, top, key.as_bytes()), true);
                    }
                    for list in lists {
                        changes.insert([REFERRING, list.as_bytes(), key.as_bytes()].concat(), true);
                    }
                }
                // It may have been made again since; the files know.
                Entry::LayerGone(layer) => {
                    if !self.shared.root.join("layers").join(layer.as_str()).exists() {
                        for kind in [STANDING, RECORD] {
                            self.remove(&joined(kind, layer, &[]), &mut changes)?;
                        }
                    }
                }
                Entry::ListGone(list) => {
                    if !self.shared.root.join("blobs/sha256").join(list.hex()).exists() {
                        self.remove(&[REFERRING, list.as_bytes()].concat(), &mut changes)?;
                    }
                }
            }
        }
        let mut count = self.count;
        let mut batch = sled::Batch::default();
        for (key, stays) in changes {
            let there = self.db.contains_key(&key).map_err(text)?;
            if stays && !there {
                count += 1;
                let value = seal_value(&key, &[]);
                batch.insert(key, value);
            } else if !stays && there {
                count -= 1;
                batch.remove(key);
            }
        }
        let batches = self.batches + 1;
        let mut counts = count.to_le_bytes().to_vec();
        counts.extend_from_slice(&batches.to_le_bytes());
        batch.insert(COUNT, seal_value(COUNT, &counts));
        self.db.apply_batch(batch).map_err(text)?;
        self.db.flush().map_err(text)?;
        (self.count, self.batches) = (count, batches);
        write_state(&self.shared, false, batches)
    }

    fn standing(&self) -> Result<Vec<(LayerId, LayerId)>, String> {
        let mut found = Vec::new();
        self.scan(STANDING, |pair| {
            let (upper, lower) = std::str::from_utf8(pair).ok()?.split_once(' ')?;
            found.push((upper.parse().ok()?, lower.parse().ok()?));
            Some(())
        })?;
        Ok(found)
    }

    fn records_of(&self, layer: &LayerId) -> Result<Vec<Key>, String> {
        self.keys_after(&joined(RECORD, layer, &[]))
    }

    fn referring_to(&self, list: &Digest) -> Result<Vec<Key>, String> {
        self.keys_after(&[REFERRING, list.as_bytes()].concat())
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        self.db.flush().map_err(text)?;
        let Self {
            db,
            shared,
            batches,
            _lock,
            ..
        } = *self;
        drop(db);
        // Only now: the database's own writes end with its drop.
        write_state(&shared, true, batches)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn joined(kind: &[u8], layer: &LayerId, rest: &[u8]) -> Vec<u8> {
    [kind, layer.as_str().as_bytes(), rest].concat()
}

fn number(value: &[u8], at: usize) -> u64 {
    let bytes = value.get(at..).and_then(<[u8]>::first_chunk::<8>);
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn check(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&(key.len() as u64).to_le_bytes())
        .update(key)
        .update(value);
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

fn seal_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = value.to_vec();
    out.extend_from_slice(&check(key, value));
    out
}

fn open_value<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = sealed.split_last_chunk::<4>()?;
    (check(key, value) == *sum).then_some(value)
}

fn read_state(folder: &Path) -> Option<StateFile> {
    sealed::open(KIND, VERSION, &std::fs::read(folder.join("state")).ok()?).ok()
}

/// The stamp is of now: a sync that covers it covers everything that was flushed before.
fn write_state(shared: &Shared, clean: bool, batches: u64) -> Result<(), String> {
    let folder = shared.root.join("index");
    let write = |stamp: &Stamp| {
        let stamp = stamp.clone();
        let beside = folder.join("state.new");
        let bytes = sealed::seal(
            KIND,
            VERSION,
            &StateFile {
                clean,
                batches,
                stamp,
            },
        )?;
        std::fs::write(&beside, bytes).map_err(error::io("write", &beside))?;
        std::fs::rename(&beside, folder.join("state")).map_err(error::io("publish", beside))
    };
    shared.durability.publish_quietly(write).map_err(text)
}

fn open_sled(folder: &Path, shared: &Arc<Shared>, lock: &File) -> Result<Sled, String> {
    let lock = lock.try_clone().map_err(text)?;
    super::guarded(|| {
        let db = sled::Config::new()
            .path(folder.join("sled"))
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .open()
            .map_err(text)?;
        Ok(Sled {
            db,
            count: 0,
            batches: 0,
            shared: Arc::clone(shared),
            _lock: lock,
        })
    })
}

fn discard(folder: &Path, shared: &Shared) -> Result<(), String> {
    let away = shared.temp.path().map_err(text)?;
    match std::fs::rename(folder.join("sled"), &away) {
        // What is left of it is swept later.
        Ok(()) => drop(remove::tree(&away)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(text(error)),
    }
    Ok(())
}

fn folder_size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() {
                folder_size(&entry.path())
            } else {
                meta.len()
            })
        })
        .sum()
}

/// Whether there is something to do that does not come from journals.
pub(super) fn wants_opening(folder: &Path) -> bool {
    let is_there = |name: &str| folder.join(name).exists();
    !is_there("sled")
        || is_there("doubt")
        || is_there(rebuild::FILE)
        || read_state(folder).is_none_or(|state| !state.clean)
}
