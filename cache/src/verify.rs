//! Checks everything in the store against everything else, and sets aside what is damaged.
//!
//! [`run`] reads every record, listing, file, and blob. It changes nothing, and may run beside builds: what they
//! publish meanwhile is either seen whole or not seen. [`repair`] moves what the report names to `damaged/`; it
//! needs the store for itself, since a layer could be mounted. After a repair every step whose result is gone
//! runs again; nothing else is lost.
//!
//! What an earlier boot left unsynced is not damage: nothing believes it. It is counted and not looked at.
//!
//! Layers, records and blobs are checked here, each layer's files by `layer_files`; the others have files of their own:
//! `images`, `small` for what is believed for what it is, `sealed_files` for what could be found out again.

mod damage;
mod images;
mod layer_files;
mod repair;
mod sealed_files;
mod small;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fs::File};

pub use damage::Damage;
pub(crate) use layer_files::flaw_of_copy;
pub use repair::repair;

use crate::{
    LayerId, Result, Store, error, files,
    layers::{self, MetaRead},
    records,
    sealed::Flaw,
};
use layer_files::{LayerFlaw, check_layer};

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
}
