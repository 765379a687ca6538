//! Local directories that a build may read, and the narrow part of them that it does read.
//!
//! One walk a build looks only where some step's sources can be: the union of all copy sources of a context,
//! less what its ignore file excludes. Everything later works from the [`Listing`] of that walk.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_tree::walk::{self, Decision, HashMemory, PlainOptions, WalkPolicy};
use kiln_tree::{EntryKind, Listing, Root, TreePath};

use crate::glob;

/// Which paths of a local directory belong to the context, and why not when they do not.
pub trait ContextPolicy: WalkPolicy + Send + fmt::Debug {
    /// Why `path` is excluded, such as `.dockerignore:3 (*.log)`; `None` when it is not.
    fn why_excluded(&self, path: &TreePath) -> Option<String>;
}

/// A local directory by its name in the request.
#[derive(Debug, Clone)]
pub struct LocalContext {
    /// The directory.
    pub directory: PathBuf,
    /// What of it belongs to the context.
    pub policy: Arc<dyn ContextPolicy>,
}

/// A context as one build saw it.
#[derive(Debug)]
pub(crate) struct ContextView {
    /// The directory, opened.
    pub(crate) root: Root,
    /// What the build's steps can select. Owners are 0:0, as a transfer to a builder would leave them.
    pub(crate) listing: Listing,
    /// Bytes of all files in the listing.
    pub(crate) bytes: u64,
}

/// Why a context cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory cannot be opened.
    #[error("failed to open the build context {}", directory.display())]
    Open {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: kiln_tree::Error,
    },
    /// Something in it cannot be read.
    #[error("failed to read the build context {}", directory.display())]
    Read {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: kiln_tree::Error,
    },
}

impl ContextView {
    /// Walks `context` where `patterns` (copy sources) can select something.
    ///
    /// A selected symlink draws in what it points at, so the walk is repeated until no target is missing;
    /// 40 rounds are the most that a chain of links can need.
    pub(crate) fn read(
        context: &LocalContext,
        patterns: &[TreePath],
        memory: &dyn HashMemory,
    ) -> Result<Self, ContextError> {
        let directory = &context.directory;
        let open = |source| ContextError::Open {
            directory: directory.clone(),
            source,
        };
        let read = |source| ContextError::Read {
            directory: directory.clone(),
            source,
        };
        let root = Root::open(directory).map_err(open)?;
        let mut wanted: BTreeSet<TreePath> = patterns.iter().cloned().collect();
        let mut listing = Listing::default();
        for _round in 0..40 {
            let narrowed = Narrowed {
                policy: context.policy.as_ref(),
                wanted: wanted.iter().cloned().collect(),
            };
            listing = walk::plain(root.as_fd(), PlainOptions::default(), &narrowed, memory).map_err(read)?;
            let targets = link_targets(&listing, &wanted);
            if targets.is_subset(&wanted) {
                break;
            }
            wanted.extend(targets);
        }
        let mut bytes = 0;
        let entries = listing
            .into_entries()
            .into_iter()
            .map(|mut entry| {
                (entry.uid, entry.gid) = (0, 0);
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

/// Where the symlinks lead that lie on the way to (or at) one of `wanted`.
fn link_targets(listing: &Listing, wanted: &BTreeSet<TreePath>) -> BTreeSet<TreePath> {
    let mut targets = BTreeSet::new();
    for entry in listing.entries() {
        let EntryKind::Symlink { target } = &entry.kind else {
            continue;
        };
        let relative_to = if target.starts_with(b"/") {
            None
        } else {
            entry.path.parent()
        };
        for pattern in wanted.iter().filter(|pattern| {
            may_hold(pattern, &entry.path) == Reach::Above || component_match(pattern, &entry.path)
        }) {
            let mut bytes = relative_to
                .as_ref()
                .map_or_else(Vec::new, |parent| parent.as_bytes().to_vec());
            bytes.push(b'/');
            bytes.extend_from_slice(target);
            for rest in pattern.components().skip(entry.path.components().count()) {
                bytes.push(b'/');
                bytes.extend_from_slice(rest);
            }
            targets.extend(TreePath::clean(&bytes));
        }
    }
    targets
}

/// Whether `pattern` names exactly `path`, component by component.
fn component_match(pattern: &TreePath, path: &TreePath) -> bool {
    pattern.components().count() == path.components().count() && may_hold(pattern, path) == Reach::Within
}

/// Where a path lies as seen from a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The pattern selects it or something above it.
    Within,
    /// The pattern may select something below it.
    Above,
    /// Neither.
    Outside,
}

fn may_hold(pattern: &TreePath, path: &TreePath) -> Reach {
    let mut wanted = pattern.components();
    for name in path.components() {
        let Some(component) = wanted.next() else {
            return Reach::Within;
        };
        // A malformed pattern selects nothing here; selecting reports it with its place.
        if !glob::matches(component, name).unwrap_or(false) {
            return Reach::Outside;
        }
    }
    if wanted.next().is_some() {
        Reach::Above
    } else {
        Reach::Within
    }
}

/// The context's own policy, cut down to where the wanted patterns can select something.
struct Narrowed<'a> {
    policy: &'a dyn ContextPolicy,
    wanted: Vec<TreePath>,
}

impl WalkPolicy for Narrowed<'_> {
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision {
        let mut reach = Reach::Outside;
        for pattern in &self.wanted {
            match may_hold(pattern, path) {
                Reach::Within => {
                    reach = Reach::Within;
                    break;
                }
                Reach::Above => reach = Reach::Above,
                Reach::Outside => {}
            }
        }
        match (reach, self.policy.decide(path, is_dir)) {
            (Reach::Outside, _) | (_, Decision::Prune) => Decision::Prune,
            // A symlink on the way is needed to find out where it leads.
            (Reach::Above, Decision::Include) if !is_dir => Decision::Include,
            (Reach::Above, _) => Decision::ExcludeButDescend,
            (Reach::Within, decision) => decision,
        }
    }
}

/// The names in `directory` of `context` that resemble `path`, for a message about a missing source.
pub(crate) fn similar_names(context: &Path, path: &TreePath) -> Vec<String> {
    let Some(name) = path.file_name() else {
        return Vec::new();
    };
    let wanted = String::from_utf8_lossy(name).to_lowercase();
    let parent = path.parent().unwrap_or_else(TreePath::root);
    let Ok(entries) = std::fs::read_dir(context.join(parent.as_path())) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .ok()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
        })
        .filter(|candidate| strsim::damerau_levenshtein(&candidate.to_lowercase(), &wanted) <= 2)
        .collect();
    names.sort();
    names.truncate(3);
    names
}
