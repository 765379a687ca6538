//! Writing what a build used to a cache: read what is there, add to it, write, and see that it stayed.
//!
//! A registry has no way to replace a name only if it still means what was read. So an exporter looks once more right
//! before it writes, and some time after; when somebody else's cache stands there that lacks its records, it begins
//! anew with that one. The time after is longer than its own from looking to writing, so two that do this lose
//! nothing of each other, unless one of them is held up in just that moment for much longer than the other was.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_cache::portable::{self, Day};
use kiln_cache::{Key, LayerId, PortableCache, PortableLayer, PortableRecord, Snapshot};
use kiln_image::{Descriptor, Digest};

use super::folder::Folder;
use super::place::{Repository, Target};
use super::upload::Uploads;
use super::{CacheError, CacheExport, CacheLocation, CacheMode, Foreign, read};
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::chain;
use crate::solve::Solution;
use crate::task::{Reporter, Task};

/// How often the name is written when others write to it, too.
const ATTEMPTS: u32 = 12;
/// How long to wait at least before looking whether what was written stands.
const SETTLE: Duration = Duration::from_millis(50);
/// Layers that are brought at the same time.
const UPLOADS: usize = 4;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;

/// What a build used: for exports.
#[derive(Debug, Clone, Default)]
pub struct SolvedCache {
    pub(crate) records: BTreeMap<Key, PortableRecord>,
    /// Layers of the build's images: whoever hits has these images.
    pub(crate) base: HashSet<LayerId>,
    /// Layers that were promised by other caches and not needed here.
    pub(crate) imported: HashMap<LayerId, (CacheLocation, PortableLayer)>,
}

impl SolvedCache {
    /// The records whose layers all are part of these results.
    fn within(&self, results: &[&Snapshot]) -> BTreeMap<Key, PortableRecord> {
        let layers: HashSet<&LayerId> = results.iter().flat_map(|snapshot| &snapshot.layers).collect();
        let is_within = |record: &PortableRecord| record.output.iter().all(|id| layers.contains(id));
        let records = self.records.iter().filter(|(_, record)| is_within(record));
        records.map(|(key, record)| (*key, record.clone())).collect()
    }
}

/// What is at a place.
struct There {
    digest: Option<Digest>,
    cache: PortableCache,
}

impl Engine {
    /// The cache for the configuration of the image of `solution`.
    pub fn inline_cache(
        &self,
        solved: &SolvedCache,
        solution: &Solution,
    ) -> Result<serde_json::Value, CacheError> {
        let made = |id: &LayerId| match self.store.layers().get(id) {
            Ok(Some(layer)) => (layer.created_ms(), layer.size()),
            Ok(None) | Err(_) => match solution.lazy.get(id) {
                Some(lazy) => (lazy.created_ms.unwrap_or(0), lazy.size),
                // Only remarks are lost.
                None => (0, 0),
            },
        };
        let records = solved.within(&[&solution.snapshot]);
        Ok(portable::encode_inline(
            &solution.snapshot.layers,
            &records,
            made,
        )?)
    }

    /// Writes what a build used to the place that `export` names. `results` are the file systems that it made.
    pub fn export_cache(
        &self,
        solved: &SolvedCache,
        results: &[&Snapshot],
        export: &CacheExport,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<(), CacheError> {
        let name = format!("exporting cache to {}", export.target);
        let mut task = reporter.announce(name, Vec::new(), None);
        task.start();
        let result = self.export_to(solved, results, export, &task, cancel);
        match &result {
            Ok(()) => task.done(),
            Err(_) if cancel.is_raised() => task.canceled(),
            Err(error) if export.ignore_error => {
                task.warn(format!("the cache is not exported: {}", chain(error)), None);
                task.done();
            }
            Err(error) => task.failed(chain(error)),
        }
        if export.ignore_error && !cancel.is_raised() {
            return Ok(());
        }
        result
    }

    fn export_to(
        &self,
        solved: &SolvedCache,
        results: &[&Snapshot],
        export: &CacheExport,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), CacheError> {
        let records = match export.mode {
            CacheMode::Min => solved.within(results),
            CacheMode::Max => solved.records.clone(),
        };
        let write = |target: &dyn Target| {
            let exporter = Exporter {
                engine: self,
                solved,
                export,
                target,
                task,
                cancel,
                today: today(),
            };
            exporter.run(records)
        };
        match &export.target {
            CacheLocation::Registry(reference) => write(&Repository {
                client: self.images.client()?,
                reference,
                to_replace: true,
            }),
            CacheLocation::Folder { path, tag, .. } => write(&Folder::create(path, tag)?),
        }
    }
}

fn today() -> Day {
    let days = jiff::Timestamp::now().as_second() / SECONDS_A_DAY;
    Day::try_from(days).unwrap_or_default()
}

struct Exporter<'a> {
    engine: &'a Engine,
    solved: &'a SolvedCache,
    export: &'a CacheExport,
    target: &'a dyn Target,
    task: &'a Task,
    cancel: &'a Cancel,
    today: Day,
}

