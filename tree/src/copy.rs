//! The copy engine: brings entries of one tree into another, with the semantics of Docker's `COPY`.

mod mode;

pub use mode::{ModeChange, ModeParseError};

use crate::walk::HashMemory;
use crate::{ContentHash, Listing, Result, Root, Timestamp, TreePath, walk::StatKey};

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
    /// The hashes of the files written, so that a walk of the resulting layer need not read them again.
    pub prehashed: Prehashed,
}

/// Hashes of files that were just written, as a [`HashMemory`] for [`walk::layer_with`](crate::walk::layer_with).
#[derive(Debug, Default)]
pub struct Prehashed {}

impl Prehashed {
    /// Takes over what `other` knows.
    pub fn absorb(&mut self, _other: Prehashed) {
        todo!()
    }
}

impl HashMemory for Prehashed {
    fn recall(&self, _path: &TreePath, _key: &StatKey) -> Option<ContentHash> {
        None
    }
    fn remember(&self, _path: &TreePath, _key: &StatKey, _content: ContentHash) {}
}

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source path is not in the source tree.
    #[error("{path}: not found in the source")]
    NotFound {
        /// The source path.
        path: TreePath,
    },
    /// A source symlink leads in circles.
    #[error("{path}: too many levels of symbolic links")]
    SymlinkLoop {
        /// The source path.
        path: TreePath,
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

/// Carries out `request` into `dest`.
pub fn copy(_request: &CopyRequest<'_>, _dest: &Root) -> Result<Copied, CopyError> {
    todo!()
}
