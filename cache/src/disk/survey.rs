//! Where the store's bytes are: every file of the store, counted once.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};

use super::{Stop, check, measure};
use crate::{
    Key, LayerId, Result, Store, Variant, error, files,
    layers::{self, MetaRead},
    mounts::{self, MountRecord},
    remotes, sealed, variants,
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
    /// Where that was so: on another file system it may take more or less.
    #[serde(default)]
    place: Option<layers::Inode>,
}

/// A layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerUse {
    pub(crate) id: LayerId,
    pub(crate) bytes: u64,
    /// 0 for a damaged one.
    pub(crate) created_ms: u64,
    pub(crate) used_ms: u64,
    /// The sha256 of its tar, if it is known.
    pub(crate) diff_id: Option<Digest>,
}

/// What is known of one layer as a blob.
#[derive(Debug, Clone)]
pub(crate) struct VariantUse {
    pub(crate) diff_id: Digest,
    pub(crate) form: String,
    /// Its file, and the first one's folder.
    pub(crate) bytes: u64,
    pub(crate) used_ms: u64,
    /// `None` for a damaged one, or one of a newer format.
    pub(crate) read: Option<Variant>,
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
    pub(crate) variants: Vec<VariantUse>,
    /// What is remembered of downloads: the file's name, and the address for people.
    pub(crate) remotes: Vec<Use<(String, String)>>,
    /// Stamps of blobs that are gone.
    pub(crate) stray_stamps: Vec<String>,
    /// Files of images, names and indexes.
    pub(crate) images: u64,
    pub(crate) builds: u64,
    pub(crate) containers: u64,
    /// All the rest: the index, work in progress, locks, folders.
    pub(crate) other: u64,
}

impl Survey {
    /// Looks at the whole store.
    pub(crate) fn take(store: &Store, stop: Stop<'_>) -> Result<Self> {
        let names = files::names(store.root())?;
        Self::of(store, &names, stop)
    }

    /// Looks at what is neither a layer nor a record, and could go.
    pub(crate) fn of_the_rest(store: &Store, stop: Stop<'_>) -> Result<Self> {
        let names = ["blobs", "git", "hashes", "mounts", "remotes", "variants"];
        Self::of(store, &names.map(str::to_owned), stop)
    }

