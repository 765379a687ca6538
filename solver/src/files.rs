//! The files of an image, outside the store: in a directory of the user's, or as a tar.
//!
//! Nothing is written outside the destination, whatever links the image has or the destination had: every path is
//! resolved inside it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::Snapshot;
use kiln_image::{Digest, layer};
use kiln_tree::copy::{CopyError, CopyRequest, ListedSource, copy};
use kiln_tree::{Listing, Root, TreePath};

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::StepFailure;
use crate::file;
use crate::image::Stoppable;
use crate::roots;

/// Why the files of an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The store failed, or does not have the image.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// The image's layers cannot be shown as one tree.
    #[error("failed to read the image's files")]
    Read(#[source] StepFailure),
    /// The destination cannot be used.
    #[error("{}", path.display())]
    Destination {
        /// The destination.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The destination's folder cannot be opened.
    #[error(transparent)]
    Tree(#[from] kiln_tree::Error),
    /// Copying failed.
    #[error("failed to copy the image's files")]
    Copy(#[source] CopyError),
    /// Writing the tar failed.
    #[error("failed to write the image's files")]
    Tar(#[source] layer::LayerError),
}

/// What was written to a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenFiles {
    /// How many files and directories.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What could not be written as it is in the image, a line each.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Copies the files of an image into a directory, which is made if it is missing; what else is there stays. As
    /// with Docker, everything belongs to the user who asked.
    pub fn export_to_directory(&self, image: &Digest, dest: &Path) -> Result<WrittenFiles, FilesError> {
        let (root, listing) = self.files_of(image)?;
        std::fs::create_dir_all(dest).map_err(|source| FilesError::Destination {
            path: dest.to_owned(),
            source,
        })?;
        let target = Root::open(dest)?;
        let source = ListedSource {
            root: &root,
            listing: &listing,
            verify: false,
        };
        let mut request = CopyRequest::new(&source, TreePath::root(), b"/");
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        request.owner = Some(own);
        let copied = copy(&request, &target).map_err(FilesError::Copy)?;
        Ok(WrittenFiles {
            entries: copied.entries,
            bytes: copied.bytes,
            warnings: file::warnings(copied.refused).collect(),
        })
    }

    /// Writes the files of an image as a tar, with their owners, until `cancel` is raised. Gives the number of bytes.
    pub fn export_as_tar(&self, image: &Digest, out: impl Write, cancel: &Cancel) -> Result<u64, FilesError> {
        let (root, listing) = self.files_of(image)?;
        let out = Stoppable {
            file: out,
            stop: cancel,
        };
        layer::pack(&listing, &root, out).map_err(FilesError::Tar)
    }

    fn files_of(&self, image: &Digest) -> Result<(Root, Arc<Listing>), FilesError> {
        let record = self.store.images().by_id(image)?;
        let record = record.ok_or_else(|| kiln_cache::Error::ImageNotFound(image.to_string()))?;
        let snapshot = Snapshot {
            layers: record.layers.into_iter().map(|layer| layer.layer).collect(),
        };
        let root = roots::readable(&self.store, &snapshot).map_err(FilesError::Read)?;
        let listing = roots::merged_listing(&snapshot, |id| {
            let layer = self.store.layers().get(id)?;
            let layer = layer.ok_or_else(|| kiln_cache::Error::LayerMissing(id.clone()))?;
            Ok(layer.listing()?)
        });
        Ok((root, listing.map_err(FilesError::Read)?))
    }
}
