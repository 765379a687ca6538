//! The memory of file hashes of build contexts: `(path, dev, ino, size, mtime, ctime)` → content hash.
//!
//! One file a context, `hashes/<blake3 of the canonical path of its root>`, all integers little-endian:
//!
//! ```text
//! header   "KILNHASH"  version u32 = 1  count u32  epoch u64  boot id, 64 bytes, zero-padded
//! entries  count × 96 bytes, sorted by path hash:
//!          path hash u64, dev u64, ino u64, size u64, mtime secs i64, ctime secs i64,
//!          mtime nanos u32, ctime nanos u32, age u32, zero u32, content hash 32 bytes
//! trailer  blake3 of all before, 32 bytes
//! ```
//!
//! It is read with one read and searched as it is. A file of another version, a damaged one, or one whose stamp
//! is not trusted counts as empty: the next save replaces it. The last writer wins; what the other one learned is
//! learned again. Entries that 32 saves in a row did not use are dropped.
//!
//! **Which entries are kept.** A file that changes again within the tick of its filesystem's clock keeps size
//! and times. So an entry is kept only if the file's last change, the later of mtime and ctime, lies at least one
//! *granularity* before the memory was opened, which is before the walk looked at any file. Granularity is
//! 100 ms for a filesystem that shows fractions of a second in ctime (which no program can set), and 2 s for
//! others. A younger file is hashed again next time, as Git does with "racily clean" entries.
//! The path only finds the entry; its 64-bit hash may collide without harm, since device, inode, size, and times
//! must be equal too.

use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use kiln_tree::{
    ContentHash, Timestamp, TreePath,
    walk::{HashMemory, StatKey},
};

use crate::{BootId, Result, Stamp, error, files, sealed::Flaw, store::Shared};

const MAGIC: &[u8; 8] = b"KILNHASH";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 4 + 8 + BOOT;
const BOOT: usize = 64;
const ENTRY: usize = 96;
const TRAILER: usize = 32;
const MAX_AGE: u32 = 32;
/// Entries beyond this are not kept: 96 MB of memory is enough for any context.
const MAX_ENTRIES: usize = 1_000_000;

const FINE: Duration = Duration::from_millis(100);
const COARSE: Duration = Duration::from_secs(2);

/// The memories of all contexts.
#[derive(Debug, Clone, Copy)]
pub struct Hashes<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Hashes<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The memory of the context at `root`; empty when there is none yet. To be opened before the walk begins.
    pub fn open(&self, root: &Path) -> Result<FileHashes> {
        let opened = SystemTime::now();
        let canonical = std::fs::canonicalize(root).map_err(error::io("resolve", root))?;
        let mut name = blake3::Hasher::new_derive_key("kiln context hashes of files without attributes");
        let name = name.update(canonical.as_os_str().as_bytes()).finalize().to_hex();
        let path = self.shared.root.join("hashes").join(name.as_str());
        let table = match files::read_opt(&path)? {
            Some(bytes) => Table::parse(bytes),
            None => Ok(Table::default()),
        };
        let table = match table {
            Ok(table)
                if table
                    .stamp
                    .as_ref()
                    .is_none_or(|stamp| self.shared.durability.trusted(stamp)) =>
            {
                table
            }
            Ok(_) | Err(Flaw::Newer(_)) => Table::default(),
            Err(Flaw::Damaged(reason)) => {
                self.shared.warn(self.shared.set_aside(&path, reason));
                Table::default()
            }
        };
        let used = (0..table.len()).map(|_| AtomicBool::new(false)).collect();
        Ok(FileHashes {
            shared: Arc::clone(self.shared),
            path,
            opened,
            table,
            used,
            learned: Mutex::default(),
        })
    }
}

