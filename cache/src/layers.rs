//! Unpacked layers in overlayfs form.
//!
//! ```text
//! layers/<id>/diff/       the layer: whiteouts are character devices 0:0, opaque folders carry the attribute
//! layers/<id>/listing     what is in it (the tree crate's format, with its own checksum)
//! layers/<id>/meta.json   kind `layer`, version 1: [`LayerMeta`]; its mtime is when the layer was last used
//! layers/<id>/diffid      kind `diffid`, version 1: the DiffID, once somebody has computed it
//! layers/<id>/checked     kind `checked`, version 1: in a copy of the store, that the layer was found in order
//! layers/<id>/usage       kind `usage`, version 1: what `diff/` takes of the disk, once somebody has measured it
//! ```
//!
//! `diff/` was the upperdir of the step that made it: the whole draft folder is renamed to `layers/<id>` and
//! nothing is ever copied. Nothing in it is changed afterwards. A layer whose stamp is not trusted (made in an
//! earlier boot and never synced) is as good as absent; the next commit of the same id replaces it.

mod draft;
mod id;
mod layer;
mod meta;
mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_tree::{ContentHash, Listing};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, error, files, lease, store::Shared, uses::Place};

pub use draft::LayerDraft;
pub use id::LayerId;
pub use layer::Layer;
pub(crate) use meta::{DIFF_ID_FILE, LayerMeta, META, MetaRead, read_diff_id, read_meta};
pub(crate) use place::Inode;

/// The layers of the store.
#[derive(Debug)]
pub struct Layers {
    shared: Arc<Shared>,
    /// Layers that this process has seen in order. It holds their uses: nothing takes them away before it ends.
    seen: Mutex<HashMap<LayerId, Arc<Layer>>>,
}

