//! The caches that a build reads: keys first, a layer's bytes only when somebody needs its files.
//!
//! Nothing is asked of any place before a key is missing in the store: a build that is cached here makes no request.
//! Then the documents of all places are read at once, and a hit gives layers that may be nowhere on this disk. They
//! come when a step runs on them ([`Imports::ensure`]), from the first place that has them in order. A layer that no
//! place has as promised is *lost*: the solver forgets the hits that led to it and goes on without them.

mod lazy;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_cache::{
    Key, KeyPart, LayerId, PortableCache, PortableLayer, PortableRecord, Record, RecordKind, Snapshot,
};
use kiln_image::layer::decompress;
use kiln_tree::Listing;

use super::folder::Folder;
use super::place::{Place, Repository};
use super::{CacheError, CacheLocation, read};
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::{StepFailure, chain};
use crate::graph::{Graph, ImageSource, Op, Source, SourceLayer, VertexId};
use crate::image::{Origin, PullError};
use crate::task::{Reporter, Task};

/// Bytes of a listing, compressed and not: a layer of a million files takes about 100 MiB.
const MAX_LISTING_BLOB: usize = 64 << 20;
const MAX_LISTING: u64 = 256 << 20;
/// Layers that are fetched at the same time, as many as connections are useful.
const FETCHES: usize = 4;

/// A cache that was read.
#[derive(Debug)]
struct Imported {
    location: CacheLocation,
    cache: PortableCache,
}

/// A hit that becomes a record of the store once its layers are there.
struct Used {
    kind: RecordKind,
    parts: Vec<KeyPart>,
    step: String,
    record: PortableRecord,
}

