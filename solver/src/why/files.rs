//! The files behind a key's hash: what a copy or a mount selected, kept as a small blob beside the record, so that
//! a later build can tell *which* file changed.
//!
//! ```text
//! "kiln-files 1\n"  depth u16
//! entry: kind u8, mode u16, other attributes u32, content 8 bytes, shared u16, length u16, bytes
//! ```
//!
//! Integers are little-endian; a path is the first `shared` bytes of the one before it and `bytes`. Hashes are cut:
//! they answer *which*, never *whether*. A list is bounded by [`MOST_ENTRIES`]: of larger selections, what is deeper
//! than `depth` is folded into the directory there, level by level, so that two lists folded to different depths
//! can still be compared at the smaller one.

use std::collections::BTreeMap;

use kiln_tree::copy;
use kiln_tree::{ContentHash, ContentHasher, Entry, EntryKind, Listing, TreePath};
use serde::{Deserialize, Serialize};

use crate::select::Selection;

const MAGIC: &[u8] = b"kiln-files 1\n";
/// No more entries are kept of one selection: some 200 KiB.
const MOST_ENTRIES: usize = 8192;
/// Longer paths no system call takes; a list that has one was not written here.
const LONGEST_PATH: usize = 4096;
/// As many changes are named.
const NAMED: usize = 5;
/// A directory with everything below it.
const FOLDED: u8 = b'*';

/// What is remembered of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    kind: u8,
    mode: u16,
    /// Owner and extended attributes.
    attributes: u32,
    content: [u8; 8],
}

/// The files of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileList {
    /// Nothing is deeper than this.
    depth: u16,
    entries: BTreeMap<TreePath, Facts>,
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// Its content, its kind, or what a link points at.
    Changed,
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// Nothing but its permissions.
    Mode,
    /// Nothing but its owner or extended attributes.
    Attributes,
}

/// How two selections differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Files with other content.
    pub changed: usize,
    /// Files that are new.
    pub added: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Files with other permissions alone.
    pub mode: usize,
    /// Files with another owner or other extended attributes alone.
    pub attributes: usize,
    /// The first of them by name, each kind in its turn.
    pub first: Vec<(String, FileChange)>,
}

impl FileList {
    /// The files that `selection` means in `listing`.
    pub(crate) fn of(selection: &Selection, listing: &Listing) -> Self {
        let mut entries = BTreeMap::new();
        for place in &selection.places {
            if !place.is_dir {
                if let Some(entry) = listing.get_linked(&place.path) {
                    entries.insert(place.written.clone(), Facts::of(entry, listing));
                }
                continue;
            }
            if place.filter.is_none()
                && let Some(entry) = listing.get(&place.path)
            {
                entries.insert(place.path.clone(), Facts::of(entry, listing));
            }
            let left_out = |path: &TreePath| {
                let filter = place.filter.as_ref();
                filter.is_some_and(|filter| !filter.takes(path.as_bytes()))
            };
            for taken in copy::taken(listing, &place.path, Some(&left_out)) {
                entries.insert(taken.entry.path.clone(), Facts::of(taken.entry, listing));
            }
        }
        let mut list = Self {
            depth: u16::MAX,
            entries,
        };
        list.bound(MOST_ENTRIES);
        list
    }

    /// Folds until no more than `most` entries are left.
    fn bound(&mut self, most: usize) {
        if self.entries.len() <= most {
            return;
        }
        let mut by_depth: BTreeMap<usize, usize> = BTreeMap::new();
        for path in self.entries.keys() {
            *by_depth.entry(depth(path)).or_default() += 1;
        }
        let mut left = 0;
        let fits = by_depth.iter().take_while(|(_, count)| {
            left += **count;
            left <= most
        });
        // The level below the first that does not fit; where even the first does not, the root alone is left.
        let level = fits.last().map_or(0, |(depth, _)| *depth);
        self.fold(u16::try_from(level).unwrap_or(u16::MAX - 1));
    }

    /// Folds everything that is deeper than `to` into its directory there.
    fn fold(&mut self, to: u16) {
        if self.depth <= to {
            return;
        }
        self.depth = to;
        let deepest = self.entries.keys().map(depth).max().unwrap_or(0);
        for level in (usize::from(to) + 1..=deepest).rev() {
            let mut kept = BTreeMap::new();
            let mut folded: BTreeMap<TreePath, ContentHasher> = BTreeMap::new();
            for (path, facts) in std::mem::take(&mut self.entries) {
                if depth(&path) < level {
                    kept.insert(path, facts);
                    continue;
                }
                let hasher = folded.entry(path.parent().unwrap_or_default()).or_default();
                hasher.update(path.file_name().unwrap_or_default());
                hasher.update(b"\0");
                hasher.update(&facts.bytes());
            }
            for (path, hasher) in folded {
                // A directory that is only on the way has no facts of its own.
                let facts = kept.entry(path).or_insert(Facts {
                    kind: FOLDED,
                    mode: 0,
                    attributes: 0,
                    content: [0; 8],
                });
                facts.kind = FOLDED;
                facts.content = cut(&hasher.finish().0);
            }
            self.entries = kept;
        }
    }

