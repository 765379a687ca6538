//! A layer's files against its listing: nothing missing, nothing more, every byte and attribute as listed.

use std::{fs::File, os::fd::AsFd, path::Path};

use kiln_tree::{Entry, EntryKind, Listing, TreePath, walk};

use super::Options;
use crate::layers;

/// What is wrong with a layer: all of it, or the first path that differs.
pub(super) enum LayerFlaw {
    Whole(String),
    At(TreePath, String),
}

pub(super) fn check_layer(
    folder: &Path,
    meta: &layers::LayerMeta,
    options: Options,
) -> Result<usize, LayerFlaw> {
    compared_layer(folder, meta, options, false)
}

fn compared_layer(
    folder: &Path,
    meta: &layers::LayerMeta,
    options: Options,
    times: bool,
) -> Result<usize, LayerFlaw> {
    let whole = |reason: String| LayerFlaw::Whole(reason);
    let bytes = std::fs::read(folder.join("listing")).map_err(|error| whole(format!("listing: {error}")))?;
    let listing = Listing::from_bytes(&bytes).map_err(|error| whole(format!("listing: {error}")))?;
    if listing.content_hash() != meta.content {
        return Err(whole("listing is not the one of this layer".to_owned()));
    }
    let diff = File::open(folder.join("diff")).map_err(|error| whole(format!("diff: {error}")))?;
    let found = walk::layer(diff.as_fd()).map_err(|error| whole(format!("diff: {error}")))?;
    let difference = compare(&listing, &found, options)
        .or_else(|| if times { other_time(&listing, &found) } else { None });
    difference.map_or(Ok(listing.len()), |(path, reason)| {
        Err(LayerFlaw::At(path, reason))
    })
}

/// What is wrong with a layer whose files were copied. Their times count, too, to the second: a layer's tar has them.
pub(crate) fn flaw_of_copy(folder: &Path, meta: &layers::LayerMeta, options: Options) -> Option<String> {
    match compared_layer(folder, meta, options, true) {
        Ok(_) => None,
        Err(LayerFlaw::Whole(reason)) => Some(reason),
        Err(LayerFlaw::At(path, reason)) => Some(format!("/{path}: {reason}")),
    }
}

/// The first difference between what should be and what is. Times do not count: they are no content.
fn compare(wanted: &Listing, found: &Listing, options: Options) -> Option<(TreePath, String)> {
    let device = |entry: &&Entry| {
        matches!(
            entry.kind,
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
        )
    };
    let counts = |entry: &&Entry| options.devices || !device(entry);
    let mut wanted = wanted.entries().iter().filter(counts).peekable();
    let mut found = found.entries().iter().filter(counts).peekable();
    loop {
        match (wanted.peek(), found.peek()) {
            (None, None) => return None,
            (Some(wanted), None) => return Some((wanted.path.clone(), "is missing".to_owned())),
            (None, Some(found)) => return Some((found.path.clone(), "should not be there".to_owned())),
            (Some(wanted), Some(found)) if wanted.path < found.path => {
                return Some((wanted.path.clone(), "is missing".to_owned()));
            }
            (Some(wanted), Some(found)) if wanted.path > found.path => {
                return Some((found.path.clone(), "should not be there".to_owned()));
            }
            (Some(wanted), Some(found)) => {
                if let Some(reason) = difference(wanted, found, options) {
                    return Some((wanted.path.clone(), reason));
                }
            }
        }
        wanted.next();
        found.next();
    }
}

/// The first entry with another time. Both lists have the same paths, but for devices that cannot be made.
fn other_time(wanted: &Listing, found: &Listing) -> Option<(TreePath, String)> {
    let counts = |entry: &&Entry| {
        matches!(
            entry.kind,
            EntryKind::File { .. } | EntryKind::Directory { .. } | EntryKind::Symlink { .. }
        )
    };
    let pairs = wanted.entries().iter().filter(counts);
    pairs
        .zip(found.entries().iter().filter(counts))
        .find(|(wanted, found)| wanted.mtime.secs != found.mtime.secs)
        .map(|(wanted, _)| (wanted.path.clone(), "has another time".to_owned()))
}

fn difference(wanted: &Entry, found: &Entry, options: Options) -> Option<String> {
    if wanted.kind != found.kind {
        return Some(match (&wanted.kind, &found.kind) {
            (EntryKind::File { size: wanted, .. }, EntryKind::File { size: found, .. })
                if wanted != found =>
            {
                format!("has {found} bytes instead of {wanted}")
            }
            (EntryKind::File { .. }, EntryKind::File { .. }) => "has other bytes".to_owned(),
            (wanted, found) => format!("is {found:?} instead of {wanted:?}"),
        });
    }
    if matches!(wanted.kind, EntryKind::Whiteout) {
        return None;
    }
    if wanted.mode != found.mode && !matches!(wanted.kind, EntryKind::Symlink { .. }) {
        return Some(format!(
            "has mode {:04o} instead of {:04o}",
            found.mode, wanted.mode
        ));
    }
    if options.owners && (wanted.uid, wanted.gid) != (found.uid, found.gid) {
        return Some(format!(
            "is of {}:{} instead of {}:{}",
            found.uid, found.gid, wanted.uid, wanted.gid
        ));
    }
    (wanted.xattrs != found.xattrs).then(|| "has other extended attributes".to_owned())
}
