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
    /// A directory that is made only because something below it is copied.
    pub above: bool,
}

/// An entry that a copy of a directory takes.
#[derive(Debug, Clone)]
pub struct Taken<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// Its path in the copied directory.
    pub relative: TreePath,
    /// It is excluded itself: a directory that is taken only because something below it is.
    pub above: bool,
}

/// What a copy of `directory`, less what `exclude` says, takes of `listing`; parents come before children.
pub fn taken<'a>(
    listing: &'a Listing,
    directory: &TreePath,
    exclude: Option<&super::Exclude<'_>>,
) -> Vec<Taken<'a>> {
    let mut taken: Vec<Taken<'_>> = Vec::new();
    // From the end: a directory that is excluded is still made when something below it is not.
    for entry in listing.below(directory).iter().rev() {
        let Some(relative) = entry.path.strip_prefix(directory) else {
            continue;
        };
        let excluded = exclude.is_some_and(|exclude| exclude(&relative));
        let needed = || {
            taken
                .last()
                .is_some_and(|last| last.relative.starts_with(&relative))
        };
        if !excluded || (entry.kind.is_dir() && needed()) {
            taken.push(Taken {
                entry,
                relative,
                above: excluded,
            });
        }
    }
    taken.reverse();
    taken
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
    let mut taken = taken(listing, source_dir, request.exclude);
    for one in &mut taken {
        one.relative = dest.join(&one.relative);
    }
    items(listing, taken)
}

/// A single entry that is no directory.
pub(super) fn single<'a>(
    listing: &'a Listing,
    source: &'a Entry,
    dest: TreePath,
) -> Result<Vec<Item<'a>>, CopyError> {
    let one = Taken {
        entry: source,
        relative: dest,
        above: false,
    };
    items(listing, vec![one])
}

/// Finds out for hard links which name is the file here. Paths are those of the destination.
fn items<'a>(listing: &'a Listing, taken: Vec<Taken<'a>>) -> Result<Vec<Item<'a>>, CopyError> {
    let mut items = Vec::with_capacity(taken.len());
    let mut first_names: HashMap<&TreePath, usize> = HashMap::new();
    for Taken {
        entry: source,
        relative: dest,
        above,
    } in taken
    {
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
        items.push(Item {
            source,
            kind,
            dest,
            above,
        });
    }
    Ok(items)
}
