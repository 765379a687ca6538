//! Finding what the sources of a copy or a mount mean in a tree, from its listing alone.
//!
//! A [`Selection`] is a list of places in the tree and a hash over exactly what the step sees of them:
//! that hash goes into the step's key, so that files which no step selects never invalidate anything.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_tree::copy::{self, Taken};
use kiln_tree::glob::{self, Glob, GlobError};
use kiln_tree::{ContentHash, ContentHasher, Entry, EntryKind, Listing, ResolveError, TreePath};

use crate::filter::{self, Filter, FilterError};
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
    /// What of a directory is copied; everything without.
    pub(crate) filter: Option<Arc<Filter>>,
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
        source: GlobError,
    },
    /// A pattern of what is taken or left out is malformed.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The path holds a NUL byte or is too long.
    #[error("\"{pattern}\": {source}")]
    Path {
        /// The path as written.
        pattern: String,
        /// What is wrong with it.
        source: kiln_tree::PathError,
    },
}

/// Selects `sources` in `listing`, less what `exclude` names. A literal path must exist; a wildcard may match nothing,
/// as with Docker.
///
/// An error comes with the source that it concerns.
pub(crate) fn select<'a>(
    listing: &Listing,
    sources: &'a [CopySource],
    exclude: &[String],
) -> Result<Selection, (&'a CopySource, SelectError)> {
    let mut places = Vec::new();
    let mut hasher = ContentHasher::new();
    for source in sources {
        for place in places_of(listing, source, exclude).map_err(|error| (source, error))? {
            add_to_hash(&mut hasher, listing, &place);
            places.push(place);
        }
    }
    Ok(Selection {
        places,
        hash: hasher.finish(),
    })
}

/// The places that one source means.
fn places_of(listing: &Listing, source: &CopySource, exclude: &[String]) -> Result<Vec<Place>, SelectError> {
    let pattern = || source.pattern.clone();
    let path = TreePath::clean(source.pattern.as_bytes()).map_err(|source| SelectError::Path {
        pattern: pattern(),
        source,
    })?;
    let filter = Filter::new(source, exclude)?.map(Arc::new);
    let matched = if glob::is_pattern(path.as_bytes()) {
        expand(listing, &path).map_err(|source| SelectError::Pattern {
            pattern: pattern(),
            source,
        })?
    } else {
        vec![path]
    };
    let mut places = Vec::with_capacity(matched.len());
    for path in matched {
        let excluded = filter
            .as_ref()
            .is_some_and(|filter| filter.excludes(path.file_name().unwrap_or_default()));
        // A wildcard for directories passes over everything else.
        let passes_over = source.below.is_some() && glob::has_wildcards(&source.pattern);
        let mut place = match place(listing, &path) {
            // What leads nowhere is no directory.
            Err(_) if excluded || passes_over => continue,
            place => place.map_err(|error| SelectError::Resolve { path, error })?,
        };
        if place.is_dir {
            place.filter.clone_from(&filter);
        } else if excluded || source.below.is_some() {
            // Nothing is below a file.
            continue;
        }
        places.push(place);
    }
    expect_below(listing, source, &places)?;
    Ok(places)
}

/// Something has to be there of what a source without wildcards names below a directory.
fn expect_below(listing: &Listing, source: &CopySource, places: &[Place]) -> Result<(), SelectError> {
    let Some(below) = source.below.as_deref().filter(|_| filter::is_literal(source)) else {
        return Ok(());
    };
    let takes = |place: &Place, entry: &Entry| {
        let relative = entry.path.strip_prefix(&place.path);
        let filter = place.filter.as_ref();
        relative.is_some_and(|path| filter.is_none_or(|filter| filter.takes(path.as_bytes())))
    };
    let is_there = |place: &Place| listing.below(&place.path).iter().any(|entry| takes(place, entry));
    if below.is_empty() || places.iter().any(is_there) {
        return Ok(());
    }
    let path = format!("{}/{below}", source.pattern);
    let path = TreePath::clean(path.as_bytes()).map_err(|error| SelectError::Path {
        pattern: path,
        source: error,
    })?;
    let error = ResolveError::NotFound { path: path.clone() };
    Err(SelectError::Resolve { path, error })
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
        filter: None,
    })
}

/// The paths that match `pattern`, in the listing's order. Symlinks are followed before the first wildcard, not
/// after it, as in Docker.
fn expand(listing: &Listing, pattern: &TreePath) -> Result<Vec<TreePath>, GlobError> {
    let components: Vec<&[u8]> = pattern.components().collect();
    let literal = components
        .iter()
        .take_while(|component| !glob::is_pattern(component))
        .count();
    let (prefix, rest) = components.split_at(literal);
    // Refused even where nothing is there to be matched.
    let rest: Vec<Glob> = rest.iter().map(Glob::new).collect::<Result<_, _>>()?;
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
                if component.matches(child.path.file_name().unwrap_or_default()) {
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
            hasher.update(looks(entry).as_bytes());
        }
        return;
    }
    if let Some(filter) = &place.filter {
        // The directory's own looks reach the destination as little as its name.
        hasher.update(b"filtered\0");
        let left_out = |path: &TreePath| !filter.takes(path.as_bytes());
        let taken = copy::taken(listing, &place.path, Some(&left_out));
        hasher.update(relocate(listing, &taken).content_hash().as_bytes());
        return;
    }
    hasher.update(b"directory\0");
    if let Some(entry) = listing.get(&place.path) {
        hasher.update(looks(entry).as_bytes());
    }
    if place.path.is_root() {
        hasher.update(listing.content_hash().as_bytes());
        return;
    }
    let below = relocate(listing, &copy::taken(listing, &place.path, None));
    hasher.update(below.content_hash().as_bytes());
}

/// The hash of everything of an entry but its path and its times.
fn looks(entry: &Entry) -> ContentHash {
    let entry = Entry {
        path: TreePath::root(),
        ..entry.clone()
    };
    Listing::from_entries(vec![entry]).content_hash()
}

/// What a copy takes, with paths relative to the copied directory. Hard links whose first name is not taken become
/// files.
fn relocate(listing: &Listing, taken: &[Taken<'_>]) -> Listing {
    let mut first_names: HashMap<&TreePath, TreePath> = HashMap::new();
    if taken
        .iter()
        .any(|taken| matches!(taken.entry.kind, EntryKind::HardLink { .. }))
    {
        let files = taken
            .iter()
            .filter(|taken| matches!(taken.entry.kind, EntryKind::File { .. }));
        first_names.extend(files.map(|taken| (&taken.entry.path, taken.relative.clone())));
    }
    let mut entries = Vec::with_capacity(taken.len());
    for Taken { entry, relative, .. } in taken {
        let kind = match &entry.kind {
            EntryKind::HardLink { target } => {
                if let Some(first) = first_names.get(target) {
                    EntryKind::HardLink {
                        target: first.clone(),
                    }
                } else {
                    first_names.insert(target, relative.clone());
                    let file = listing.get_linked(&entry.path);
                    file.map_or_else(|| entry.kind.clone(), |file| file.kind.clone())
                }
            }
            kind => kind.clone(),
        };
        entries.push(Entry {
            path: relative.clone(),
            kind,
            ..(*entry).clone()
        });
    }
    Listing::from_entries(entries)
}

#[cfg(test)]
mod tests;
