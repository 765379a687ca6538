//! A walk in two halves: first what is there, then the hashes of those files that matter.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rayon::prelude::*;
use rustix::fs::OFlags;

use super::HashMemory;
use super::file::Reader;
use super::scan::{Detail, Found};
use crate::error::io_error;
use crate::root::{FileType, open_dir_beneath};
use crate::{ContentHash, Entry, EntryKind, Listing, Result, TreePath};

/// Files of one directory that one task hashes.
const CHUNK: usize = 64;

/// With at most so many files and bytes, waking rayon's threads takes longer than reading on the calling thread,
/// above all when the files' hashes are remembered.
const SMALL_FILES: usize = 512;
const SMALL_BYTES: u64 = 8 << 20;

/// What a walk saw before any file was read. Made by [`survey`](super::survey).
#[derive(Debug)]
pub struct Survey {
    pub(super) found: Vec<Found>,
    pub(super) overlay: bool,
    pub(super) xattrs: bool,
}

impl Survey {
    /// The paths that were found, in order, each with whether it is a directory.
    pub fn paths(&self) -> impl Iterator<Item = (&TreePath, bool)> {
        self.found
            .iter()
            .map(|found| (&found.path, found.metadata.is_dir()))
    }

    /// The symbolic links among them, in order, each with its text.
    pub fn symlinks(&self) -> impl Iterator<Item = (&TreePath, &[u8])> {
        self.found.iter().filter_map(|found| match &found.detail {
            Detail::Target(target) => Some((&found.path, target.as_slice())),
            _ => None,
        })
    }

    /// The second half of [`plain`](super::plain): hashes the files among the paths that `select` wants and lists
    /// only what it wants, together with the directories above. `dir` is the directory that was surveyed.
    pub fn hash(
        mut self,
        dir: BorrowedFd<'_>,
        select: &(dyn Fn(&TreePath) -> bool + Sync),
        memory: &dyn HashMemory,
    ) -> Result<Listing> {
        self.found = selected(self.found, select);
        let links = hard_links(&self.found);
        let reader = Reader {
            memory,
            xattrs: self.xattrs,
            overlay: self.overlay,
        };
        let mut entries: Vec<Entry> = self.found.iter().map(entry).collect();
        for (at, state) in hash_files(dir, &self.found, &links, reader)? {
            let entry = &mut entries[at];
            entry.kind = if state.marks.whiteout && state.metadata.size == 0 {
                EntryKind::Whiteout
            } else {
                EntryKind::File {
                    size: state.metadata.size,
                    content: state.content,
                }
            };
            entry.mode = state.metadata.mode;
            entry.uid = state.metadata.uid;
            entry.gid = state.metadata.gid;
            entry.mtime = state.metadata.mtime;
            entry.xattrs = state.xattrs;
        }
        for (at, first) in links {
            // The first name may have changed while it was read; all names are the same file.
            let Entry {
                path,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
                ..
            } = entries[first].clone();
            let kind = EntryKind::HardLink { target: path };
            let path = std::mem::take(&mut entries[at].path);
            entries[at] = Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            };
        }
        Ok(Listing::from_entries(entries))
    }
}

/// What `select` wants, and the directories above.
fn selected(found: Vec<Found>, select: &(dyn Fn(&TreePath) -> bool + Sync)) -> Vec<Found> {
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for next in found.into_iter().rev() {
        let above = || kept.last().is_some_and(|last| last.path.starts_with(&next.path));
        if above() || select(&next.path) {
            kept.push(next);
        }
    }
    kept.reverse();
    kept
}

/// Further names of files: index of each, and index of the first name.
fn hard_links(found: &[Found]) -> HashMap<usize, usize> {
    let mut first_names = HashMap::new();
    let mut links = HashMap::new();
    for (at, found) in found.iter().enumerate() {
        let metadata = &found.metadata;
        if metadata.file_type == FileType::File && metadata.nlink > 1 {
            let first = *first_names.entry((metadata.dev, metadata.ino)).or_insert(at);
            if first != at {
                links.insert(at, first);
            }
        }
    }
    links
}

/// Looks at all regular files, each once, in parallel.
fn hash_files(
    dir: BorrowedFd<'_>,
    found: &[Found],
    links: &HashMap<usize, usize>,
    reader: Reader<'_>,
) -> Result<Vec<(usize, super::file::FileState)>> {
    let is_file = |at: &usize| found[*at].metadata.file_type == FileType::File && !links.contains_key(at);
    // Together by directory, so that each is opened once a task.
    let mut by_dir: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for at in (0..found.len()).filter(is_file) {
        by_dir.entry(parent_of(&found[at].path)).or_default().push(at);
    }
    let tasks: Vec<(&[u8], &[usize])> = by_dir
        .iter()
        .flat_map(|(parent, files)| files.chunks(CHUNK).map(|files| (*parent, files)))
        .collect();
    let look_at = |(parent, files): (&[u8], &[usize])| {
        let dir = open_dir_beneath(dir, parent, OFlags::PATH).map_err(io_error("open directory", parent))?;
        let look = |&at: &usize| {
            let Found { path, metadata, .. } = &found[at];
            let name = path.file_name().unwrap_or_default();
            Ok((at, reader.file(dir.as_fd(), name, path, *metadata)?))
        };
        files.iter().map(look).collect()
    };
    let files = || tasks.iter().flat_map(|(_, files)| files.iter());
    let is_small = files().count() <= SMALL_FILES
        && files().map(|&at| found[at].metadata.size).sum::<u64>() <= SMALL_BYTES;
    let states: Result<Vec<Vec<_>>> = if is_small {
        tasks.into_iter().map(look_at).collect()
    } else {
        tasks.into_par_iter().map(look_at).collect()
    };
    Ok(states?.into_iter().flatten().collect())
}

fn parent_of(path: &TreePath) -> &[u8] {
    let path = path.as_bytes();
    path.iter()
        .rposition(|&b| b == b'/')
        .map_or(b"", |slash| &path[..slash])
}

/// The entry of what was found; for a regular file, as far as it is known before it is read.
fn entry(found: &Found) -> Entry {
    let Found {
        path,
        metadata,
        detail,
        xattrs,
        ..
    } = found;
    let (major, minor) = metadata.device;
    let kind = match (metadata.file_type, detail) {
        (_, Detail::Whiteout) => EntryKind::Whiteout,
        (FileType::Directory, detail) => EntryKind::Directory {
            opaque: *detail == Detail::Opaque,
        },
        (FileType::Symlink, Detail::Target(target)) => EntryKind::Symlink {
            target: target.clone(),
        },
        (FileType::CharDevice, _) => EntryKind::CharDevice { major, minor },
        (FileType::BlockDevice, _) => EntryKind::BlockDevice { major, minor },
        (FileType::Fifo, _) => EntryKind::Fifo,
        (FileType::Socket, _) => EntryKind::Socket,
        (FileType::File | FileType::Symlink, _) => EntryKind::File {
            size: metadata.size,
            content: ContentHash([0; 32]),
        },
    };
    Entry {
        path: path.clone(),
        kind,
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        xattrs: xattrs.clone(),
    }
}
