//! sled behind the [`Index`] trait.
//!
//! One tree. Keys and values, integers big-endian in keys and little-endian in values:
//!
//! ```text
//! "u" item          last use u64, check 4 bytes
//! "s" identity 32   time u64, record key 32 bytes, check 4 bytes
//! "m" "count"       number of all other keys u64, number of batches so far u64, check 4 bytes
//! ```
//!
//! `check` is the beginning of the blake3 of key and value: sled's own checksums do not cover what a power loss
//! does. The counts are written in the same atomic batch as what they count, so they tell whether a tree that was
//! not closed cleanly is whole. The number of batches is in `index/state` too, written after the flush: a tree
//! that has fewer was rolled back to an earlier state (a torn log, a copy), however whole it looks.

use std::{collections::BTreeMap, fs::File, path::Path, sync::Arc};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Entry, Index, Item, journal, rebuild};
use crate::{Key, Stamp, error, files, remove, sealed, store::Shared};

const KIND: &str = "index";
const VERSION: u32 = 1;
const COUNT: &[u8] = b"mcount";
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
        // A key and its value are about 100 bytes.
        let logical = self.count.saturating_mul(100);
        let size = folder_size(&self.shared.root.join("index/sled"));
        size > BLOAT_FREE.saturating_add(logical.saturating_mul(BLOAT))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Some(value) = self.db.get(key).map_err(text)? else {
            return Ok(None);
        };
        open_value(key, &value)
            .map(|value| Some(value.to_vec()))
            .ok_or_else(|| "a value is damaged".to_owned())
    }
}

impl Index for Sled {
    fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        // What the batch will hold, so that several entries of one key are judged in order.
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for entry in entries {
            let (key, value, at_ms) = match entry {
                Entry::Used { item, at_ms } => (item_key(item), Some(at_ms.to_le_bytes().to_vec()), *at_ms),
                Entry::Forget { item, at_ms } => (item_key(item), None, *at_ms),
                Entry::Step {
                    identity,
                    record,
                    at_ms,
                } => {
                    let mut value = at_ms.to_le_bytes().to_vec();
                    value.extend_from_slice(record.as_bytes());
                    (step_key(identity), Some(value), *at_ms)
                }
            };
            let there = match changes.get(&key) {
                Some(change) => change.clone(),
                None => self.read(&key)?,
            };
            if there.as_deref().is_none_or(|there| time_of(there) <= at_ms) {
                changes.insert(key, value);
            }
        }
        let mut count = self.count;
        let mut batch = sled::Batch::default();
        for (key, change) in changes {
            let there = self.db.contains_key(&key).map_err(text)?;
            if let Some(value) = change {
                count += u64::from(!there);
                let value = seal_value(&key, &value);
                batch.insert(key, value);
            } else {
                count -= u64::from(there);
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

    fn last_use(&self, item: &Item) -> Result<Option<u64>, String> {
        Ok(self.read(&item_key(item))?.map(|value| time_of(&value)))
    }

    fn nearest(&self, identity: &Key) -> Result<Option<Key>, String> {
        let value = self.read(&step_key(identity))?;
        Ok(value.and_then(|value| value.get(8..)?.try_into().ok()).map(Key))
    }

    fn oldest(&self) -> Result<Vec<(Item, u64)>, String> {
        let mut items = Vec::new();
        for pair in self.db.scan_prefix(b"u") {
            let (key, value) = pair.map_err(text)?;
            let value = open_value(&key, &value).ok_or("a value is damaged")?;
            items.extend(journal::decode_item(&key[1..]).map(|item| (item, time_of(value))));
        }
        items.sort_by_key(|(_, at)| *at);
        Ok(items)
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

fn item_key(item: &Item) -> Vec<u8> {
    let mut key = vec![b'u'];
    journal::encode_item(item, &mut key);
    key
}

fn step_key(identity: &Key) -> Vec<u8> {
    let mut key = vec![b's'];
    key.extend_from_slice(identity.as_bytes());
    key
}

fn time_of(value: &[u8]) -> u64 {
    number(value, 0)
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
    (check(key, value) == *sum && value.len() >= 8).then_some(value)
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
