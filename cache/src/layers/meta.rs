//! The small files beside a layer: what is known of it without looking into it.

use std::path::Path;

use kiln_image::Digest;
use kiln_tree::ContentHash;
use serde::{Deserialize, Serialize};

use super::{Inode, LayerId};
use crate::{
    Result, Stamp, files,
    sealed::{self, Flaw},
};

/// What is known of a layer without looking into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    pub(crate) id: LayerId,
    /// Sum of the sizes of its files.
    pub(crate) size: u64,
    /// How many entries its listing has.
    pub(crate) entries: u64,
    /// The content hash of its listing.
    pub(crate) content: ContentHash,
    /// When it was made, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    pub(crate) stamp: Stamp,
    /// Where it was made; absent in what earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Inode>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DiffIdFile {
    pub(super) diff_id: Digest,
    pub(super) layer: LayerId,
}

pub(super) const KIND: &str = "layer";
pub(super) const VERSION: u32 = 1;
pub(crate) const META: &str = "meta.json";
pub(super) const DIFF_ID: &str = "diffid";
pub(super) const DIFF_ID_VERSION: u32 = 1;
/// Name, kind and version of a layer's file with its DiffID.
pub(crate) const DIFF_ID_FILE: (&str, (&str, u32)) = (DIFF_ID, (DIFF_ID, DIFF_ID_VERSION));

/// What was found where a layer is or would be.
pub(crate) enum MetaRead {
    Absent,
    Newer,
    Damaged(String),
    Good(LayerMeta),
}

/// Reads the meta data of the layer in `folder`.
pub(crate) fn read_meta(folder: &Path, id: &LayerId) -> Result<MetaRead> {
    let Some(bytes) = files::read_opt(&folder.join(META))? else {
        return Ok(if folder.exists() {
            MetaRead::Damaged("no meta.json".to_owned())
        } else {
            MetaRead::Absent
        });
    };
    Ok(match sealed::open::<LayerMeta>(KIND, VERSION, &bytes) {
        Ok(meta) if meta.id == *id => MetaRead::Good(meta),
        Ok(meta) => MetaRead::Damaged(format!("meta.json is of layer {}", meta.id)),
        Err(Flaw::Newer(_)) => MetaRead::Newer,
        Err(Flaw::Damaged(reason)) => MetaRead::Damaged(format!("meta.json: {reason}")),
    })
}

/// The DiffID of the layer in `folder`, if it is known.
pub(crate) fn read_diff_id(folder: &Path, id: &LayerId) -> Option<Digest> {
    if let Some(diff_id) = id.diff_id() {
        return Some(diff_id);
    }
    let bytes = std::fs::read(folder.join(DIFF_ID)).ok()?;
    // Damaged or of a newer format: computed again, and overwritten.
    let file = sealed::open::<DiffIdFile>(DIFF_ID, DIFF_ID_VERSION, &bytes).ok()?;
    (file.layer == *id).then_some(file.diff_id)
}
