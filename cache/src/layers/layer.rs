//! One layer of the store.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use kiln_image::Digest;
use kiln_tree::{ContentHash, Listing};

use super::{
    LayerId, LayerMeta,
    meta::{DIFF_ID, DIFF_ID_VERSION, DiffIdFile, read_diff_id},
};
use crate::{Error, Result, error, sealed, store::Shared};

/// A layer in the store. Never changes.
#[derive(Debug)]
pub struct Layer {
    shared: Arc<Shared>,
    meta: LayerMeta,
    listing: OnceLock<Arc<Listing>>,
}

impl Layer {
    pub(super) fn new(shared: &Arc<Shared>, meta: LayerMeta) -> Self {
        Self {
            shared: Arc::clone(shared),
            meta,
            listing: OnceLock::new(),
        }
    }

    /// One whose listing is known already.
    pub(super) fn with_listing(shared: &Arc<Shared>, meta: LayerMeta, listing: Listing) -> Self {
        Self {
            listing: OnceLock::from(Arc::new(listing)),
            ..Self::new(shared, meta)
        }
    }

    /// Its identity.
    pub fn id(&self) -> &LayerId {
        &self.meta.id
    }

    /// Its folder in the store.
    pub fn path(&self) -> PathBuf {
        self.shared.root.join("layers").join(self.meta.id.as_str())
    }

    /// The folder to mount as an overlay's lowerdir.
    pub fn diff_path(&self) -> PathBuf {
        self.path().join("diff")
    }

    /// Sum of the sizes of its files.
    pub fn size(&self) -> u64 {
        self.meta.size
    }

    /// The content hash of its listing.
    pub fn content(&self) -> ContentHash {
        self.meta.content
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.meta.entries == 0
    }

    /// When it was made, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.meta.created_ms
    }

    /// What is in it. Read and checked at the first call, then kept.
    pub fn listing(&self) -> Result<Arc<Listing>> {
        if let Some(listing) = self.listing.get() {
            return Ok(Arc::clone(listing));
        }
        let path = self.path().join("listing");
        let bytes = std::fs::read(&path).map_err(error::io("read", &path))?;
        let listing = Listing::from_bytes(&bytes).map_err(|error| Error::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        if listing.len() as u64 != self.meta.entries {
            return Err(Error::Damaged {
                path,
                reason: "not the listing of this layer".to_owned(),
            });
        }
        Ok(Arc::clone(self.listing.get_or_init(|| Arc::new(listing))))
    }

    /// The sha256 of the layer's tar, if somebody has computed it.
    pub fn diff_id(&self) -> Option<Digest> {
        read_diff_id(&self.path(), &self.meta.id)
    }

    /// Keeps the DiffID beside the layer.
    pub fn set_diff_id(&self, diff_id: &Digest) -> Result<()> {
        let file = DiffIdFile {
            diff_id: *diff_id,
            layer: self.meta.id.clone(),
        };
        let bytes = sealed::seal(DIFF_ID, DIFF_ID_VERSION, &file)?;
        // It is only believed with its checksum, and can be computed again: no stamp of its own.
        self.shared
            .temp
            .publish(&bytes, &self.path().join(DIFF_ID), false)
    }

    /// Whether the layer would survive a power loss now.
    pub(crate) fn on_disk(&self) -> bool {
        self.shared.durability.on_disk(&self.meta.stamp)
    }
}