/// The caches of one build.
pub(crate) struct Imports<'a> {
    engine: &'a Engine,
    locations: &'a [CacheLocation],
    reporter: &'a Reporter,
    loaded: OnceLock<Vec<Imported>>,
    /// Layers of the build's images that can be fetched.
    images: HashMap<LayerId, &'a ImageSource>,
    /// Layers that a cache promises and does not have, by the cache's position.
    broken: Mutex<HashSet<(usize, LayerId)>>,
    listings: Mutex<HashMap<LayerId, Arc<Listing>>>,
    turns: Mutex<HashMap<LayerId, Arc<Mutex<()>>>>,
    used: Mutex<BTreeMap<Key, Used>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Imports<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        locations: &'a [CacheLocation],
        reporter: &'a Reporter,
        graph: &'a Graph,
        order: &[VertexId],
    ) -> Self {
        let mut images = HashMap::new();
        for vertex in order.iter().filter_map(|id| graph.get(*id)) {
            if let Op::Source(Source::Image(image)) = &vertex.op {
                let fetchable = image.layers.iter().filter(|layer| layer.blob.is_some());
                images.extend(fetchable.map(|layer| (layer.layer.clone(), image)));
            }
        }
        Self {
            engine,
            locations,
            reporter,
            loaded: OnceLock::new(),
            images,
            broken: Mutex::default(),
            listings: Mutex::default(),
            turns: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// What some cache has under `key`, if all layers of it can be had.
    pub(crate) fn find(&self, key: &Key, kind: RecordKind) -> Result<Option<PortableRecord>, StepFailure> {
        if self.locations.is_empty() {
            return Ok(None);
        }
        for imported in self.loaded() {
            let Some(record) = imported.cache.records.get(key) else {
                continue;
            };
            if record.kind == kind && self.available(&record.output)? {
                return Ok(Some(record.clone()));
            }
        }
        Ok(None)
    }

    /// Remembers that `record` was a hit.
    pub(crate) fn note(&self, key: Key, parts: Vec<KeyPart>, step: &str, record: PortableRecord) {
        let used = Used {
            kind: record.kind,
            parts,
            step: step.to_owned(),
            record,
        };
        lock(&self.used).insert(key, used);
    }

    /// Makes records of the hits whose layers are all in the store by now.
    pub(crate) fn keep(&self) -> Result<(), kiln_cache::Error> {
        let store = &self.engine.store;
        for (key, used) in std::mem::take(&mut *lock(&self.used)) {
            let mut complete = true;
            for layer in &used.record.output {
                complete &= store.layers().get(layer)?.is_some();
            }
            if !complete {
                continue;
            }
            store.records().put(&Record {
                key,
                kind: used.kind,
                parts: used.parts,
                output: used.record.output,
                identity: Some(Key::of("step", &[KeyPart::new("name", &used.step)])),
                step: used.step,
                created_ms: used.record.created_ms,
                duration_ms: used.record.duration_ms,
            })?;
        }
        Ok(())
    }

    /// Whether each of these layers is in the store, or some place promises it.
    pub(crate) fn available(&self, layers: &[LayerId]) -> Result<bool, StepFailure> {
        for id in layers {
            let known = self.images.contains_key(id) || self.promised(id).is_some();
            if !known && self.engine.store.layers().get(id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first cache that promises the layer and has not broken the promise.
    fn promised(&self, id: &LayerId) -> Option<(usize, &Imported, &PortableLayer)> {
        let broken = lock(&self.broken);
        let loaded = self.loaded.get()?;
        loaded.iter().enumerate().find_map(|(at, imported)| {
            let layer = imported.cache.layers.get(id)?;
            (!broken.contains(&(at, id.clone()))).then_some((at, imported, layer))
        })
    }

    /// Where a layer that is not in the store was promised: for an export that hands it on.
    pub(crate) fn origin(&self, id: &LayerId) -> Option<(CacheLocation, PortableLayer)> {
        self.promised(id)
            .map(|(_, imported, layer)| (imported.location.clone(), layer.clone()))
    }

    /// The record of a key as some cache has it.
    pub(crate) fn record(&self, key: &Key) -> Option<PortableRecord> {
        let loaded = self.loaded.get()?;
        loaded
            .iter()
            .find_map(|imported| imported.cache.records.get(key).cloned())
    }

    /// The caches, all read when the first key is asked for.
    fn loaded(&self) -> &[Imported] {
        self.loaded.get_or_init(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = self
                    .locations
                    .iter()
                    .map(|location| scope.spawn(|| self.load(location)))
                    .collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, Option<Imported>>| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                threads.into_iter().filter_map(join).collect()
            })
        })
    }

    fn load(&self, location: &CacheLocation) -> Option<Imported> {
        let name = format!("importing cache manifest from {location}");
        let mut task = self.reporter.announce(name, Vec::new(), None);
        task.start();
        let result = with_place(self.engine, location, |place| read::load(place));
        match result {
            Ok(Some(cache)) => {
                let told = format!("{} records, {} layers", cache.records.len(), cache.layers.len());
                task.progress(told, 0, None, true);
                task.done();
                return Some(Imported {
                    location: location.clone(),
                    cache,
                });
            }
            Ok(None) => task.warn(format!("there is no cache at {location} yet"), None),
            Err(error) => task.warn(
                format!("no cache is taken from {location}: {}", chain(&error)),
                None,
            ),
        }
        // Not a failure: the build goes on without it.
        task.done();
        None
    }

    /// What is in a layer that may not be in the store: from its own listing, as far as that has the hash that the
    /// layer's id says.
    pub(crate) fn listing(&self, id: &LayerId) -> Option<Arc<Listing>> {
        if let Some(listing) = lock(&self.listings).get(id) {
            return Some(Arc::clone(listing));
        }
        let (_, imported, layer) = self.promised(id)?;
        let blob = layer.listing.as_ref()?;
        let read = with_place(self.engine, &imported.location, |place| {
            read::read_bounded(place, blob, MAX_LISTING_BLOB)
        });
        let listing = read.map_err(|error| chain(&error)).and_then(|bytes| {
            let mut plain = Vec::new();
            decompress(&bytes[..])
                .and_then(|reader| reader.take(MAX_LISTING).read_to_end(&mut plain))
                .map_err(|error| error.to_string())?;
            let listing = Listing::from_bytes(&plain).map_err(|error| chain(&error))?;
            let found = LayerId::from_content(&listing.content_hash());
            if found == *id {
                Ok(Arc::new(listing))
            } else {
                Err(format!("it is that of {found}"))
            }
        });
        match listing {
            Ok(listing) => {
                lock(&self.listings).insert(id.clone(), Arc::clone(&listing));
                Some(listing)
            }
            Err(error) => {
                // The layer itself may be in order.
                let message = format!(
                    "the listing of layer {id} from {} cannot be used: {error}",
                    imported.location
                );
                self.reporter.warn(message, None);
                None
            }
        }
    }

    /// Brings the layers of a snapshot into the store that are not there. [`StepFailure::CacheLayer`] says that one
    /// cannot be had; everything else is a failure as any other.
    pub(crate) fn ensure(&self, snapshot: &Snapshot, task: &Task, stop: &Cancel) -> Result<(), StepFailure> {
        let mut images: Vec<&ImageSource> = Vec::new();
        let mut missing: Vec<&LayerId> = Vec::new();
        for id in &snapshot.layers {
            if missing.contains(&id) || self.engine.store.layers().get(id)?.is_some() {
                continue;
            }
            match self.images.get(id) {
                Some(image) if images.iter().any(|other| other.digest == image.digest) => {}
                Some(image) => images.push(image),
                None => missing.push(id),
            }
        }
        for image in images {
            self.engine.images.fetch_layers(image, task, stop)?;
        }
        for some in missing.chunks(FETCHES) {
            let results: Vec<Result<(), StepFailure>> = std::thread::scope(|scope| {
                let threads: Vec<_> = some
                    .iter()
                    .map(|id| scope.spawn(|| self.fetch(id, task, stop)))
                    .collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                threads.into_iter().map(join).collect()
            });
            results.into_iter().collect::<Result<(), StepFailure>>()?;
        }
        Ok(())
    }

    /// Brings one layer from the first place that has it in order.
    fn fetch(&self, id: &LayerId, task: &Task, stop: &Cancel) -> Result<(), StepFailure> {
        let turn = Arc::clone(lock(&self.turns).entry(id.clone()).or_default());
        let _turn = lock(&turn);
        if self.engine.store.layers().get(id)?.is_some() {
            return Ok(());
        }
        while let Some((at, imported, layer)) = self.promised(id) {
            match self.fetch_from(&imported.location, id, layer, task, stop) {
                Ok(()) => return Ok(()),
                Err(_) if stop.is_raised() => return Err(StepFailure::Canceled),
                Err(PullError::Store(error)) if !is_content(&error) => return Err(error.into()),
                Err(error) => {
                    let message = format!(
                        "layer {id} of the cache at {} cannot be used: {}",
                        imported.location,
                        chain(&error)
                    );
                    self.reporter.warn(message, None);
                    lock(&self.broken).insert((at, id.clone()));
                }
            }
        }
        Err(StepFailure::CacheLayer { layer: id.clone() })
    }

    fn fetch_from(
        &self,
        location: &CacheLocation,
        id: &LayerId,
        layer: &PortableLayer,
        task: &Task,
        stop: &Cancel,
    ) -> Result<(), PullError> {
        let images = &self.engine.images;
        let source = SourceLayer {
            layer: id.clone(),
            diff_id: layer.diff_id,
            blob: Some(layer.blob.clone()),
        };
        let origin = match location {
            CacheLocation::Registry(reference) => Origin::Registry(reference),
            CacheLocation::Folder { path, .. } => Origin::Layout(path),
        };
        images.bring_layer(origin, &source, Some(layer.created_ms), task, stop)?;
        // Pushed or exported again, it goes out as it came.
        let from = match location {
            CacheLocation::Registry(reference) => Some(reference),
            CacheLocation::Folder { .. } => None,
        };
        images.keep_original(&source, from)
    }
}

/// Whether the bytes are to blame and not the store.
fn is_content(error: &kiln_cache::Error) -> bool {
    matches!(
        error,
        kiln_cache::Error::DigestMismatch { .. } | kiln_cache::Error::SizeMismatch { .. }
    )
}

/// Runs `ask` with what speaks to `location`.
pub(super) fn with_place<T>(
    engine: &Engine,
    location: &CacheLocation,
    ask: impl FnOnce(&dyn Place) -> Result<T, CacheError>,
) -> Result<T, CacheError> {
    match location {
        CacheLocation::Registry(reference) => ask(&Repository {
            client: engine.images.client()?,
            reference,
            to_replace: false,
        }),
        CacheLocation::Folder { path, tag, digest } => ask(&Folder::open(path, tag, digest.as_ref())),
    }
}
