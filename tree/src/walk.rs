//! Reads real directories into listings.

mod memory;

use std::os::fd::BorrowedFd;

pub use memory::{Forgetful, HashMemory, StatKey};

use crate::{Listing, Result, TreePath};

/// Reads a layer in overlayfs form: character device 0:0 (or an overlay `whiteout` attribute) is a whiteout, the
/// `opaque` attribute marks opaque directories. Overlayfs's own attributes and `security.selinux` are left out.
pub fn layer(dir: BorrowedFd<'_>) -> Result<Listing> {
    layer_with(dir, &Forgetful)
}

/// As [`layer`], but files that `memory` knows are not read again.
pub fn layer_with(_dir: BorrowedFd<'_>, _memory: &dyn HashMemory) -> Result<Listing> {
    todo!()
}

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

/// How a plain walk is done.
#[derive(Debug, Clone, Copy)]
pub struct PlainOptions {
    /// Read extended attributes (costs a system call a path).
    pub xattrs: bool,
}

impl Default for PlainOptions {
    fn default() -> Self {
        Self { xattrs: true }
    }
}

/// Reads an ordinary directory: a build context. File hashes come from `memory` where it knows them.
pub fn plain(
    dir: BorrowedFd<'_>,
    options: PlainOptions,
    policy: &dyn WalkPolicy,
    memory: &dyn HashMemory,
) -> Result<Listing> {
    survey(dir, options, policy)?.hash(dir, &|_| true, memory)
}

/// What a walk saw before any file was read. See [`survey`].
#[derive(Debug)]
pub struct Survey {}

/// The first half of [`plain`]: one parallel stat walk, no file is opened.
pub fn survey(_dir: BorrowedFd<'_>, _options: PlainOptions, _policy: &dyn WalkPolicy) -> Result<Survey> {
    todo!()
}

impl Survey {
    /// The paths that were found, in order, each with whether it is a directory.
    pub fn paths(&self) -> impl Iterator<Item = (&TreePath, bool)> {
        std::iter::empty()
    }

    /// The second half of [`plain`]: hashes the files among the paths that `select` wants and lists only what it
    /// wants, together with the directories above.
    pub fn hash(
        self,
        _dir: BorrowedFd<'_>,
        _select: &(dyn Fn(&TreePath) -> bool + Sync),
        _memory: &dyn HashMemory,
    ) -> Result<Listing> {
        todo!()
    }
}