/// The memory of one context. Threads may share it.
#[derive(Debug)]
pub struct FileHashes {
    shared: Arc<Shared>,
    path: PathBuf,
    opened: SystemTime,
    table: Table,
    used: Vec<AtomicBool>,
    learned: Mutex<HashMap<u64, Remembered>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    key: StatKey,
    content: ContentHash,
    age: u32,
}

impl HashMemory for FileHashes {
    fn recall(&self, path: &TreePath, key: &StatKey) -> Option<ContentHash> {
        let (at, content) = self.table.find(path_hash(path), key)?;
        self.used[at].store(true, Ordering::Relaxed);
        Some(content)
    }

    /// Every walk of a context reads attributes, and the name of the file (see [`Hashes::open`]) keeps memories of
    /// programs for which this did not hold apart.
    fn implies_no_xattrs(&self) -> bool {
        true
    }

    fn remember(&self, path: &TreePath, key: &StatKey, content: ContentHash) {
        if settled(key, self.opened) {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.insert(
                path_hash(path),
                Remembered {
                    key: *key,
                    content,
                    age: 0,
                },
            );
        }
    }
}

impl FileHashes {
    /// How many files are remembered from before.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is remembered from before.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the memory if something was learned; returns whether it did. May be called while walks go on.
    pub fn save(&self) -> Result<bool> {
        let learned = self
            .learned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if learned.is_empty() {
            return Ok(false);
        }
        let mut all: Vec<(u64, Remembered)> = Vec::with_capacity(self.table.len() + learned.len());
        for at in 0..self.table.len() {
            let (hash, mut entry) = self.table.entry(at);
            entry.age = if self.used[at].load(Ordering::Relaxed) {
                0
            } else {
                entry.age.saturating_add(1)
            };
            if entry.age <= MAX_AGE && !learned.contains_key(&hash) {
                all.push((hash, entry));
            }
        }
        all.extend(learned);
        if all.len() > MAX_ENTRIES {
            all.sort_unstable_by_key(|(_, entry)| entry.age);
            all.truncate(MAX_ENTRIES);
        }
        all.sort_unstable_by_key(|(hash, _)| *hash);
        self.shared
            .publish_stamped(&self.path, |stamp| Ok(encode(&all, stamp)))?;
        Ok(true)
    }
}

/// Whether a later change of the file is sure to show in its times.
fn settled(key: &StatKey, opened: SystemTime) -> bool {
    let granularity = if key.ctime.nanos == 0 { COARSE } else { FINE };
    let Some(limit) = opened.checked_sub(granularity) else {
        return false;
    };
    let Ok(limit) = limit.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let limit = Timestamp {
        secs: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        nanos: limit.subsec_nanos(),
    };
    key.mtime.max(key.ctime) < limit
}

/// FNV-1a with a final mix, so that the top bits are as good as the others.
fn path_hash(path: &TreePath) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in path.as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// The bytes of a file and where the entries of each first 16 bits of the path hash begin.
#[derive(Debug, Default)]
struct Table {
    bytes: Vec<u8>,
    count: usize,
    starts: Vec<u32>,
    stamp: Option<Stamp>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|eight| eight.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

impl Table {
    fn parse(bytes: Vec<u8>) -> Result<Self, Flaw> {
        let damaged = |reason: &str| Flaw::Damaged(reason.to_owned());
        if bytes.len() < HEADER + TRAILER || &bytes[..8] != MAGIC {
            return Err(damaged("no file-hash memory"));
        }
        let body = bytes.len() - TRAILER;
        if blake3::hash(&bytes[..body]).as_bytes()[..] != bytes[body..] {
            return Err(damaged("checksum does not match"));
        }
        match u32_at(&bytes, 8) {
            VERSION => {}
            0 => return Err(damaged("format version 0")),
            newer => return Err(Flaw::Newer(newer)),
        }
        let count = u32_at(&bytes, 12) as usize;
        if count.checked_mul(ENTRY).and_then(|size| size.checked_add(HEADER)) != Some(body) {
            return Err(damaged("not as long as it says"));
        }
        let boot = &bytes[24..HEADER];
        let end = boot.iter().position(|byte| *byte == 0).unwrap_or(BOOT);
        let boot: BootId = std::str::from_utf8(&boot[..end])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("no boot id"))?;
        let stamp = Some(Stamp {
            boot,
            epoch: u64_at(&bytes, 16),
        });
        let mut table = Self {
            bytes,
            count,
            starts: Vec::new(),
            stamp,
        };
        table.starts = table
            .find_starts()
            .ok_or_else(|| damaged("entries are not sorted"))?;
        Ok(table)
    }

