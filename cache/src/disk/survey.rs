//! Where the store's bytes are: every file of the store, counted once.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::measure;
use crate::{
    Key, LayerId, Result, Store, error, files,
    layers::{self, MetaRead},
    mounts::{self, MountRecord},
    sealed,
};
use kiln_image::Digest;

const KIND: &str = "usage";
const VERSION: u32 = 1;
const USAGE: &str = "usage";
/// Name, kind and version of a layer's file with what it takes.
pub(crate) const USAGE_FILE: (&str, (&str, u32)) = (USAGE, (KIND, VERSION));

/// What a layer takes may still change shortly after it was made: file systems allocate late. It is measured again
/// until the layer is as old as this.
const SETTLED_MS: u64 = 60_000;

/// `layers/<id>/usage`.
#[derive(Debug, Serialize, Deserialize)]
struct UsageFile {
    layer: LayerId,
    /// What is in `diff/`, without the folder itself.
    diff: u64,
}

/// A layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerUse {
    pub(crate) id: LayerId,
    pub(crate) bytes: u64,
    /// 0 for a damaged one.
    pub(crate) created_ms: u64,
    pub(crate) used_ms: u64,
}

/// Anything else with a name.
#[derive(Debug, Clone)]
pub(crate) struct Use<T> {
    pub(crate) what: T,
    pub(crate) bytes: u64,
    pub(crate) used_ms: u64,
}

/// What is in the store, and what it takes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) layers: Vec<LayerUse>,
    pub(crate) blobs: Vec<Use<Digest>>,
    pub(crate) mounts: Vec<Use<(String, Option<MountRecord>)>>,
    pub(crate) git: Vec<Use<String>>,
    pub(crate) contexts: Vec<Use<String>>,
    pub(crate) records: Vec<Use<Key>>,
    /// Files of images, names and indexes.
    pub(crate) images: u64,
    pub(crate) builds: u64,
    pub(crate) containers: u64,
    /// All the rest: the index, work in progress, locks, folders.
    pub(crate) other: u64,
}

impl Survey {
    /// Looks at the whole store.
    pub(crate) fn take(store: &Store) -> Result<Self> {
        let root = store.root();
        let mut survey = Self {
            other: own(root)?,
            ..Self::default()
        };
        for name in files::names(root)? {
            let path = root.join(&name);
            match name.as_str() {
                "layers" => survey.layers(store, &path)?,
                "blobs" => survey.blobs(&path)?,
                "mounts" => survey.mounts(&path)?,
                "git" => {
                    let is_repository = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
                    survey.git = survey.named(&path, is_repository)?;
                }
                "hashes" => survey.contexts = survey.named(&path, |_| true)?,
                "records" => survey.records(&path)?,
                "images" => survey.images(&path)?,
                "builds" => survey.builds = tree(&path)?,
                "containers" => survey.containers = tree(&path)?,
                _ => survey.other += tree(&path)?,
            }
        }
        Ok(survey)
    }

    /// The sum of everything.
    pub(crate) fn total(&self) -> u64 {
        fn sum<T>(all: &[Use<T>]) -> u64 {
            all.iter().map(|one| one.bytes).sum()
        }
        self.layers.iter().map(|layer| layer.bytes).sum::<u64>()
            + sum(&self.blobs)
            + sum(&self.mounts)
            + sum(&self.git)
            + sum(&self.contexts)
            + sum(&self.records)
            + self.images
            + self.builds
            + self.containers
            + self.other
    }

    fn layers(&mut self, store: &Store, folder: &Path) -> Result<()> {
        self.other += own(folder)?;
        for name in files::names(folder)? {
            match name.parse() {
                Ok(id) => self.layers.extend(layer(store, id)?),
                Err(_) => self.other += tree(&folder.join(name))?,
            }
        }
        Ok(())
    }

    fn images(&mut self, folder: &Path) -> Result<()> {
        self.other += own(folder)?;
        for name in files::names(folder)? {
            let path = folder.join(name);
            self.other += own(&path)?;
            self.images += below(&path)?;
        }
        Ok(())
    }

    fn blobs(&mut self, folder: &Path) -> Result<()> {
        let (blobs, stamps) = (folder.join("sha256"), folder.join("stamps"));
        for path in [folder, &blobs, &stamps] {
            self.other += own(path)?;
        }
        for name in files::names(folder)? {
            if name != "sha256" && name != "stamps" {
                self.other += tree(&folder.join(name))?;
            }
        }
        let mut stamped = 0;
        for name in files::names(&blobs)? {
            let path = blobs.join(&name);
            match Digest::from_hex(&name) {
                Ok(what) => {
                    let stamp = own(&stamps.join(&name))?;
                    stamped += stamp;
                    self.blobs.push(Use {
                        what,
                        bytes: own(&path)? + stamp,
                        used_ms: modified_ms(&path),
                    });
                }
                Err(_) => self.other += tree(&path)?,
            }
        }
        // Stamps without a blob.
        self.other += below(&stamps)?.saturating_sub(stamped);
        Ok(())
    }

