//! Where a copy goes, and the directories on the way there.

use std::io::ErrorKind;

use super::plan::{self, Item};
use super::{CopyError, CopyRequest};
use crate::{Entry, EntryKind, Error, Root, Timestamp, TreePath};

/// More symlinks than this in the place of the destination are a loop.
const MAX_SYMLINKS: u32 = 40;

/// The directory below which everything is written, and what.
pub(super) struct Target<'a> {
    pub base: Root,
    pub items: Vec<Item<'a>>,
    /// Directories that were made on the way.
    pub made: Vec<Vec<u8>>,
}

/// Finds source and destination and makes missing directories above.
pub(super) fn prepare<'a>(request: &CopyRequest<'a>, dest: &Root) -> Result<Target<'a>, CopyError> {
    let listing = request.source.listing();
    let source = listing.resolve(&request.source_path, request.follow_source_symlink)?;
    let entry = listing.get(&source);
    let source_is_dir = entry.is_none_or(|entry| entry.kind.is_dir());
    let contents_only = source_is_dir && (request.copy_dir_contents || entry.is_none());

    let mut made = Vec::new();
    let mut path = request.dest.to_vec();
    if request.dest_is_dir || contents_only {
        make_dirs(request, dest, &path, &mut made)?;
    } else {
        make_dirs(request, dest, &split(&path).0, &mut made)?;
    }
    if contents_only {
        let base = dest.sub_root(&path)?;
        let items = plan::contents(request, &source, &TreePath::root())?;
        return Ok(Target { base, items, made });
    }
    // Into a directory that is there, else to the very path.
    if dest.stat_opt(&path)?.is_some_and(|metadata| metadata.is_dir()) {
        path.push(b'/');
        path.extend_from_slice(request.source_path.file_name().unwrap_or_default());
    } else if request.follow_dest_symlink {
        path = follow(dest, path)?;
        make_dirs(request, dest, &split(&path).0, &mut made)?;
    }
    let (parent, name) = split(&path);
    let name = TreePath::new(name).map_err(|_| CopyError::BadDestination {
        dest: shown(request.dest),
    })?;
    let base = dest.sub_root(parent)?;
    let items = match entry {
        Some(directory) if source_is_dir => with_itself(request, directory, &source, &name)?,
        Some(_) if is_excluded(request) => Vec::new(),
        Some(file) => plan::single(listing, file, name)?,
        None => Vec::new(),
    };
    Ok(Target { base, items, made })
}

/// Whether a single file is left out: it is asked by its name.
fn is_excluded(request: &CopyRequest<'_>) -> bool {
    let name = request.source_path.file_name().unwrap_or_default();
    let name = TreePath::root().push_unchecked(name);
    request.exclude.is_some_and(|exclude| exclude(&name))
}

/// A directory and its contents, under the name `name`.
fn with_itself<'a>(
    request: &CopyRequest<'a>,
    directory: &'a Entry,
    source: &TreePath,
    name: &TreePath,
) -> Result<Vec<Item<'a>>, CopyError> {
    let mut items = plan::single(request.source.listing(), directory, name.clone())?;
    items.extend(
        plan::contents(request, source, name)?
            .into_iter()
            .map(|mut item| {
                if let plan::ItemKind::Link(first) = &mut item.kind {
                    // The directory itself is the first item.
                    *first += 1;
                }
                item
            }),
    );
    Ok(items)
}

/// Makes the directory `path` and those above it, with the owner and, if it is octal, the mode of the request.
fn make_dirs(
    request: &CopyRequest<'_>,
    dest: &Root,
    path: &[u8],
    made: &mut Vec<Vec<u8>>,
) -> Result<(), CopyError> {
    let mode = super::ModeChange::of_parents(request.mode.as_ref());
    let owner = request.owner.unwrap_or((0, 0));
    match dest.make_dir_all(path, mode, Some(owner)) {
        Err(Error::Io { source, path, .. }) if source.kind() == ErrorKind::NotADirectory => {
            Err(CopyError::NotADirectory {
                dest: path.to_string_lossy().into_owned(),
            })
        }
        other => {
            made.extend(other?);
            Ok(())
        }
    }
}

/// Where the symlinks at the end of `path` lead, as far as there are any.
fn follow(dest: &Root, mut path: Vec<u8>) -> Result<Vec<u8>, CopyError> {
    for _ in 0..MAX_SYMLINKS {
        match dest.lstat_opt(&path)? {
            Some(metadata) if metadata.file_type == crate::root::FileType::Symlink => {
                let target = dest.read_link(&path)?;
                path = match target.first() {
                    Some(b'/') => target,
                    _ => [&split(&path).0[..], b"/", &target].concat(),
                };
            }
            _ => return Ok(path),
        }
    }
    Err(CopyError::BadDestination { dest: shown(&path) })
}

/// Parent and last component.
fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (path[..slash].to_vec(), path[slash + 1..].to_vec()),
        None => (Vec::new(), path.to_vec()),
    }
}

/// Bytes of a path for a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Sets the times of directories that were made on the way, after everything was written into them.
pub(super) fn clamp_made(request: &CopyRequest<'_>, dest: &Root, made: &[Vec<u8>]) -> Result<(), CopyError> {
    let Some(clamp) = request.clamp_mtime else {
        return Ok(());
    };
    for path in made {
        if dest.lstat(path)?.mtime > clamp {
            dest.set_times(path, clamp)?;
        }
    }
    Ok(())
}

/// The modification time that an entry gets.
pub(super) fn mtime(request: &CopyRequest<'_>, entry: &Entry) -> Timestamp {
    request
        .clamp_mtime
        .map_or(entry.mtime, |clamp| entry.mtime.min(clamp))
}

/// The mode that an entry gets.
pub(super) fn mode(request: &CopyRequest<'_>, entry: &Entry) -> u32 {
    match (&request.mode, &entry.kind) {
        (_, EntryKind::Symlink { .. }) | (None, _) => entry.mode,
        (Some(change), kind) => change.apply(entry.mode, kind.is_dir()),
    }
}
