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

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use kiln_image::Digest;
use kiln_tree::{ContentHash, Listing};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, Stamp, TempDir, error, files, lease, remove,
    sealed::{self, Flaw},
    store::Shared,
    uses::Place,
};

mod place;

pub(crate) use place::Inode;

/// The identity of a layer: of its content, and so what counts in cache keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(Arc<str>);

impl LayerId {
    /// A layer that came as a tar (pulled, imported), by its DiffID: `sha256-<hex>`.
    pub fn from_diff_id(diff_id: &Digest) -> Self {
        Self(format!("sha256-{}", diff_id.hex()).into())
    }

    /// A layer that was built here, by the content hash of its listing: `b3-<hex>`.
    pub fn from_content(hash: &ContentHash) -> Self {
        Self(format!("b3-{hash}").into())
    }

    /// The text of the id; safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The DiffID, if the id is made of one.
    pub fn diff_id(&self) -> Option<Digest> {
        self.0
            .strip_prefix("sha256-")
            .and_then(|hex| format!("sha256:{hex}").parse().ok())
    }
}

impl FromStr for LayerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix("sha256-").or_else(|| text.strip_prefix("b3-"));
        if hex.is_some_and(|hex| hex.parse::<ContentHash>().is_ok()) {
            return Ok(Self(text.into()));
        }
        let reason = "expected sha256- or b3- and 64 lower-case hexadecimal digits";
        Err(Error::Invalid {
            what: "layer id",
            text: text.chars().take(100).collect(),
            reason,
        })
    }
}

impl TryFrom<String> for LayerId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}

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
struct DiffIdFile {
    diff_id: Digest,
    layer: LayerId,
}

const KIND: &str = "layer";
const VERSION: u32 = 1;
pub(crate) const META: &str = "meta.json";
const DIFF_ID: &str = "diffid";
const DIFF_ID_VERSION: u32 = 1;
/// Name, kind and version of a layer's file with its DiffID.
pub(crate) const DIFF_ID_FILE: (&str, (&str, u32)) = (DIFF_ID, (DIFF_ID, DIFF_ID_VERSION));

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
        Ok(LayerDraft {
            shared: Arc::clone(&self.shared),
            dir,
        })
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
            Some(meta) => {
                let layer = Layer::new(&self.shared, meta);
                // A fresh cell: this cannot fail.
                let _ = layer.listing.set(Arc::new(listing));
                Arc::new(layer)
            }
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
        let mut seen: std::collections::HashSet<&LayerId> = std::collections::HashSet::new();
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

pub(crate) enum MetaRead {
    Absent,
    Newer,
    Damaged(String),
    Good(LayerMeta),
}

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

/// A layer in the store. Never changes.
#[derive(Debug)]
pub struct Layer {
    shared: Arc<Shared>,
    meta: LayerMeta,
    listing: OnceLock<Arc<Listing>>,
}

impl Layer {
    fn new(shared: &Arc<Shared>, meta: LayerMeta) -> Self {
        Self {
            shared: Arc::clone(shared),
            meta,
            listing: OnceLock::new(),
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

/// A layer in the making: `tmp/<owner>/<n>/layer/diff` and beside it the overlay's work folder. Dropped, it is
/// deleted.
#[derive(Debug)]
pub struct LayerDraft {
    shared: Arc<Shared>,
    dir: TempDir,
}

impl LayerDraft {
    /// The folder to fill, or to mount as an overlay's upperdir. It becomes the layer as it is.
    pub fn diff_path(&self) -> PathBuf {
        self.dir.path().join("layer/diff")
    }

    /// The overlay's workdir, on the same filesystem.
    pub fn work_path(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Gives the root folder of the layer its mode and owner.
    pub fn set_root(&self, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let path = self.diff_path();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))
            .map_err(error::io("set the owner of", &path))?;
        rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(mode & 0o7777))
            .map_err(error::errno("set the mode of", &path))
    }

    /// Renames the draft to its place. `None` if another one was there first.
    fn publish(self, id: &LayerId, listing: &Listing, created_ms: u64) -> Result<Option<LayerMeta>> {
        let from = self.dir.path().join("layer");
        let path = from.join("listing");
        let mut bytes = Vec::new();
        listing
            .write_to(&mut bytes)
            .and_then(|()| std::fs::write(&path, &bytes))
            .map_err(error::io("write", &path))?;
        let to = self.shared.root.join("layers").join(id.as_str());
        let (size, content) = (total_size(listing), listing.content_hash());
        let place = Inode::of(&from)?;
        let (meta, won) = self.shared.durability.publish(|stamp| {
            let meta = LayerMeta {
                id: id.clone(),
                size,
                entries: listing.len() as u64,
                content,
                created_ms,
                stamp: stamp.clone(),
                place: Some(place),
            };
            let path = from.join(META);
            std::fs::write(&path, sealed::seal(KIND, VERSION, &meta)?).map_err(error::io("write", &path))?;
            Ok((meta, self.rename(&from, &to, id)?))
        })?;
        if won {
            // Every entry takes some room, however small it is.
            self.shared
                .add_published(size + 4096 * (1 + listing.len() as u64));
        }
        Ok(won.then_some(meta))
    }

    fn rename(&self, from: &Path, to: &Path, id: &LayerId) -> Result<bool> {
        let taken = |source: &std::io::Error| {
            matches!(
                source.kind(),
                std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
            )
        };
        match std::fs::rename(from, to) {
            Ok(()) => return Ok(true),
            Err(source) if taken(&source) => {}
            Err(source) => return Err(error::io("publish", to)(source)),
        }
        // Something is there. Only under the lock may it be judged and taken away: else two replacers could each
        // take away what the other has just published and somebody has mounted.
        let _turn = lease::short(&self.shared.root, "layers")?;
        if let MetaRead::Good(meta) = read_meta(to, id)?
            && self.shared.durability.trusted(&meta.stamp)
        {
            return Ok(false);
        }
        let worthless = self.shared.temp.away();
        match std::fs::rename(to, &worthless) {
            Ok(()) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(error::io("replace", to)(source)),
        }
        std::fs::rename(from, to).map_err(error::io("publish", to))?;
        // What is left over is swept later.
        let _ = remove::tree(&worthless);
        Ok(true)
    }
}

fn total_size(listing: &Listing) -> u64 {
    let size = |entry: &kiln_tree::Entry| match entry.kind {
        kiln_tree::EntryKind::File { size, .. } => size,
        _ => 0,
    };
    listing.entries().iter().map(size).fold(0, u64::saturating_add)
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

#[cfg(test)]
mod tests;
