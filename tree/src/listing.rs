//! `Listing`: a whole tree as a sorted list of entries.

mod content;
mod format;
mod merge;
mod resolve;
#[cfg(test)]
pub(crate) mod samples;

pub use content::TreeHasher;
pub use format::FormatError;
pub use resolve::ResolveError;

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

#[cfg(test)]
mod tests {
    use super::Listing;
    use super::samples::{dir, file, link, path};

    fn paths<'a>(entries: impl IntoIterator<Item = &'a crate::Entry>) -> Vec<String> {
        entries.into_iter().map(|entry| entry.path.to_string()).collect()
    }

    fn sample() -> Listing {
        Listing::from_entries(vec![
            file("a-b", "1"),
            file("a/x", "old"),
            dir("a"),
            file("a.b", "2"),
            dir("a/d"),
            file("a/d/deep", "3"),
            link("z", "a/x"),
            file("a/x", "new"),
        ])
    }

    #[test]
    fn entries_below_a_directory_directly_follow_it() {
        assert_eq!(
            paths(sample().entries()),
            ["a", "a/d", "a/d/deep", "a/x", "a-b", "a.b", "z"]
        );
    }

    #[test]
    fn the_last_of_equal_paths_counts() {
        assert_eq!(sample().get(&path("a/x")), Some(&file("a/x", "new")));
    }

    #[test]
    fn lookups() {
        let listing = sample();
        assert_eq!(listing.get(&path("nope")), None);
        assert_eq!(listing.get(&path("")), None);
        assert_eq!(listing.get_linked(&path("z")), Some(&file("a/x", "new")));
        assert_eq!(
            paths(listing.subtree(&path("a"))),
            ["a", "a/d", "a/d/deep", "a/x"]
        );
        assert_eq!(paths(listing.below(&path("a"))), ["a/d", "a/d/deep", "a/x"]);
        assert_eq!(paths(listing.below(&path("a/x"))), [""; 0]);
        assert_eq!(paths(listing.children(&path("a"))), ["a/d", "a/x"]);
        assert_eq!(paths(listing.children(&path(""))), ["a", "a-b", "a.b", "z"]);
        assert_eq!(listing.subtree(&path("")).len(), 7);
    }

    #[test]
    fn an_entry_is_small() {
        // 50,000 entries with their paths stay well below 20 MB.
        assert!(size_of::<crate::Entry>() <= 152, "{}", size_of::<crate::Entry>());
    }
}
