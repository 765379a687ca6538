//! `Listing`: a whole tree as a sorted list of entries.

mod content;
mod format;
mod merge;

pub use content::TreeHasher;
pub use format::FormatError;

use crate::{ContentHash, Entry, TreePath};

/// All entries of a tree, sorted by path, without its root directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    entries: Vec<Entry>,
}

impl Listing {
    /// A listing of `entries` in any order. Of entries with the same path the last one counts.
    pub fn from_entries(mut entries: Vec<Entry>) -> Self {
        // A stable sort keeps the given order among equal paths.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.reverse();
        entries.dedup_by(|later, earlier| later.path == earlier.path);
        entries.reverse();
        entries.shrink_to_fit();
        Self { entries }
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, to keep.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at `path`. The root has none.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// The entry at `path`; for a hard link, the file that it names.
    pub fn get_linked(&self, path: &TreePath) -> Option<&Entry> {
        let entry = self.get(path)?;
        match &entry.kind {
            crate::EntryKind::HardLink { target } => self.get(target),
            _ => Some(entry),
        }
    }

    /// The entries directly in the directory `path`.
    pub fn children<'a>(&'a self, path: &'a TreePath) -> impl Iterator<Item = &'a Entry> {
        let depth = path.components().count() + 1;
        self.below(path)
            .iter()
            .filter(move |entry| entry.path.components().count() == depth)
    }

    /// The entry at `path` and all below it; everything for the root.
    pub fn subtree(&self, path: &TreePath) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.path < *path);
        let rest = &self.entries[start..];
        let end = rest.partition_point(|entry| entry.path.starts_with(path));
        &rest[..end]
    }

    /// All entries below `path`, without its own.
    pub fn below(&self, path: &TreePath) -> &[Entry] {
        match self.subtree(path) {
            [first, rest @ ..] if first.path == *path => rest,
            all => all,
        }
    }

    /// The identity of the content: everything but timestamps.
    pub fn content_hash(&self) -> ContentHash {
        let mut hasher = TreeHasher::new();
        self.entries.iter().for_each(|entry| hasher.entry(entry));
        hasher.finish()
    }
}