impl Layers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            seen: Mutex::new(HashMap::new()),
        }
    }

    /// The layer, if it is there and in order.
    pub fn get(&self, id: &LayerId) -> Result<Option<Arc<Layer>>> {
        if let Some(layer) = self.seen().get(id) {
            return Ok(Some(Arc::clone(layer)));
        }
        // Before the look: what is found then stays.
        self.shared.uses.hold(Place::of_layer(id))?;
        let Some(meta) = self.read(id)? else {
            return Ok(None);
        };
        files::touch(&self.path(id).join(META));
        let layer = Arc::new(Layer::new(&self.shared, meta));
        Ok(Some(Arc::clone(self.seen().entry(id.clone()).or_insert(layer))))
    }

    /// The layer, or an error that names it.
    pub fn require(&self, id: &LayerId) -> Result<Arc<Layer>> {
        self.get(id)?.ok_or_else(|| Error::LayerMissing(id.clone()))
    }

    /// A new empty layer to be filled: the root folder has mode 0755 and the owner of the process.
    pub fn draft(&self) -> Result<LayerDraft> {
        let dir = self.shared.temp.dir()?;
        for (folder, mode) in [("layer", 0o755), ("layer/diff", 0o755), ("work", 0o700)] {
            let path = dir.path().join(folder);
            rustix::fs::mkdir(&path, mode.into()).map_err(error::errno("create", &path))?;
            // Whatever the umask is: this is the root folder of a file system to be.
            rustix::fs::chmod(&path, mode.into()).map_err(error::errno("set the mode of", &path))?;
        }
        Ok(LayerDraft::new(&self.shared, dir))
    }

    /// Publishes a draft under `id`; `listing` is what is in it. If there is such a layer in order already, that one
    /// stays and the draft is dropped. Everything that is mounted on or open in the draft stays valid if it wins.
    pub fn commit(&self, draft: LayerDraft, id: &LayerId, listing: Listing) -> Result<Arc<Layer>> {
        self.commit_made_at(draft, id, listing, files::now_ms())
    }

    /// As [`Layers::commit`], for a layer that was made elsewhere, at that time.
    pub fn commit_made_at(
        &self,
        draft: LayerDraft,
        id: &LayerId,
        listing: Listing,
        created_ms: u64,
    ) -> Result<Arc<Layer>> {
        if let Some(there) = self.get(id)? {
            return Ok(there);
        }
        let meta = draft.publish(id, &listing, created_ms)?;
        let layer = match meta {
            Some(meta) => Arc::new(Layer::with_listing(&self.shared, meta, listing)),
            None => self
                .read(id)?
                .map(|meta| Arc::new(Layer::new(&self.shared, meta)))
                .ok_or_else(|| Error::Damaged {
                    path: self.path(id),
                    reason: "vanished while it was being published".to_owned(),
                })?,
        };
        Ok(Arc::clone(self.seen().entry(id.clone()).or_insert(layer)))
    }

    /// The ids of all layers, in order or not.
    pub fn list(&self) -> Result<Vec<LayerId>> {
        let names = files::names(&self.shared.root.join("layers"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The folders of a snapshot's layers, top first, as overlayfs takes them.
    ///
    /// Layers that change nothing are left out. Of a layer that occurs twice only the upper one stays: overlayfs
    /// refuses the same folder twice, and the lower one can show nothing that the upper one does not.
    pub fn lowers(&self, snapshot: &Snapshot) -> Result<Vec<PathBuf>> {
        let mut seen: HashSet<&LayerId> = HashSet::new();
        let mut lowers = Vec::with_capacity(snapshot.layers.len());
        for id in snapshot.layers.iter().rev().filter(|id| seen.insert(id)) {
            let layer = self.require(id)?;
            if !layer.is_empty() {
                lowers.push(layer.diff_path());
            }
        }
        Ok(lowers)
    }

    /// Where the layer is or would be.
    pub(crate) fn path(&self, id: &LayerId) -> PathBuf {
        self.shared.root.join("layers").join(id.as_str())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<LayerId, Arc<Layer>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget_seen(&self) {
        self.seen().clear();
    }

    /// The layer's meta data if it is there, intact and trusted. A damaged one is told of and left where it is:
    /// it may be mounted. The next commit replaces it, or `verify` with repair sets it aside.
    pub(crate) fn read(&self, id: &LayerId) -> Result<Option<LayerMeta>> {
        match read_meta(&self.path(id), id)? {
            MetaRead::Absent | MetaRead::Newer => Ok(None),
            MetaRead::Damaged(reason) => {
                self.shared.warn(crate::Warning {
                    path: self.path(id),
                    reason,
                    moved_to: None,
                });
                Ok(None)
            }
            MetaRead::Good(meta) if !self.shared.durability.trusted(&meta.stamp) => Ok(None),
            MetaRead::Good(meta) => match place::check(&self.shared, &self.path(id), &meta)? {
                None => Ok(Some(meta)),
                Some(reason) => {
                    self.drop_bad_copy(id, &meta, &reason)?;
                    Ok(None)
                }
            },
        }
    }

    /// Sets a layer aside that did not survive the copying of the store. Nobody believed it, so nobody uses it.
    fn drop_bad_copy(&self, id: &LayerId, meta: &LayerMeta, reason: &str) -> Result<()> {
        // Who replaces a layer holds this lock too, so what was judged is what is moved.
        let _turn = lease::short(&self.shared.root, "layers")?;
        let path = self.path(id);
        if matches!(read_meta(&path, id)?, MetaRead::Good(found) if found == *meta) {
            let reason = format!("the store was copied, and this layer is not what it was: {reason}");
            self.shared.warn(self.shared.set_aside(&path, reason));
        }
        Ok(())
    }
}

/// A file system state: layers, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The layers, the lowest first.
    pub layers: Vec<LayerId>,
}

impl Snapshot {
    /// The identity of the content, as far as the layers' ids tell it.
    pub fn content_key(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"kiln snapshot 1\n");
        for layer in &self.layers {
            hasher.update(layer.as_str().as_bytes()).update(b"\n");
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// This snapshot with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }
}
