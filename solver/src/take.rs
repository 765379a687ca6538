//! What an operation takes from inputs other than its root: the sources of copies, and the sources of mounts.
//!
//! Both count in a key by what they select, and by nothing beside it.

use kiln_tree::{Listing, TreePath};

use crate::graph::{Copy, FileAction, Mount, MountKind, Op, SourceSpan};
use crate::narrow;
use crate::select::{self, SelectError, Selection};

/// One place of an operation that takes files from an input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Take<'a> {
    /// A copy: patterns.
    Copy(&'a Copy),
    /// A mount: one path.
    Mount {
        /// The mount.
        mount: &'a Mount,
        /// The input slot.
        slot: usize,
        /// The path below the input's root.
        source: &'a str,
    },
}

/// What `op` takes, by the position of the file action or of the mount.
pub(crate) fn takes(op: &Op) -> Vec<Option<Take<'_>>> {
    match op {
        Op::Source(_) => Vec::new(),
        Op::Exec(exec) => exec.mounts.iter().map(of_mount).collect(),
        Op::File(file) => file.actions.iter().map(of_action).collect(),
    }
}

fn of_action(action: &FileAction) -> Option<Take<'_>> {
    match action {
        FileAction::Copy(copy) => Some(Take::Copy(copy)),
        FileAction::MakeDirectory(_) | FileAction::MakeFile(_) => None,
    }
}

fn of_mount(mount: &Mount) -> Option<Take<'_>> {
    let source = match &mount.kind {
        MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => source,
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => return None,
    };
    mount.kind.input().map(|slot| Take::Mount { mount, slot, source })
}

impl<'a> Take<'a> {
    /// The input slot.
    pub(crate) fn slot(self) -> usize {
        match self {
            Self::Copy(copy) => copy.from,
            Self::Mount { slot, .. } => slot,
        }
    }

    /// Where a local directory has to be looked through, as patterns. What is no path is reported when it is
    /// selected, with its place.
    pub(crate) fn patterns(self) -> Vec<TreePath> {
        match self {
            Self::Copy(copy) => {
                let clean = |source: &'a crate::graph::CopySource| TreePath::clean(&source.pattern).ok();
                copy.sources.iter().filter_map(clean).collect()
            }
            Self::Mount { source, .. } => TreePath::clean(source)
                .ok()
                .and_then(|path| narrow::literal(&path))
                .into_iter()
                .collect(),
        }
    }

    /// What is selected in `listing`. An error comes with the place in the source text that it concerns.
    pub(crate) fn select(self, listing: &Listing) -> Result<Selection, (Option<SourceSpan>, SelectError)> {
        match self {
            Self::Copy(copy) => {
                select::select(listing, &copy.sources).map_err(|(source, error)| (source.span, error))
            }
            Self::Mount { mount, source, .. } => {
                select::select_mounted(listing, source).map_err(|error| (mount.span, error))
            }
        }
    }
}
