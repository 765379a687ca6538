//! An image from the tar of a root file system.

use std::io::Read;

use kiln_tree::Root;

use crate::layer::{LayerError, UnpackOptions, Unpacked};
use crate::{Config, ImageConfig, Platform};

/// What the image is to be like.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// How its containers run.
    pub config: Config,
    /// For which machine it is.
    pub platform: Platform,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The remark in its history; Docker's is `Imported from <source>`.
    pub comment: String,
}

/// An imported image.
#[derive(Debug)]
pub struct Imported {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its only layer.
    pub layer: Unpacked,
}

/// Makes an image whose only layer is the tar `reader`, compressed or not, unpacked into `dest`.
pub fn import(
    _reader: impl Read + Send,
    _dest: &Root,
    _options: ImportOptions,
    _unpack: &UnpackOptions<'_>,
) -> Result<Imported, LayerError> {
    todo!()
}
