//! What of the source goes where below the destination directory.

use std::collections::HashMap;

use super::{CopyError, CopyRequest};
use crate::{Entry, EntryKind, Listing, TreePath};

/// One entry to write.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub source: &'a Entry,
    pub kind: ItemKind<'a>,
    /// Where, below the destination directory.
    pub dest: TreePath,
}

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum ItemKind<'a> {
    /// A copy of the entry; for a hard link whose first name is not copied, of the file's kind.
    Copy(&'a EntryKind),
    /// Another name of an earlier item.
    Link(usize),
}

/// Everything that is copied of the directory `source_dir`, without itself; parents come before children.
pub(super) fn contents<'a>(
    request: &CopyRequest<'a>,
    source_dir: &TreePath,
    dest: &TreePath,
) -> Result<Vec<Item<'a>>, CopyError> {
    let listing = request.source.listing();
    let mut chosen: Vec<(&Entry, TreePath)> = Vec::new();
    // From the end: a directory that is excluded is still made when something below it is not.
    for entry in listing.below(source_dir).iter().rev() {
        let Some(relative) = entry.path.strip_prefix(source_dir) else {
            continue;
        };
        let excluded = request.exclude.is_some_and(|exclude| exclude(&relative));
        let needed = || chosen.last().is_some_and(|(_, last)| last.starts_with(&relative));
        if !excluded || (entry.kind.is_dir() && needed()) {
            chosen.push((entry, relative));
        }
    }
    chosen.reverse();
    items(
        listing,
        chosen
            .into_iter()
            .map(|(entry, relative)| (entry, dest.join(&relative))),
    )
}

/// A single entry that is no directory.
pub(super) fn single<'a>(
    listing: &'a Listing,
    source: &'a Entry,
    dest: TreePath,
) -> Result<Vec<Item<'a>>, CopyError> {
    items(listing, [(source, dest)].into_iter())
}

/// Finds out for hard links which name is the file here.
fn items<'a>(
    listing: &'a Listing,
    chosen: impl Iterator<Item = (&'a Entry, TreePath)>,
) -> Result<Vec<Item<'a>>, CopyError> {
    let mut items = Vec::with_capacity(chosen.size_hint().0);
    let mut first_names: HashMap<&TreePath, usize> = HashMap::new();
    for (source, dest) in chosen {
        let at = items.len();
        let kind = match &source.kind {
            EntryKind::HardLink { target } => {
                if let Some(&first) = first_names.get(target) {
                    ItemKind::Link(first)
                } else {
                    first_names.insert(target, at);
                    let missing = || CopyError::NotFound { path: target.clone() };
                    ItemKind::Copy(&listing.get(target).ok_or_else(missing)?.kind)
                }
            }
            EntryKind::File { .. } => {
                first_names.insert(&source.path, at);
                ItemKind::Copy(&source.kind)
            }
            kind => ItemKind::Copy(kind),
        };
        items.push(Item { source, kind, dest });
    }
    Ok(items)
}
