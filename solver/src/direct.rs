//! Large copies straight into the upperdir.
//!
//! An overlay makes two inodes of each file and goes through two file systems at each call. Where the base has
//! nothing at the destination but (at most) an empty directory, it has nothing to add: a copy into the upperdir
//! itself gives the same layer at half the cost. The directories above the destination are made as a copy-up
//! would make them.

use kiln_cache::LayerDraft;
use kiln_tree::root::FileType;
use kiln_tree::{EntryKind, Listing, Root, TreePath};

use crate::error::StepFailure;
use crate::file::CopyInput;
use crate::graph::{FileAction, FileOp};

/// With fewer entries, reading the base's listing costs more than an overlay does.
const MIN_ENTRIES: usize = 1000;

/// The destination of `op` when it is a copy that is large enough and can go straight into an upperdir, as far as
/// the operation alone tells.
pub(crate) fn candidate(op: &FileOp, inputs: &[Option<CopyInput>]) -> Option<TreePath> {
    use kiln_tree::copy::SourceTree;
    let ([FileAction::Copy(copy)], [Some(input)]) = (op.actions.as_slice(), inputs) else {
        return None;
    };
    // Names are looked up in the base's account files, which an upperdir does not have.
    let needs_names = copy
        .owner
        .as_ref()
        .is_some_and(|owner| owner.contains(|c: char| c != ':' && !c.is_ascii_digit()));
    if copy.unpack || needs_names {
        return None;
    }
    let goes_into = copy.destination.ends_with('/') || input.places.iter().all(|place| place.is_dir);
    let entries: usize = input
        .places
        .iter()
        .map(|place| input.tree.listing().below(&place.path).len())
        .sum();
    if !goes_into || entries < MIN_ENTRIES {
        return None;
    }
    TreePath::clean(copy.destination.as_bytes()).ok()
}

/// The directories at and above `destination` that `base` has, top first; `None` when something in the base could
/// matter: a symlink on the way, a file in the way, anything below.
pub(crate) fn clear_way(base: &Listing, destination: &TreePath) -> Option<Vec<TreePath>> {
    let mut way = Vec::new();
    let mut at = TreePath::root();
    for component in destination.components() {
        at = at.join_name(component).ok()?;
        match base.get(&at).map(|entry| &entry.kind) {
            None => return Some(way),
            Some(EntryKind::Directory { .. }) => way.push(at.clone()),
            Some(_) => return None,
        }
    }
    (!destination.is_root() && base.below(destination).is_empty()).then_some(way)
}

/// The draft's upperdir with the directories of `way` made as they are in `base`.
pub(crate) fn open(base: &Root, way: &[TreePath], draft: &LayerDraft) -> Result<Root, StepFailure> {
    let upper = Root::open(&draft.diff_path())?;
    for directory in way {
        let path = directory.as_bytes();
        let metadata = base.lstat(path)?;
        debug_assert!(metadata.file_type == FileType::Directory);
        upper.create_dir(path, metadata.mode)?;
        upper.chown(path, metadata.uid, metadata.gid)?;
        upper.chmod(path, metadata.mode)?;
        for name in base.list_xattrs(path)? {
            // The overlay's own attributes belong to the layer that they are in.
            let private = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
            if !private && let Some(value) = base.get_xattr(path, &name)? {
                upper.set_xattr(path, &name, &value)?;
            }
        }
    }
    for directory in way.iter().rev() {
        upper.set_times(directory.as_bytes(), base.lstat(directory.as_bytes())?.mtime)?;
    }
    Ok(upper)
}

#[cfg(test)]
mod tests {
    use kiln_tree::{Entry, EntryKind, Listing, Timestamp, TreePath, Xattrs};

    use super::clear_way;

    fn listing(paths: &[&str]) -> Listing {
        let entry = |path: &&str| {
            let (path, kind) = match path.split_once("->") {
                Some((path, target)) => (
                    path,
                    EntryKind::Symlink {
                        target: target.as_bytes().into(),
                    },
                ),
                None if path.ends_with('/') => {
                    (path.trim_end_matches('/'), EntryKind::Directory { opaque: false })
                }
                None => (*path, EntryKind::Fifo),
            };
            Entry {
                path: TreePath::new(path.as_bytes()).expect("a path"),
                kind,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: Timestamp::default(),
                xattrs: Xattrs::default(),
            }
        };
        Listing::from_entries(paths.iter().map(entry).collect())
    }

    #[test]
    fn only_what_cannot_matter_is_a_clear_way() {
        let base = listing(&[
            "app/",
            "bin->usr/bin",
            "file",
            "full/",
            "full/x",
            "usr/",
            "usr/bin/",
        ]);
        let way = |destination: &str| {
            let destination = TreePath::new(destination.as_bytes()).expect("a path");
            clear_way(&base, &destination).map(|way| {
                way.iter()
                    .map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(way("app"), Some(vec!["app".to_owned()]));
        assert_eq!(way("new/deep"), Some(vec![]));
        assert_eq!(way("usr/local/x"), Some(vec!["usr".to_owned()]));
        assert_eq!(way("usr"), None, "something is below");
        assert_eq!(way("full"), None);
        assert_eq!(way("bin/x"), None, "a symlink is on the way");
        assert_eq!(way("file/x"), None);
        assert_eq!(way(""), None);
    }
}
