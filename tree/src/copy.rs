//! The copy engine: brings entries of one tree into another, with the semantics of Docker's `COPY`.

//!
//! What is copied is decided from the source's listing alone; only file bytes are read from the source. First all
//! directories are made, then everything else is written in parallel relative to open directories, then directories
//! get their modes and times.

mod attributes;
mod data;
mod mode;
mod plan;
mod prehashed;
mod target;
#[cfg(test)]
mod tests;
mod write;

pub use mode::{ModeChange, ModeParseError};
pub use plan::{Taken, taken};
pub use prehashed::Prehashed;

use crate::{Listing, Refused, ResolveError, Root, Timestamp, TreePath};

/// A tree to copy from: a directory and what is in it.
pub trait SourceTree: Sync {
    /// Where the files are.
    fn root(&self) -> &Root;
    /// What is in it (merged view: no whiteouts).
    fn listing(&self) -> &Listing;
    /// Whether somebody could have changed files since they were listed, so that the bytes copied must be checked
    /// against the listing's hashes. True for build contexts, false for layers.
    fn verify(&self) -> bool;
}

/// The usual [`SourceTree`].
#[derive(Debug)]
pub struct ListedSource<'a> {
    /// Where the files are.
    pub root: &'a Root,
    /// What is in it.
    pub listing: &'a Listing,
    /// See [`SourceTree::verify`].
    pub verify: bool,
}

impl SourceTree for ListedSource<'_> {
    fn root(&self) -> &Root {
        self.root
    }
    fn listing(&self) -> &Listing {
        self.listing
    }
    fn verify(&self) -> bool {
        self.verify
    }
}

/// Tells whether a path, relative to the copied directory, is to be left out.
pub type Exclude<'a> = dyn Fn(&TreePath) -> bool + Sync + 'a;

/// What to copy, and how.
pub struct CopyRequest<'a> {
    /// The tree to copy from.
    pub source: &'a dyn SourceTree,
    /// What to copy of it.
    pub source_path: TreePath,
    /// Where to, in the destination root. Parent components that are symlinks are followed inside the root.
    pub dest: &'a [u8],
    /// A symlink at `dest` itself that points at no directory stands for what it points at; otherwise it is
    /// replaced.
    pub follow_dest_symlink: bool,
    /// `dest` names a directory to copy into (it ended in a slash), even where nothing is there yet.
    pub dest_is_dir: bool,
    /// For a directory: its contents go to `dest` (as `COPY` does), not the directory itself.
    pub copy_dir_contents: bool,
    /// A source that is a symlink stands for what it points at (inside the source tree).
    pub follow_source_symlink: bool,
    /// The owner of everything that is written; as in the source without.
    pub owner: Option<(u32, u32)>,
    /// How modes are changed.
    pub mode: Option<ModeChange>,
    /// Modification times later than this become this.
    pub clamp_mtime: Option<Timestamp>,
    /// What to leave out. Paths are relative to the copied directory; a single file is asked by its name.
    pub exclude: Option<&'a Exclude<'a>>,
}

impl<'a> CopyRequest<'a> {
    /// A request as `COPY source dest` makes it: a directory's contents, source symlinks followed, everything else
    /// as it is. `dest_is_dir` follows from a slash at the end of `dest`.
    pub fn new(source: &'a dyn SourceTree, source_path: TreePath, dest: &'a [u8]) -> Self {
        Self {
            source,
            source_path,
            dest,
            follow_dest_symlink: false,
            dest_is_dir: dest.ends_with(b"/"),
            copy_dir_contents: true,
            follow_source_symlink: true,
            owner: None,
            mode: None,
            clamp_mtime: None,
            exclude: None,
        }
    }
}

impl std::fmt::Debug for CopyRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRequest")
            .field("source_path", &self.source_path)
            .field("dest", &String::from_utf8_lossy(self.dest))
            .finish_non_exhaustive()
    }
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct Copied {
    /// How many entries were written.
    pub entries: u64,
    /// How many bytes of file data.
    pub bytes: u64,
    /// What had to be left as it is.
    pub refused: Refused,
    /// The hashes of the files written, so that a walk of the resulting layer need not read them again.
    pub prehashed: Prehashed,
}

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source path is not in the source tree.
    #[error("{path}: not found in the source")]
    NotFound {
        /// What is missing.
        path: TreePath,
    },
    /// A source symlink leads in circles.
    #[error("{path}: too many levels of symbolic links")]
    SymlinkLoop {
        /// The source path.
        path: TreePath,
    },
    /// The destination is no path that something can be written to.
    #[error("cannot copy to {dest:?}")]
    BadDestination {
        /// The destination.
        dest: String,
    },
    /// The destination, or something above it, should be a directory and is none.
    #[error("{dest} is not a directory")]
    NotADirectory {
        /// What is in the way.
        dest: String,
    },
    /// A non-directory cannot replace a directory.
    #[error("cannot copy {source_path} over the directory {dest}")]
    OntoDirectory {
        /// What was copied.
        source_path: TreePath,
        /// The directory in the way.
        dest: String,
    },
    /// A directory cannot replace a non-directory.
    #[error("cannot copy the directory {source_path} over {dest}, which is no directory")]
    OntoFile {
        /// What was copied.
        source_path: TreePath,
        /// What is in the way.
        dest: String,
    },
    /// A file is not what it was when it was listed.
    #[error("{path} changed since the build looked at it")]
    Changed {
        /// The file.
        path: TreePath,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Tree(#[from] crate::Error),
}

impl From<ResolveError> for CopyError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotFound { path } => Self::NotFound { path },
            ResolveError::SymlinkLoop { path } => Self::SymlinkLoop { path },
        }
    }
}

/// Carries out `request` into `dest`.
///
/// Directories above the destination that are missing are made with mode 0755, or the request's if it is octal, and
/// belong to root, or to the request's owner. A destination directory that is there already keeps its looks;
/// directories below it take those of the source. Attributes that the destination refuses are left out.
pub fn copy(request: &CopyRequest<'_>, dest: &Root) -> Result<Copied, CopyError> {
    let target = target::prepare(request, dest)?;
    let copied = write::write(request, &target.base, &target.items)?;
    target::clamp_made(request, dest, &target.made)?;
    Ok(copied)
}