    fn of(store: &Store, names: &[String], stop: Stop<'_>) -> Result<Self> {
        let root = store.root();
        let mut survey = Self {
            other: own(root)?,
            ..Self::default()
        };
        for name in names {
            let path = root.join(name);
            check(stop, &path)?;
            match name.as_str() {
                "layers" => survey.layers(store, &path, stop)?,
                "blobs" => survey.blobs(&path, stop)?,
                "mounts" => survey.mounts(&path, stop)?,
                "git" => {
                    let is_repository = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
                    survey.git = survey.named(&path, is_repository, stop)?;
                }
                "hashes" => survey.contexts = survey.named(&path, |_| true, stop)?,
                "records" => survey.records(&path, stop)?,
                "variants" => survey.variants(&path, stop)?,
                "remotes" => survey.remotes(&path, stop)?,
                "images" => survey.images(&path, stop)?,
                "builds" => survey.builds = tree(&path, stop)?,
                "containers" => survey.containers = tree(&path, stop)?,
                _ => survey.other += tree(&path, stop)?,
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
            + sum(&self.remotes)
            + self.variants.iter().map(|variant| variant.bytes).sum::<u64>()
            + self.images
            + self.builds
            + self.containers
            + self.other
    }

    fn layers(&mut self, store: &Store, folder: &Path, stop: Stop<'_>) -> Result<()> {
        self.other += own(folder)?;
        for name in files::names(folder)? {
            check(stop, folder)?;
            match name.parse() {
                Ok(id) => self.layers.extend(layer(store, id, stop)?),
                Err(_) => self.other += tree(&folder.join(name), stop)?,
            }
        }
        Ok(())
    }

    fn images(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
        self.other += own(folder)?;
        for name in files::names(folder)? {
            let path = folder.join(name);
            self.other += own(&path)?;
            self.images += below(&path, stop)?;
        }
        Ok(())
    }

    fn blobs(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
        let (blobs, stamps) = (folder.join("sha256"), folder.join("stamps"));
        for path in [folder, &blobs, &stamps] {
            self.other += own(path)?;
        }
        for name in files::names(folder)? {
            if name != "sha256" && name != "stamps" {
                self.other += tree(&folder.join(name), stop)?;
            }
        }
        // Before the blobs: a stamp is written after its blob, so one without a blob has lost it.
        let mut strays: BTreeSet<String> = files::names(&stamps)?.into_iter().collect();
        let mut stamped = 0;
        for name in files::names(&blobs)? {
            check(stop, &blobs)?;
            let path = blobs.join(&name);
            match Digest::from_hex(&name) {
                Ok(what) => {
                    let stamp = own(&stamps.join(&name))?;
                    stamped += stamp;
                    strays.remove(&name);
                    self.blobs.push(Use {
                        what,
                        bytes: own(&path)? + stamp,
                        used_ms: modified_ms(&path),
                    });
                }
                Err(_) => self.other += tree(&path, stop)?,
            }
        }
        self.stray_stamps = strays.into_iter().collect();
        self.other += below(&stamps, stop)?.saturating_sub(stamped);
        Ok(())
    }

    fn variants(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
        self.other += own(folder)?;
        for hex in files::names(folder)? {
            check(stop, folder)?;
            let path = folder.join(&hex);
            let Ok(diff_id) = Digest::from_hex(&hex) else {
                self.other += tree(&path, stop)?;
                continue;
            };
            let mut extra = own(&path)?;
            for form in files::names(&path)? {
                let file = path.join(&form);
                let bytes = own(&file)?;
                if !variants::is_form(&form) {
                    self.other += bytes;
                    continue;
                }
                let read = files::read_opt(&file)?.and_then(|bytes| variants::parse(&bytes).ok());
                self.variants.push(VariantUse {
                    diff_id,
                    bytes: bytes + std::mem::take(&mut extra),
                    used_ms: modified_ms(&file),
                    read: read.filter(|read| read.diff_id == diff_id && read.form == form),
                    form,
                });
            }
            self.other += extra;
        }
        Ok(())
    }

    fn remotes(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
        for file in self.named(folder, |_| true, stop)? {
            let read = files::read_opt(&folder.join(&file.what))?;
            let known = read.and_then(|bytes| remotes::parse(&bytes).ok());
            self.remotes.push(Use {
                what: (file.what, known.map(|known| known.shown).unwrap_or_default()),
                bytes: file.bytes,
                used_ms: file.used_ms,
            });
        }
        Ok(())
    }

    fn mounts(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
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
                    bytes: tree(&path, stop)?,
                });
            }
        }
        Ok(())
    }

    /// The files or folders in a folder. Those that `pick` does not want are of the rest.
    fn named(
        &mut self,
        folder: &Path,
        pick: impl Fn(&str) -> bool,
        stop: Stop<'_>,
    ) -> Result<Vec<Use<String>>> {
        self.other += own(folder)?;
        let mut found = Vec::new();
        for name in files::names(folder)? {
            let path = folder.join(&name);
            let bytes = tree(&path, stop)?;
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

    fn records(&mut self, folder: &Path, stop: Stop<'_>) -> Result<()> {
        self.other += own(folder)?;
        for shard in files::names(folder)? {
            check(stop, folder)?;
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
pub(super) fn layer(store: &Store, id: LayerId, stop: Stop<'_>) -> Result<Option<LayerUse>> {
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
    let place = layers::Inode::of(&folder).ok();
    let known = files::read_opt(&kept)?
        .and_then(|bytes| sealed::open::<UsageFile>(KIND, VERSION, &bytes).ok())
        .filter(|known| known.layer == id && known.place == place);
    let diff = if let Some(known) = known {
        known.diff
    } else {
        let diff = below(&folder.join("diff"), stop)?;
        let is_settled =
            |meta: &layers::LayerMeta| files::now_ms().saturating_sub(meta.created_ms) > SETTLED_MS;
        if meta.as_ref().is_some_and(is_settled) {
            let file = UsageFile {
                layer: id.clone(),
                diff,
                place,
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
        used_ms: layer_used_ms(store, &id),
        created_ms: meta.map_or(0, |meta| meta.created_ms),
        bytes: bytes + diff,
        diff_id: layers::read_diff_id(&folder, &id),
        id,
    }))
}

pub(super) fn own(path: &Path) -> Result<u64> {
    measure::own(path).map_err(error::io("measure", path))
}

fn tree(path: &Path, stop: Stop<'_>) -> Result<u64> {
    measure::tree(path, stop).map_err(error::io("measure", path))
}

fn below(path: &Path, stop: Stop<'_>) -> Result<u64> {
    measure::below(path, stop).map_err(error::io("measure", path))
}

/// When a layer was last used; 0 for one that is not there, or damaged.
pub(super) fn layer_used_ms(store: &Store, id: &LayerId) -> u64 {
    modified_ms(&store.layers().path(id).join(layers::META))
}

/// 0 for what is not there.
fn modified_ms(path: &Path) -> u64 {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
