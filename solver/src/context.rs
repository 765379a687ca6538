//! Local directories that a build may read, and the narrow part of them that it does read.
//!
//! One walk a build looks only where some step's sources can be: the union of all copy sources of a context,
//! less what its ignore file excludes. Everything later works from the [`Listing`] of that walk.

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_tree::walk::{self, HashMemory, PlainOptions, WalkPolicy};
use kiln_tree::{EntryKind, Listing, Root, TreePath};

use crate::narrow::{Narrowed, Want, Wanted};

/// As many walks as a chain of symlinks may need.
const MAX_ROUNDS: u32 = 40;

/// Which paths of a local directory belong to the context, and why not when they do not.
pub trait ContextPolicy: WalkPolicy + Send + fmt::Debug {
    /// Why `path` is excluded, such as `.dockerignore:3 (*.log)`; `None` when it is not.
    fn why_excluded(&self, path: &TreePath) -> Option<String>;
}

/// A local directory by its name in the request.
#[derive(Debug, Clone)]
pub struct LocalContext {
    /// What messages call it, such as `the build context`.
    pub title: String,
    /// The directory.
    pub directory: PathBuf,
    /// Whose the directory is.
    pub kind: LocalKind,
    /// What of it belongs to the context.
    pub policy: Arc<dyn ContextPolicy>,
}

/// Whose a local directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalKind {
    /// The user's. Owners count as 0:0, as a transfer to a builder would leave them.
    Directory,
    /// A layer of the store that was fetched: owners are what they are.
    Stored,
    /// Made for this build out of an archive: owners are those of the archive, and since the directory goes when the
    /// build ends, its file hashes are not remembered.
    Unpacked,
}

/// A context as one build saw it.
#[derive(Debug)]
pub(crate) struct ContextView {
    /// The directory, opened.
    pub(crate) root: Root,
    /// What the build's steps can select.
    pub(crate) listing: Listing,
    /// Bytes of all files in the listing.
    pub(crate) bytes: u64,
}

/// Why a context cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory cannot be opened.
    #[error("failed to open {title} {}", directory.display())]
    Open {
        /// What it is called.
        title: String,
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: kiln_tree::Error,
    },
    /// Something in it cannot be read.
    #[error("failed to read {title} {}", directory.display())]
    Read {
        /// What it is called.
        title: String,
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: kiln_tree::Error,
    },
}

impl LocalContext {
    /// Opens the directory.
    pub(crate) fn open(&self) -> Result<Root, ContextError> {
        Root::open(&self.directory).map_err(|source| ContextError::Open {
            title: self.title.clone(),
            directory: self.directory.clone(),
            source,
        })
    }
}

impl ContextView {
    /// Walks `context`, opened as `root`, where `wants` can select something.
    ///
    /// A selected symlink draws in what it points at, so the walk is repeated until no target is missing; files are
    /// read after that, each once.
    pub(crate) fn read(
        context: &LocalContext,
        root: Root,
        wants: &[Want],
        memory: &dyn HashMemory,
    ) -> Result<Self, ContextError> {
        let failed = |source| ContextError::Read {
            title: context.title.clone(),
            directory: context.directory.clone(),
            source,
        };
        let mut wanted = Wanted::new(wants);
        let mut rounds = 0;
        let survey = loop {
            let narrowed = Narrowed {
                policy: context.policy.as_ref(),
                wanted: &wanted,
            };
            let survey = walk::survey(root.as_fd(), PlainOptions::default(), &narrowed).map_err(failed)?;
            rounds += 1;
            // What a longer chain of links hides is reported as missing.
            if rounds > MAX_ROUNDS || !wanted.follow(&survey) {
                break survey;
            }
        };
        let symlinks = survey.symlinks().map(|(path, _)| path.clone()).collect();
        let select = |path: &TreePath| wanted.selects(path, &symlinks);
        let listing = survey.hash(root.as_fd(), &select, memory).map_err(failed)?;
        let mut bytes = 0;
        let entries = listing
            .into_entries()
            .into_iter()
            .map(|mut entry| {
                if context.kind == LocalKind::Directory {
                    (entry.uid, entry.gid) = (0, 0);
                }
                if let EntryKind::File { size, .. } = entry.kind {
                    bytes += size;
                }
                entry
            })
            .collect();
        Ok(Self {
            root,
            listing: Listing::from_entries(entries),
            bytes,
        })
    }
}

/// Which rule hides `path`, which is there.
pub(crate) fn why_hidden(context: &LocalContext, root: &Root, path: &TreePath) -> Option<String> {
    // What cannot be looked at is not known to be there; the message is about something else then.
    root.lstat(path.as_bytes()).ok()?;
    std::iter::once(path.clone())
        .chain(path.ancestors())
        .find_map(|path| context.policy.why_excluded(&path))
}

/// The names beside `path` that resemble it and are not hidden, for a message about a missing source.
pub(crate) fn similar_names(context: &LocalContext, root: &Root, path: &TreePath) -> Vec<String> {
    let parent = path.parent().unwrap_or_default();
    // A directory that cannot be read has no names to offer.
    let Ok(entries) = root.read_dir(parent.as_bytes()) else {
        return Vec::new();
    };
    let names = entries.into_iter().map(|entry| entry.name);
    let seen = names.filter(|name| {
        parent
            .join_name(name)
            .is_ok_and(|path| context.policy.why_excluded(&path).is_none())
    });
    similar(path.file_name().unwrap_or_default(), seen)
}

/// Up to three of `names` that resemble `wanted`.
pub(crate) fn similar(wanted: &[u8], names: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
    let wanted = String::from_utf8_lossy(wanted).to_lowercase();
    let mut names: Vec<(usize, String)> = names
        .map(|name| String::from_utf8_lossy(name.as_ref()).into_owned())
        .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &wanted), name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.chars().count())
        .collect();
    names.sort();
    names.truncate(3);
    names.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests;
