//! Which paths of a directory belong to a tree.

use crate::TreePath;

/// What to do with a path of a plain walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// List it (and look inside).
    Include,
    /// Do not list it, but look inside a directory: when something below it is included, the directory is listed too.
    ExcludeButDescend,
    /// Neither list it nor look inside.
    Prune,
}

/// Decides which paths of a directory belong to the tree.
pub trait WalkPolicy: Sync {
    /// What to do with `path`. Called from several threads at once.
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision;
}

/// Everything belongs to the tree.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

impl WalkPolicy for Everything {
    fn decide(&self, _path: &TreePath, _is_dir: bool) -> Decision {
        Decision::Include
    }
}

impl<F: Fn(&TreePath, bool) -> Decision + Sync> WalkPolicy for F {
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision {
        self(path, is_dir)
    }
}