    fn mounts(&mut self, folder: &Path) -> Result<()> {
        self.other += own(folder)?;
        for key in files::names(folder)? {
            self.other += own(&folder.join(&key))?;
            for number in mounts::numbers(&folder.join(&key))? {
                let name = format!("{key}/{number}");
                let path = folder.join(&name);
                let record: Option<MountRecord> = files::read_opt(&path.join(mounts::SIDECAR))?
                    .and_then(|bytes| sealed::open(mounts::KIND, mounts::VERSION, &bytes).ok());
                self.mounts.push(Use {
                    used_ms: record
                        .as_ref()
                        .map_or_else(|| modified_ms(&path), |record| record.used_ms),
                    what: (name, record),
                    bytes: tree(&path)?,
                });
            }
        }
        Ok(())
    }

    /// The files or folders in a folder. Those that `pick` does not want are of the rest.
    fn named(&mut self, folder: &Path, pick: impl Fn(&str) -> bool) -> Result<Vec<Use<String>>> {
        self.other += own(folder)?;
        let mut found = Vec::new();
        for name in files::names(folder)? {
            let path = folder.join(&name);
            let bytes = tree(&path)?;
            if pick(&name) {
                found.push(Use {
                    used_ms: modified_ms(&path),
                    what: name,
                    bytes,
                });
            } else {
                self.other += bytes;
            }
        }
        Ok(found)
    }

    fn records(&mut self, folder: &Path) -> Result<()> {
        self.other += own(folder)?;
        for shard in files::names(folder)? {
            let shard = folder.join(shard);
            self.other += own(&shard)?;
            for name in files::names(&shard)? {
                let path = shard.join(&name);
                let bytes = own(&path)?;
                match name.parse() {
                    Ok(what) => self.records.push(Use {
                        what,
                        bytes,
                        used_ms: modified_ms(&path),
                    }),
                    Err(_) => self.other += bytes,
                }
            }
        }
        Ok(())
    }
}

/// What a layer takes; `None` when it went just now. What is in its `diff/` is measured once and kept.
fn layer(store: &Store, id: LayerId) -> Result<Option<LayerUse>> {
    let folder = store.layers().path(&id);
    let meta = match layers::read_meta(&folder, &id)? {
        MetaRead::Absent => return Ok(None),
        MetaRead::Good(meta) => Some(meta),
        MetaRead::Newer | MetaRead::Damaged(_) => None,
    };
    let mut bytes = own(&folder)?;
    for name in files::names(&folder)? {
        bytes += own(&folder.join(name))?;
    }
    let kept = folder.join(USAGE);
    let known = files::read_opt(&kept)?
        .and_then(|bytes| sealed::open::<UsageFile>(KIND, VERSION, &bytes).ok())
        .filter(|known| known.layer == id);
    let diff = if let Some(known) = known {
        known.diff
    } else {
        let diff = below(&folder.join("diff"))?;
        let is_settled =
            |meta: &layers::LayerMeta| files::now_ms().saturating_sub(meta.created_ms) > SETTLED_MS;
        if meta.as_ref().is_some_and(is_settled) {
            let file = UsageFile {
                layer: id.clone(),
                diff,
            };
            let sealed = sealed::seal(KIND, VERSION, &file)?;
            // A full disk, or the layer is just being deleted: measured again next time.
            if store.shared.temp.publish_into(&sealed, &kept).is_ok() {
                bytes += own(&kept)?;
            }
        }
        diff
    };
    Ok(Some(LayerUse {
        used_ms: modified_ms(&folder.join(layers::META)),
        created_ms: meta.map_or(0, |meta| meta.created_ms),
        bytes: bytes + diff,
        id,
    }))
}

fn own(path: &Path) -> Result<u64> {
    measure::own(path).map_err(error::io("measure", path))
}

fn tree(path: &Path) -> Result<u64> {
    measure::tree(path).map_err(error::io("measure", path))
}

fn below(path: &Path) -> Result<u64> {
    measure::below(path).map_err(error::io("measure", path))
}

/// 0 for what is not there.
fn modified_ms(path: &Path) -> u64 {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