    fn find_starts(&self) -> Option<Vec<u32>> {
        let mut starts = Vec::with_capacity(65_537);
        let mut last = 0;
        for at in 0..self.count {
            let hash = self.hash_at(at);
            if hash < last {
                return None;
            }
            last = hash;
            while starts.len() <= (hash >> 48) as usize {
                starts.push(at as u32);
            }
        }
        starts.resize(65_537, self.count as u32);
        Some(starts)
    }

    fn len(&self) -> usize {
        self.count
    }

    fn hash_at(&self, at: usize) -> u64 {
        u64_at(&self.bytes, HEADER + at * ENTRY)
    }

    fn find(&self, hash: u64, key: &StatKey) -> Option<(usize, ContentHash)> {
        let bucket = (hash >> 48) as usize;
        let (from, to) = (*self.starts.get(bucket)?, *self.starts.get(bucket + 1)?);
        (from as usize..to as usize)
            .filter(|at| self.hash_at(*at) == hash)
            .map(|at| (at, self.entry(at).1))
            .find(|(_, entry)| entry.key == *key)
            .map(|(at, entry)| (at, entry.content))
    }

    fn entry(&self, at: usize) -> (u64, Remembered) {
        let start = HEADER + at * ENTRY;
        let bytes = self.bytes.get(start..start + ENTRY).unwrap_or(&[0; ENTRY]);
        let time = |secs: usize, nanos: usize| Timestamp {
            secs: u64_at(bytes, secs).cast_signed(),
            nanos: u32_at(bytes, nanos),
        };
        let mut content = [0; 32];
        content.copy_from_slice(&bytes[64..96]);
        let key = StatKey {
            dev: u64_at(bytes, 8),
            ino: u64_at(bytes, 16),
            size: u64_at(bytes, 24),
            mtime: time(32, 48),
            ctime: time(40, 52),
        };
        (
            u64_at(bytes, 0),
            Remembered {
                key,
                content: ContentHash(content),
                age: u32_at(bytes, 56),
            },
        )
    }
}

fn encode(entries: &[(u64, Remembered)], stamp: &Stamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + entries.len() * ENTRY + TRAILER);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&stamp.epoch.to_le_bytes());
    out.extend_from_slice(stamp.boot.as_str().as_bytes());
    out.resize(HEADER, 0);
    for (hash, entry) in entries {
        let key = &entry.key;
        let words = [
            *hash,
            key.dev,
            key.ino,
            key.size,
            key.mtime.secs.cast_unsigned(),
            key.ctime.secs.cast_unsigned(),
        ];
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [key.mtime.nanos, key.ctime.nanos, entry.age, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&entry.content.0);
    }
    let sum = blake3::hash(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

/// Parses the bytes of a memory file and looks at every entry; the number of entries. Never panics, whatever the
/// bytes are; for fuzzing and for `verify`.
pub fn parse(bytes: Vec<u8>) -> Result<usize, Flaw> {
    let table = Table::parse(bytes)?;
    for at in 0..table.len() {
        let (hash, entry) = table.entry(at);
        if table.find(hash, &entry.key).is_none() {
            return Err(Flaw::Damaged("an entry cannot be found".to_owned()));
        }
    }
    Ok(table.len())
}

#[cfg(test)]
pub(crate) mod tests;