    /// The bytes that are kept.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.depth.to_le_bytes());
        let mut before: &[u8] = b"";
        for (path, facts) in &self.entries {
            bytes.extend_from_slice(&facts.bytes());
            let path = path.as_bytes();
            let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            for number in [shared, path.len() - shared] {
                // Paths are shorter than 64 KiB.
                bytes.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes());
            }
            bytes.extend_from_slice(&path[shared..]);
            before = path;
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (depth, mut rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
        let mut entries = BTreeMap::new();
        let mut path: Vec<u8> = Vec::new();
        while !rest.is_empty() {
            let (facts, after) = rest.split_first_chunk::<15>()?;
            let (numbers, after) = after.split_first_chunk::<4>()?;
            let shared = usize::from(u16::from_le_bytes([numbers[0], numbers[1]]));
            let length = usize::from(u16::from_le_bytes([numbers[2], numbers[3]]));
            let fits = shared <= path.len() && length <= after.len() && shared + length <= LONGEST_PATH;
            if !fits || entries.len() == MOST_ENTRIES {
                return None;
            }
            let (own, after) = after.split_at(length);
            path.truncate(shared);
            path.extend_from_slice(own);
            entries.insert(TreePath::new(path.as_slice()).ok()?, Facts::from_bytes(facts)?);
            rest = after;
        }
        Some(Self {
            depth: u16::from_le_bytes(*depth),
            entries,
        })
    }

    /// What changed from `before` to `self`.
    pub(crate) fn changes_since(mut self, mut before: Self) -> FileChanges {
        let depth = self.depth.min(before.depth);
        self.fold(depth);
        before.fold(depth);
        let mut found: BTreeMap<FileChange, Vec<TreePath>> = BTreeMap::new();
        for (path, facts) in &self.entries {
            let change = before
                .entries
                .get(path)
                .map_or(Some(FileChange::Added), |old| facts.change(old));
            if let Some(change) = change {
                found.entry(change).or_default().push(path.clone());
            }
        }
        let gone = before
            .entries
            .keys()
            .filter(|path| !self.entries.contains_key(path));
        let gone: Vec<TreePath> = gone.cloned().collect();
        if !gone.is_empty() {
            found.insert(FileChange::Removed, gone);
        }
        let count = |change| found.get(&change).map_or(0, Vec::len);
        let mut changes = FileChanges {
            changed: count(FileChange::Changed),
            added: count(FileChange::Added),
            removed: count(FileChange::Removed),
            mode: count(FileChange::Mode),
            attributes: count(FileChange::Attributes),
            first: Vec::new(),
        };
        let named = found.into_iter().flat_map(|(change, paths)| {
            let shown = paths.into_iter().take(NAMED);
            shown.map(move |path| (shown_path(&path), change))
        });
        changes.first.extend(named);
        changes
    }
}

/// The root of a selection is written as users write it.
fn shown_path(path: &TreePath) -> String {
    if path.is_root() {
        ".".to_owned()
    } else {
        path.to_string()
    }
}

fn depth(path: &TreePath) -> usize {
    if path.is_root() {
        0
    } else {
        path.components().count()
    }
}

/// The first bytes of a hash.
fn cut(hash: &[u8; 32]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    short
}

impl Facts {
    fn of(entry: &Entry, listing: &Listing) -> Self {
        let (kind, content) = match &entry.kind {
            EntryKind::File { content, .. } => (b'f', cut(&content.0)),
            EntryKind::HardLink { .. } => match listing.get_linked(&entry.path).map(|file| &file.kind) {
                Some(EntryKind::File { content, .. }) => (b'f', cut(&content.0)),
                _ => (b'h', [0; 8]),
            },
            EntryKind::Directory { .. } => (b'd', [0; 8]),
            EntryKind::Symlink { target } => (b'l', cut(&ContentHash::of(target).0)),
            EntryKind::CharDevice { major, minor } => (b'c', numbers(*major, *minor)),
            EntryKind::BlockDevice { major, minor } => (b'b', numbers(*major, *minor)),
            EntryKind::Fifo => (b'p', [0; 8]),
            EntryKind::Socket => (b's', [0; 8]),
            EntryKind::Whiteout => (b'w', [0; 8]),
        };
        let mut attributes = ContentHasher::new();
        attributes.update(&entry.uid.to_le_bytes());
        attributes.update(&entry.gid.to_le_bytes());
        for (name, value) in &entry.xattrs {
            for text in [name, value] {
                attributes.update(&(text.len() as u64).to_le_bytes());
                attributes.update(text);
            }
        }
        let [a, b, c, d, ..] = attributes.finish().0;
        Self {
            kind,
            mode: (entry.mode & 0o7777) as u16,
            attributes: u32::from_le_bytes([a, b, c, d]),
            content,
        }
    }

    fn bytes(&self) -> [u8; 15] {
        let mut bytes = [0; 15];
        bytes[0] = self.kind;
        bytes[1..3].copy_from_slice(&self.mode.to_le_bytes());
        bytes[3..7].copy_from_slice(&self.attributes.to_le_bytes());
        bytes[7..].copy_from_slice(&self.content);
        bytes
    }

    fn from_bytes(bytes: &[u8; 15]) -> Option<Self> {
        Some(Self {
            kind: bytes[0],
            mode: u16::from_le_bytes([bytes[1], bytes[2]]),
            attributes: u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]),
            content: bytes[7..].try_into().ok()?,
        })
    }

    fn change(&self, before: &Self) -> Option<FileChange> {
        if (self.kind, self.content) != (before.kind, before.content) {
            Some(FileChange::Changed)
        } else if self.mode != before.mode {
            Some(FileChange::Mode)
        } else if self.attributes != before.attributes {
            Some(FileChange::Attributes)
        } else {
            None
        }
    }
}

/// A device's numbers, in place of a content.
fn numbers(major: u32, minor: u32) -> [u8; 8] {
    (u64::from(major) << 32 | u64::from(minor)).to_le_bytes()
}

#[cfg(test)]
mod tests;
