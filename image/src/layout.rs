//! OCI image layouts and `docker save` archives.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::{Descriptor, Digest, Reference};

/// What can go wrong with a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Reading failed.
    #[error("write layout")]
    Write(#[source] io::Error),
}

/// Which files beside the blobs a layout gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout only.
    Oci,
    /// An OCI layout that `docker load` takes as well: with `manifest.json` and `repositories`.
    Docker,
}

/// An image of a layout.
#[derive(Debug, Clone)]
pub struct SavedImage {
    /// Its manifest or index, which was added as a blob.
    pub root: Descriptor,
    /// Its names.
    pub names: Vec<Reference>,
    /// For [`Form::Docker`]: the configuration and layers of the image that `docker load` is to take.
    pub docker: Option<(Descriptor, Vec<Descriptor>)>,
}

/// Where a layout is written to. Blobs come first, [`Self::finish`] writes the rest.
#[derive(Debug)]
pub struct Writer<W: Write>(W);

impl Writer<io::Sink> {
    /// A layout in the directory `path`, made if missing.
    pub fn directory(_path: &Path) -> Result<Self, LayoutError> {
        todo!()
    }
}

impl<W: Write> Writer<W> {
    /// A layout as a tar stream.
    pub fn tar(_out: W) -> Result<Self, LayoutError> {
        todo!()
    }
    /// Whether this blob was added already.
    pub fn contains(&self, _digest: &Digest) -> bool {
        todo!()
    }
    /// Adds a blob, once; verifies size and digest on the way.
    pub fn blob(&mut self, _descriptor: &Descriptor, _reader: impl Read) -> Result<(), LayoutError> {
        todo!()
    }
    /// Writes `oci-layout`, `index.json` and what the form asks for.
    pub fn finish(self, _images: &[SavedImage], _form: Form) -> Result<W, LayoutError> {
        todo!()
    }
}
