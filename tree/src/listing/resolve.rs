//! Symbolic links inside a listing.

use std::collections::VecDeque;

use crate::{EntryKind, Listing, TreePath};

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Something on the way is not there, or is no directory.
    #[error("{path}: not found")]
    NotFound {
        /// The path that is missing.
        path: TreePath,
    },
    /// Symbolic links lead in circles.
    #[error("{path}: too many levels of symbolic links")]
    SymlinkLoop {
        /// The path that was looked for.
        path: TreePath,
    },
}

impl Listing {
    /// Follows the symbolic links in `path`, the last component's too where `follow_last` says so, as if the tree
    /// were `/`. The result exists and has no symlink above it.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, ResolveError> {
        let mut rest: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut at = TreePath::root();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.push_unchecked(&name);
            let missing = || ResolveError::NotFound { path: next.clone() };
            match &self.get(&next).ok_or_else(missing)?.kind {
                EntryKind::Symlink { target } if follow_last || !rest.is_empty() => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(ResolveError::SymlinkLoop { path: path.clone() });
                    }
                    if target.first() == Some(&b'/') {
                        at = TreePath::root();
                    }
                    let names = target
                        .split(|&b| b == b'/')
                        .filter(|name| !matches!(*name, b"" | b"."));
                    for name in names.rev() {
                        rest.push_front(name.to_vec());
                    }
                }
                kind if kind.is_dir() || rest.is_empty() => at = next,
                _ => return Err(missing()),
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::samples::{dir, file, path, symlink};

    #[test]
    fn table() {
        let listing = Listing::from_entries(vec![
            dir("a"),
            dir("a/b"),
            file("a/b/f", ""),
            symlink("a/up", "../a/b"),
            symlink("a/b/abs", "/a/up/f"),
            symlink("far", "../../../a//./b/"),
            symlink("loop", "loop"),
            symlink("dangling", "none/x"),
            symlink("top", "/"),
        ]);
        let cases = [
            ("", true, Some("")),
            ("a/b/f", true, Some("a/b/f")),
            ("a/up", true, Some("a/b")),
            ("a/up", false, Some("a/up")),
            ("a/up/f", false, Some("a/b/f")),
            ("a/b/abs", true, Some("a/b/f")),
            ("a/b/abs", false, Some("a/b/abs")),
            ("far/f", true, Some("a/b/f")),
            ("top/top/a", true, Some("a")),
            ("top", true, Some("")),
            ("none", true, None),
            ("a/b/f/x", true, None),
            ("dangling", true, None),
            ("dangling", false, Some("dangling")),
            ("loop/x", false, None),
        ];
        for (from, follow, expected) in cases {
            let found = listing.resolve(&path(from), follow).ok();
            assert_eq!(found, expected.map(path), "{from}, {follow}");
        }
        assert!(matches!(
            listing.resolve(&path("loop"), true),
            Err(ResolveError::SymlinkLoop { .. })
        ));
    }
}
