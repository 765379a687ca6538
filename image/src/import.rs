//! An image from the tar of a root file system.

use std::io::Read;

use kiln_tree::Root;

use crate::layer::{self, LayerError, UnpackOptions, Unpacked};
use crate::{Config, History, ImageConfig, Platform};

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

/// Makes an image whose only layer is the tar `reader`, compressed or not, unpacked into `dest`, an empty directory.
pub fn import(
    reader: impl Read + Send,
    dest: &Root,
    options: ImportOptions,
    unpack: &UnpackOptions<'_>,
) -> Result<Imported, LayerError> {
    let plain = layer::decompress(reader).map_err(LayerError::Read)?;
    let layer = layer::unpack(plain, dest, unpack)?;
    let mut config = ImageConfig {
        created: Some(options.created.clone()),
        config: options.config,
        history: vec![History {
            created: Some(options.created),
            comment: Some(options.comment).filter(|comment| !comment.is_empty()),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    config.set_platform(&options.platform);
    config.rootfs.diff_ids.push(layer.diff_id);
    Ok(Imported { config, layer })
}