impl Exporter<'_> {
    fn run(&self, records: BTreeMap<Key, PortableRecord>) -> Result<(), CacheError> {
        let there = self.there()?;
        let mut ours = PortableCache {
            records,
            layers: BTreeMap::new(),
        };
        for record in ours.records.values_mut() {
            record.seen = self.today;
        }
        self.bring_layers(&mut ours, &there.cache)?;
        self.publish(&ours, there)
    }

    /// What is at the place. What cannot be used is replaced; an image is not.
    fn there(&self) -> Result<There, CacheError> {
        let nothing = |digest| There {
            digest,
            cache: PortableCache::default(),
        };
        let Some(root) = self.target.root()? else {
            return Ok(nothing(None));
        };
        let digest = Some(root.digest);
        match read::load_own(self.target, &root) {
            Ok(cache) => Ok(There { digest, cache }),
            Err(CacheError::Foreign(Foreign::Image)) => Err(CacheError::Foreign(Foreign::Image)),
            Err(error) if replaceable(&error) => {
                let message = format!("what is at {} is replaced: {}", self.export.target, chain(&error));
                self.task.warn(message, None);
                Ok(nothing(digest))
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the layers of `ours` to the place, as far as they are not there; records with a layer that cannot be
    /// brought go.
    fn bring_layers(&self, ours: &mut PortableCache, there: &PortableCache) -> Result<(), CacheError> {
        let wanted: BTreeSet<&LayerId> = ours.records.values().flat_map(|record| &record.output).collect();
        let wanted: Vec<LayerId> = wanted
            .into_iter()
            .filter(|id| !self.solved.base.contains(*id) && !there.layers.contains_key(*id))
            .cloned()
            .collect();
        let queue = Mutex::new(wanted.iter());
        let brought = Mutex::new(BTreeMap::new());
        let failure: Mutex<Option<CacheError>> = Mutex::default();
        let uploads = Uploads {
            engine: self.engine,
            target: self.target,
            location: &self.export.target,
            compression: self.export.compression,
            task: self.task,
            cancel: self.cancel,
        };
        let work = || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(id) = next else { return };
                if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    return;
                }
                match self.bring(&uploads, id) {
                    Ok(layer) => {
                        let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
                        brought.insert(id.clone(), layer);
                    }
                    Err(error) => {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(error);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..UPLOADS.min(wanted.len()) {
                scope.spawn(work);
            }
        });
        if self.cancel.is_raised() {
            return Err(CacheError::Canceled);
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let brought: BTreeMap<LayerId, Option<PortableLayer>> =
            brought.into_inner().unwrap_or_else(PoisonError::into_inner);
        ours.without(|id| matches!(brought.get(id), Some(None)));
        let used = ours.records.values().flat_map(|record| &record.output);
        let layers = used.filter_map(|id| Some((id.clone(), brought.get(id)?.clone()?)));
        ours.layers = layers.collect();
        Ok(())
    }

    fn bring(&self, uploads: &Uploads<'_>, id: &LayerId) -> Result<Option<PortableLayer>, CacheError> {
        if self.engine.store.layers().get(id)?.is_some() {
            return uploads.own(id);
        }
        match self.solved.imported.get(id) {
            Some((from, layer)) => uploads.imported(id, from, layer),
            None => Ok(None),
        }
    }

    fn publish(&self, ours: &PortableCache, mut there: There) -> Result<(), CacheError> {
        for attempt in 0..ATTEMPTS {
            if self.cancel.is_raised() {
                return Err(CacheError::Canceled);
            }
            let mut cache = ours.clone();
            cache.merge(&there.cache);
            cache.bound(self.today);
            let encoded = cache.encode()?;
            if there.digest == Some(Digest::sha256_of(&encoded.manifest)) {
                return Ok(());
            }
            let document = Descriptor::of(portable::MEDIA_TYPE, &encoded.document);
            if !self.target.has(&document)? {
                self.target.put(&document, &encoded.document)?;
            }
            let looked = Instant::now();
            if !self.target.is_locked() && self.target.root()?.map(|root| root.digest) != there.digest {
                there = self.there()?;
                continue;
            }
            if let Err(error) = self.target.publish(&encoded.manifest) {
                if self.forget_lost(ours, &mut there)? {
                    continue;
                }
                return Err(error);
            }
            if self.target.is_locked() {
                return Ok(());
            }
            std::thread::sleep(SETTLE.max(looked.elapsed() * 4));
            let mut wanted = ours.clone();
            wanted.records.retain(|key, _| cache.records.contains_key(key));
            there = self.there()?;
            if there.cache.covers(&wanted) {
                return Ok(());
            }
            std::thread::sleep(pause(attempt));
        }
        Err(CacheError::Conflict(ATTEMPTS))
    }

    /// Takes out layers of others whose blobs are gone (a registry may have been cleaned); says whether there are any.
    fn forget_lost(&self, ours: &PortableCache, there: &mut There) -> Result<bool, CacheError> {
        let mut lost = HashSet::new();
        for (id, layer) in &there.cache.layers {
            let listing = layer.listing.iter();
            for blob in std::iter::once(&layer.blob).chain(listing) {
                if !ours.layers.contains_key(id) && !self.target.has(blob)? {
                    lost.insert(id.clone());
                }
            }
        }
        there.cache.without(|id| lost.contains(id));
        Ok(!lost.is_empty())
    }
}

/// Whether what is there may be replaced by a cache.
fn replaceable(error: &CacheError) -> bool {
    match error {
        CacheError::Foreign(Foreign::BuildKit)
        | CacheError::Malformed(_)
        | CacheError::Portable(_)
        | CacheError::Layout(_) => true,
        CacheError::Registry(error) => matches!(
            error.kind(),
            kiln_registry::ErrorKind::NotFound
                | kiln_registry::ErrorKind::DigestMismatch
                | kiln_registry::ErrorKind::SizeMismatch
        ),
        _ => false,
    }
}

/// Some time that differs between those who wait.
fn pause(attempt: u32) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    Duration::from_millis(random % (50 << attempt.min(5)))
}
