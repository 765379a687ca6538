//! Checks everything in the store against everything else, and sets aside what is damaged.
//!
//! [`run`] reads every record, listing, file, and blob. It changes nothing, and may run beside builds: what they
//! publish meanwhile is either seen whole or not seen. [`repair`] moves what the report names to `damaged/`; it
//! needs the store for itself, since a layer could be mounted. After a repair every step whose result is gone
//! runs again; nothing else is lost.
//!
//! What an earlier boot left unsynced is not damage: nothing believes it. It is counted and not looked at.

mod sealed_files;

use std::{collections::BTreeSet, fmt, fs::File, os::fd::AsFd, path::PathBuf};

use kiln_image::Digest;
use kiln_tree::{Entry, EntryKind, Listing, TreePath, walk};

use crate::{
    Error, Key, LayerId, Result, Store, Warning, error, files, images,
    layers::{self, MetaRead},
    records,
    sealed::Flaw,
};

mod small;

/// What to check.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Compare owners. To be switched off inside a user namespace with a single id: all files are of one owner there.
    pub owners: bool,
    /// Compare device files. To be switched off inside a user namespace: they cannot be made there.
    pub devices: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owners: true,
            devices: true,
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being checked: `layers`, `records`, `blobs`, …
    pub what: &'static str,
    /// How many of them are done.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A record's file is damaged.
    Record {
        /// Its key.
        key: Key,
        /// What is wrong.
        reason: String,
    },
    /// A record names a layer that is damaged. Counts as a miss once that is set aside.
    RecordLayer {
        /// The record's key.
        key: Key,
        /// The layer.
        layer: LayerId,
    },
    /// A layer's meta data or listing is damaged.
    Layer {
        /// The layer.
        id: LayerId,
        /// What is wrong.
        reason: String,
    },
    /// A layer's files are not what its listing says.
    LayerContent {
        /// The layer.
        id: LayerId,
        /// The first path that differs.
        path: TreePath,
        /// What differs.
        reason: String,
    },
    /// A blob's bytes are not those of its digest.
    Blob {
        /// The digest that it should have.
        digest: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// An image's file is damaged, or what it is made of is not there.
    Image {
        /// The image.
        id: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The file of a multi-platform image is damaged, or lists an image that is not there.
    Index {
        /// The index.
        id: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A name points to no image, or to a damaged one.
    Name {
        /// The name.
        name: String,
        /// The missing image.
        image: Digest,
    },
    /// Another file of the store is damaged: a file-hash memory, a build, a name.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { key, reason } => write!(f, "record {key}: {reason}"),
            Self::RecordLayer { key, layer } => write!(f, "record {key}: layer {layer} is damaged"),
            Self::Layer { id, reason } => write!(f, "layer {id}: {reason}"),
            Self::LayerContent { id, path, reason } => write!(f, "layer {id}: /{path}: {reason}"),
            Self::Blob { digest, found } => write!(f, "blob {digest}: the bytes have digest {found}"),
            Self::Image { id, reason } => write!(f, "image {id}: {reason}"),
            Self::Index { id, reason } => write!(f, "index {id}: {reason}"),
            Self::Name { name, image } => write!(f, "name {name}: image {image} is missing or damaged"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records looked at.
    pub records: usize,
    /// Layers looked at.
    pub layers: usize,
    /// Files and folders in those layers.
    pub entries: usize,
    /// Blobs looked at.
    pub blobs: usize,
    /// Bytes of those blobs.
    pub blob_bytes: u64,
    /// Images looked at.
    pub images: usize,
    /// Layers and records that an earlier boot left unsynced: ignored by everything, and soon deleted.
    pub unsynced: usize,
    /// Records whose layers were deleted to make room: misses that still tell why a step ran.
    pub stale: usize,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Checks the whole store.
pub fn run(store: &Store, options: Options, progress: &dyn Fn(Progress)) -> Result<Report> {
    let mut check = Check {
        store,
        options,
        progress,
        report: Report::default(),
        good: BTreeSet::new(),
    };
    check.layers()?;
    check.records()?;
    check.blobs()?;
    check.images()?;
    check.small_files()?;
    Ok(check.report)
}

/// Checks one layer: its files against its listing. `None` for one that is in order, or not there.
pub fn layer(store: &Store, id: &LayerId, options: Options) -> Result<Option<Damage>> {
    let mut check = Check {
        store,
        options,
        progress: &|_| {},
        report: Report::default(),
        good: BTreeSet::new(),
    };
    check.layer(id.clone())?;
    Ok(check.report.damage.pop())
}

struct Check<'a> {
    store: &'a Store,
    options: Options,
    progress: &'a dyn Fn(Progress),
    report: Report,
    good: BTreeSet<LayerId>,
}

impl Check<'_> {
    fn each<T>(
        &mut self,
        what: &'static str,
        all: Vec<T>,
        mut one: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<()> {
        let total = all.len();
        for (done, item) in all.into_iter().enumerate() {
            (self.progress)(Progress { what, done, total });
            one(self, item)?;
        }
        (self.progress)(Progress {
            what,
            done: total,
            total,
        });
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let folder = self.store.root().join("layers");
        for name in files::names(&folder)? {
            if name.parse::<LayerId>().is_err() {
                let reason = "not the name of a layer".to_owned();
                self.report.damage.push(Damage::File {
                    path: folder.join(name),
                    reason,
                });
            }
        }
        self.each("layers", self.store.layers().list()?, Self::layer)
    }

    fn layer(&mut self, id: LayerId) -> Result<()> {
        self.report.layers += 1;
        let folder = self.store.layers().path(&id);
        let meta = match layers::read_meta(&folder, &id)? {
            MetaRead::Absent | MetaRead::Newer => return Ok(()),
            // Whoever makes room takes a layer away whole: then it is no damage.
            MetaRead::Damaged(_) if !folder.exists() => return Ok(()),
            MetaRead::Damaged(reason) => {
                self.report.damage.push(Damage::Layer { id, reason });
                return Ok(());
            }
            MetaRead::Good(meta) => meta,
        };
        if !self.store.shared.durability.trusted(&meta.stamp) {
            self.report.unsynced += 1;
            return Ok(());
        }
        match check_layer(&folder, &meta, self.options) {
            Ok(entries) => {
                self.report.entries += entries;
                self.good.insert(id);
            }
            Err(_) if !folder.exists() => {}
            Err(LayerFlaw::Whole(reason)) => self.report.damage.push(Damage::Layer { id, reason }),
            Err(LayerFlaw::At(path, reason)) => {
                self.report.damage.push(Damage::LayerContent { id, path, reason });
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<()> {
        self.each("records", self.store.records().list()?, |check, key| {
            check.report.records += 1;
            let Some(bytes) = files::read_opt(&check.store.records().path(&key))? else {
                return Ok(());
            };
            let damage = match records::parse(&bytes) {
                Ok((record, _)) if record.key != key => Some(Damage::Record {
                    key,
                    reason: format!("is the record of key {}", record.key),
                }),
                Ok((_, stamp)) if !check.store.shared.durability.trusted(&stamp) => {
                    check.report.unsynced += 1;
                    None
                }
                Ok((record, _)) => {
                    let damaged = record
                        .output
                        .iter()
                        .find(|layer| check.is_damaged(layer))
                        .cloned();
                    let missing = |layer: &LayerId| !check.good.contains(layer) && check.missing(layer);
                    if damaged.is_none() && record.output.iter().any(missing) {
                        check.report.stale += 1;
                    }
                    damaged.map(|layer| Damage::RecordLayer { key, layer })
                }
                Err(Flaw::Newer(_)) => None,
                Err(Flaw::Damaged(reason)) => Some(Damage::Record { key, reason }),
            };
            check.report.damage.extend(damage);
            Ok(())
        })
    }

    /// Not there, not trusted, or damaged. Layers published since the layers were checked are there.
    fn missing(&self, layer: &LayerId) -> bool {
        self.is_damaged(layer) || !matches!(self.store.layers().read(layer), Ok(Some(_)))
    }

    fn is_damaged(&self, layer: &LayerId) -> bool {
        self.report.damage.iter().any(|damage| match damage {
            Damage::Layer { id, .. } | Damage::LayerContent { id, .. } => id == layer,
            _ => false,
        })
    }

    fn blobs(&mut self) -> Result<()> {
        self.each("blobs", self.store.blobs().list()?, |check, digest| {
            let path = check.store.blobs().path(&digest);
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(source) => return Err(error::io("open", path)(source)),
            };
            let (found, size) = crate::blobs::hash(&mut file).map_err(error::io("read", &path))?;
            check.report.blobs += 1;
            check.report.blob_bytes += size;
            if found != digest {
                check.report.damage.push(Damage::Blob { digest, found });
            }
            Ok(())
        })
    }

    fn images(&mut self) -> Result<()> {
        self.each("images", self.store.images().ids()?, |check, id| {
            check.report.images += 1;
            let images = check.store.images();
            let Some(bytes) = files::read_opt(&images.id_path(&id))? else {
                return Ok(());
            };
            let reason = match images::parse(&bytes) {
                Ok(record) if record.id != id => Some(format!("is the record of image {}", record.id)),
                // One that was removed meanwhile may have lost its layers, too.
                Ok(record) => check
                    .image_parts(&record)
                    .filter(|_| images.id_path(&id).exists()),
                Err(Flaw::Newer(_)) => None,
                Err(Flaw::Damaged(reason)) => Some(reason),
            };
            check
                .report
                .damage
                .extend(reason.map(|reason| Damage::Image { id, reason }));
            Ok(())
        })?;
        self.indexes()?;
        let folder = self.store.root().join("images/names");
        for file in files::names(&folder)? {
            let path = folder.join(&file);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            match images::parse_name(&bytes, &file) {
                Ok((name, image)) if !self.is_known(&image) => {
                    self.report.damage.push(Damage::Name { name, image });
                }
                Ok(_) | Err(Flaw::Newer(_)) => {}
                Err(Flaw::Damaged(reason)) => self.report.damage.push(Damage::File { path, reason }),
            }
        }
        Ok(())
    }

    /// Whether a name may point to it: what is damaged goes, and its names with it.
    fn is_known(&self, image: &Digest) -> bool {
        let images = self.store.images();
        let has = |damage: &Damage| match damage {
            Damage::Image { id, .. } | Damage::Index { id, .. } => id == image,
            _ => false,
        };
        (images.id_path(image).exists() || images.index_path(image).exists())
            && !self.report.damage.iter().any(has)
    }

    fn indexes(&mut self) -> Result<()> {
        self.each("indexes", self.store.images().index_ids()?, |check, id| {
            let images = check.store.images();
            let Some(bytes) = files::read_opt(&images.index_path(&id))? else {
                return Ok(());
            };
            let reason = match images::parse_index(&bytes) {
                Ok(index) if index.id != id => Some(format!("is the record of index {}", index.id)),
                Ok(index) => index
                    .images
                    .iter()
                    .find(|entry| !check.is_known(&entry.image))
                    .map(|entry| format!("image {} is missing or damaged", entry.image)),
                Err(Flaw::Newer(_)) => None,
                Err(Flaw::Damaged(reason)) => Some(reason),
            };
            check
                .report
                .damage
                .extend(reason.map(|reason| Damage::Index { id, reason }));
            Ok(())
        })
    }

    fn image_parts(&self, record: &images::ImageRecord) -> Option<String> {
        let layer = record
            .layers
            .iter()
            .find(|layer| !self.good.contains(&layer.layer) && self.missing(&layer.layer));
        if let Some(layer) = layer {
            return Some(format!("layer {} is missing", layer.layer));
        }
        let bad = |digest: &Digest| {
            self.report
                .damage
                .iter()
                .any(|damage| matches!(damage, Damage::Blob { digest: bad, .. } if bad == digest))
        };
        let config = &record.config;
        (bad(config) || !self.store.blobs().path(config).exists())
            .then(|| format!("config {config} is missing"))
    }
}

enum LayerFlaw {
    Whole(String),
    At(TreePath, String),
}

fn check_layer(
    folder: &std::path::Path,
    meta: &layers::LayerMeta,
    options: Options,
) -> Result<usize, LayerFlaw> {
    compared_layer(folder, meta, options, false)
}

fn compared_layer(
    folder: &std::path::Path,
    meta: &layers::LayerMeta,
    options: Options,
    times: bool,
) -> Result<usize, LayerFlaw> {
    let whole = |reason: String| LayerFlaw::Whole(reason);
    let bytes = std::fs::read(folder.join("listing")).map_err(|error| whole(format!("listing: {error}")))?;
    let listing = Listing::from_bytes(&bytes).map_err(|error| whole(format!("listing: {error}")))?;
    if listing.content_hash() != meta.content {
        return Err(whole("listing is not the one of this layer".to_owned()));
    }
    let diff = File::open(folder.join("diff")).map_err(|error| whole(format!("diff: {error}")))?;
    let found = walk::layer(diff.as_fd()).map_err(|error| whole(format!("diff: {error}")))?;
    let difference = compare(&listing, &found, options)
        .or_else(|| if times { other_time(&listing, &found) } else { None });
    difference.map_or(Ok(listing.len()), |(path, reason)| {
        Err(LayerFlaw::At(path, reason))
    })
}

/// What is wrong with a layer whose files were copied. Their times count, too, to the second: a layer's tar has them.
pub(crate) fn flaw_of_copy(
    folder: &std::path::Path,
    meta: &layers::LayerMeta,
    options: Options,
) -> Option<String> {
    match compared_layer(folder, meta, options, true) {
        Ok(_) => None,
        Err(LayerFlaw::Whole(reason)) => Some(reason),
        Err(LayerFlaw::At(path, reason)) => Some(format!("/{path}: {reason}")),
    }
}

/// The first difference between what should be and what is. Times do not count: they are no content.
fn compare(wanted: &Listing, found: &Listing, options: Options) -> Option<(TreePath, String)> {
    let device = |entry: &&Entry| {
        matches!(
            entry.kind,
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
        )
    };
    let counts = |entry: &&Entry| options.devices || !device(entry);
    let mut wanted = wanted.entries().iter().filter(counts).peekable();
    let mut found = found.entries().iter().filter(counts).peekable();
    loop {
        match (wanted.peek(), found.peek()) {
            (None, None) => return None,
            (Some(wanted), None) => return Some((wanted.path.clone(), "is missing".to_owned())),
            (None, Some(found)) => return Some((found.path.clone(), "should not be there".to_owned())),
            (Some(wanted), Some(found)) if wanted.path < found.path => {
                return Some((wanted.path.clone(), "is missing".to_owned()));
            }
            (Some(wanted), Some(found)) if wanted.path > found.path => {
                return Some((found.path.clone(), "should not be there".to_owned()));
            }
            (Some(wanted), Some(found)) => {
                if let Some(reason) = difference(wanted, found, options) {
                    return Some((wanted.path.clone(), reason));
                }
            }
        }
        wanted.next();
        found.next();
    }
}

/// The first entry with another time. Both lists have the same paths, but for devices that cannot be made.
fn other_time(wanted: &Listing, found: &Listing) -> Option<(TreePath, String)> {
    let counts = |entry: &&Entry| {
        matches!(
            entry.kind,
            EntryKind::File { .. } | EntryKind::Directory { .. } | EntryKind::Symlink { .. }
        )
    };
    let pairs = wanted.entries().iter().filter(counts);
    pairs
        .zip(found.entries().iter().filter(counts))
        .find(|(wanted, found)| wanted.mtime.secs != found.mtime.secs)
        .map(|(wanted, _)| (wanted.path.clone(), "has another time".to_owned()))
}

fn difference(wanted: &Entry, found: &Entry, options: Options) -> Option<String> {
    if wanted.kind != found.kind {
        return Some(match (&wanted.kind, &found.kind) {
            (EntryKind::File { size: wanted, .. }, EntryKind::File { size: found, .. })
                if wanted != found =>
            {
                format!("has {found} bytes instead of {wanted}")
            }
            (EntryKind::File { .. }, EntryKind::File { .. }) => "has other bytes".to_owned(),
            (wanted, found) => format!("is {found:?} instead of {wanted:?}"),
        });
    }
    if matches!(wanted.kind, EntryKind::Whiteout) {
        return None;
    }
    if wanted.mode != found.mode && !matches!(wanted.kind, EntryKind::Symlink { .. }) {
        return Some(format!(
            "has mode {:04o} instead of {:04o}",
            found.mode, wanted.mode
        ));
    }
    if options.owners && (wanted.uid, wanted.gid) != (found.uid, found.gid) {
        return Some(format!(
            "is of {}:{} instead of {}:{}",
            found.uid, found.gid, wanted.uid, wanted.gid
        ));
    }
    (wanted.xattrs != found.xattrs).then(|| "has other extended attributes".to_owned())
}

/// Moves what the report names to `damaged/`. [`Error::Busy`] while any other process has the store open. Returns
/// what was moved.
pub fn repair(store: &Store, report: &Report) -> Result<Vec<Warning>> {
    let shared = &store.shared;
    shared.lease.exclusively(|| {
        let mut moved = Vec::new();
        for damage in &report.damage {
            let path = match damage {
                Damage::Record { key, .. } | Damage::RecordLayer { key, .. } => store.records().path(key),
                Damage::Layer { id, .. } | Damage::LayerContent { id, .. } => store.layers().path(id),
                Damage::Blob { digest, .. } => store.blobs().path(digest),
                Damage::Image { id, .. } => store.images().id_path(id),
                Damage::Index { id, .. } => store.images().index_path(id),
                Damage::Name { name, .. } => store.images().name_path(name),
                Damage::File { path, .. } => path.clone(),
            };
            if std::fs::symlink_metadata(&path).is_ok() {
                moved.push(shared.set_aside(&path, damage.to_string()));
            }
        }
        store.layers().forget_seen();
        match moved.iter().find(|warning| warning.moved_to.is_none()) {
            None => Ok(moved),
            Some(stuck) => Err(Error::Damaged {
                path: stuck.path.clone(),
                reason: "cannot be set aside".to_owned(),
            }),
        }
    })
}

#[cfg(test)]
mod tests;
