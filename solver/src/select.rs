//! Finding what the sources of a copy or a mount mean in a tree, from its listing alone.
//!
//! A [`Selection`] is a list of places in the tree and a hash over exactly what the step sees of them:
//! that hash goes into the step's key, so that files which no step selects never invalidate anything.

use std::collections::HashMap;

use kiln_tree::{ContentHash, ContentHasher, Entry, EntryKind, Listing, ResolveError, TreePath};

use crate::glob;
use crate::graph::CopySource;

/// What a copy's sources are in one tree.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// The places to copy, in order.
    pub(crate) places: Vec<Place>,
    /// Hash over everything that a copy of these places sees.
    pub(crate) hash: ContentHash,
}

/// One place to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The path as written or matched; its last component names the copy when the destination is a directory.
    pub(crate) written: TreePath,
    /// The place itself, free of symlinks.
    pub(crate) path: TreePath,
    /// Whether it is a directory (whose contents are copied).
    pub(crate) is_dir: bool,
}

/// Why a source cannot be selected.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SelectError {
    /// Nothing is there, or symlinks lead in circles.
    #[error("\"/{path}\": {error}")]
    Resolve {
        /// The path that was looked for.
        path: TreePath,
        /// What of it is missing.
        error: ResolveError,
    },
    /// The wildcard is malformed.
    #[error("\"{pattern}\": {source}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        source: glob::BadPattern,
    },
    /// The path holds a NUL byte or is too long.
    #[error("\"{pattern}\": {source}")]
    Path {
        /// The path as written.
        pattern: String,
        /// What is wrong with it.
        source: kiln_tree::PathError,
    },
}

/// Selects `sources` in `listing`. A literal path must exist; a wildcard may match nothing, as with Docker.
///
/// An error comes with the source that it concerns.
pub(crate) fn select<'a>(
    listing: &Listing,
    sources: &'a [CopySource],
) -> Result<Selection, (&'a CopySource, SelectError)> {
    let mut places = Vec::new();
    let mut hasher = ContentHasher::new();
    for source in sources {
        let path = TreePath::clean(source.pattern.as_bytes()).map_err(|error| {
            (
                source,
                SelectError::Path {
                    pattern: source.pattern.clone(),
                    source: error,
                },
            )
        })?;
        let matched = if glob::is_pattern(path.as_bytes()) {
            expand(listing, &path).map_err(|error| {
                (
                    source,
                    SelectError::Pattern {
                        pattern: source.pattern.clone(),
                        source: error,
                    },
                )
            })?
        } else {
            vec![path]
        };
        for path in matched {
            let place =
                place(listing, &path).map_err(|error| (source, SelectError::Resolve { path, error }))?;
            add_to_hash(&mut hasher, listing, &place);
            places.push(place);
        }
    }
    Ok(Selection {
        places,
        hash: hasher.finish(),
    })
}

/// Selects the one place that a mount shows. `source` is a path, whatever characters it has; symlinks are resolved
/// inside the tree. Unlike with a copy, a file's name does not count: it is seen under the mount's own.
pub(crate) fn select_mounted(listing: &Listing, source: &str) -> Result<Selection, SelectError> {
    let path = TreePath::clean(source.as_bytes()).map_err(|error| SelectError::Path {
        pattern: source.to_owned(),
        source: error,
    })?;
    let place = place(listing, &path).map_err(|error| SelectError::Resolve { path, error })?;
    let unnamed = Place {
        written: TreePath::root(),
        ..place.clone()
    };
    let mut hasher = ContentHasher::new();
    add_to_hash(&mut hasher, listing, &unnamed);
    Ok(Selection {
        places: vec![place],
        hash: hasher.finish(),
    })
}

fn place(listing: &Listing, path: &TreePath) -> Result<Place, ResolveError> {
    let found = listing.resolve(path, true)?;
    let is_dir = found.is_root() || listing.get(&found).is_some_and(|entry| entry.kind.is_dir());
    Ok(Place {
        written: path.clone(),
        path: found,
        is_dir,
    })
}

/// The paths that match `pattern`, in the listing's order. Symlinks are followed before the first wildcard, not
/// after it, as in Docker.
fn expand(listing: &Listing, pattern: &TreePath) -> Result<Vec<TreePath>, glob::BadPattern> {
    let components: Vec<&[u8]> = pattern.components().collect();
    let literal = components
        .iter()
        .take_while(|component| !glob::is_pattern(component))
        .count();
    let (prefix, rest) = components.split_at(literal);
    for component in rest {
        // Refused even where nothing is there to be matched.
        glob::matches(component, b"")?;
    }
    let prefix = TreePath::clean(prefix.join(&b'/')).unwrap_or_default();
    // What is missing before the wildcard matches nothing.
    let Ok(start) = listing.resolve(&prefix, true) else {
        return Ok(Vec::new());
    };
    let mut level = vec![start];
    for component in rest {
        let mut next = Vec::new();
        for parent in &level {
            for child in listing.children(parent) {
                if glob::matches(component, child.path.file_name().unwrap_or_default())? {
                    next.push(child.path.clone());
                }
            }
        }
        level = next;
    }
    Ok(level)
}

/// What a copy sees of `place`: for a file its name and everything but its times; for a directory the same of
/// all that is below, by paths relative to it, since the directory's own name does not reach the destination.
fn add_to_hash(hasher: &mut ContentHasher, listing: &Listing, place: &Place) {
    if !place.is_dir {
        hasher.update(b"file\0");
        let name = place.written.file_name().unwrap_or_default();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        if let Some(entry) = listing.get_linked(&place.path) {
            let entry = Entry {
                path: TreePath::root(),
                ..entry.clone()
            };
            hasher.update(Listing::from_entries(vec![entry]).content_hash().as_bytes());
        }
        return;
    }
    hasher.update(b"directory\0");
    if let Some(entry) = listing.get(&place.path) {
        let entry = Entry {
            path: TreePath::root(),
            ..entry.clone()
        };
        hasher.update(Listing::from_entries(vec![entry]).content_hash().as_bytes());
    }
    if place.path.is_root() {
        hasher.update(listing.content_hash().as_bytes());
        return;
    }
    let below = relocate(listing, &place.path);
    hasher.update(below.content_hash().as_bytes());
}

/// What is below `directory`, with paths relative to it. Hard links whose first name lies outside become files.
fn relocate(listing: &Listing, directory: &TreePath) -> Listing {
    let mut first_names: HashMap<TreePath, TreePath> = HashMap::new();
    let mut entries = Vec::new();
    for entry in listing.below(directory) {
        let Some(path) = entry.path.strip_prefix(directory) else {
            continue;
        };
        let kind = match &entry.kind {
            EntryKind::HardLink { target } => match (target.strip_prefix(directory), first_names.get(target))
            {
                (Some(inside), _) => EntryKind::HardLink { target: inside },
                (None, Some(first)) => EntryKind::HardLink {
                    target: first.clone(),
                },
                (None, None) => {
                    first_names.insert(target.clone(), path.clone());
                    listing
                        .get_linked(&entry.path)
                        .map_or_else(|| entry.kind.clone(), |file| file.kind.clone())
                }
            },
            kind => kind.clone(),
        };
        entries.push(Entry {
            path,
            kind,
            ..entry.clone()
        });
    }
    Listing::from_entries(entries)
}

#[cfg(test)]
mod tests;
