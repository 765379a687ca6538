//! Making room without reading every record: the index says what stands on what and what goes with it, the files say
//! what there is and when it was used.
//!
//! What is deleted, and in which order, is what [`Catalog`](super::Catalog) would say, but for records of no layer.
//! Each layer is looked at before it goes, so an index that lags or lies makes nothing go that was used lately, is in
//! use, or is an image's: at worst a layer goes a little before those that stood on it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use kiln_image::Digest;

use super::{
    Stop,
    attached::LayerBlobs,
    catalog, check, evict,
    item::{Item, ItemType, Spot, plain},
    prune::Pruned,
    roots::Roots,
    survey::{self, LayerUse, Survey},
};
use crate::{
    LayerId, Result, Store, files,
    index::Entry,
    uses::{Place, Turn},
    variants::ORIGINAL,
};

/// So many things are looked at before they are deleted. Who is told to stop still deletes what was looked at.
const BATCH: usize = 16;

/// Deletes the least recently used until `need` bytes are free. `None` if the index cannot be asked: another process has
/// it, or it is not whole.
pub(super) fn make_room(
    store: &Store,
    need: u64,
    unused_for: Duration,
    stop: Stop<'_>,
) -> Result<Option<Pruned>> {
    let Some(standing) = store.index().standing(stop) else {
        return Ok(None);
    };
    let mut search = Search::begin(store, &standing, unused_for, stop)?;
    let mut pruned = Pruned::default();
    while pruned.bytes < need && !stop() {
        let Some(batch) = search.batch(need - pruned.bytes)? else {
            break;
        };
        let items: Vec<&Item> = batch.iter().collect();
        let mut lists = BTreeSet::new();
        evict::items(store, &items, |item| {
            pruned.bytes += item.bytes;
            pruned.items.push(item.clone());
            lists.extend(item.lists.iter().copied());
        })?;
        pruned.bytes += search.drop_lists(&lists)?;
    }
    Ok(Some(pruned))
}

/// The layers in the order in which they go: each is as young as the youngest that stands on it, and of those that are
/// as young as each other, the upper one goes first.
fn order(used: &BTreeMap<LayerId, u64>, standing: &[(LayerId, LayerId)]) -> Vec<(LayerId, u64)> {
    let mut below: BTreeMap<&LayerId, Vec<&LayerId>> = BTreeMap::new();
    for (upper, lower) in standing {
        below.entry(upper).or_default().push(lower);
    }
    let mut youngest: Vec<(&LayerId, u64)> = used.iter().map(|(id, at)| (id, *at)).collect();
    youngest.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    // From the youngest down: who is come to has the time of who it is come from. A layer is left only after all that
    // it stands on, so the order of leaving, turned round, has each before what it stands on.
    let mut seen: HashSet<&LayerId> = HashSet::new();
    let mut left: Vec<(&LayerId, u64)> = Vec::with_capacity(used.len());
    for (top, at) in youngest {
        if !seen.insert(top) {
            continue;
        }
        let mut way = vec![(top, 0)];
        while let Some((here, next)) = way.last_mut() {
            let Some(lower) = below.get(*here).and_then(|lowers| lowers.get(*next)) else {
                left.push((*here, at));
                way.pop();
                continue;
            };
            *next += 1;
            if used.contains_key(*lower) && seen.insert(lower) {
                way.push((*lower, 0));
            }
        }
    }
    left.reverse();
    left.sort_by_key(|(_, at)| *at);
    left.into_iter().map(|(id, at)| (id.clone(), at)).collect()
}

struct Search<'a> {
    store: &'a Store,
    stop: Stop<'a>,
    roots: Roots,
    turn: Turn,
    /// What is younger stays.
    latest_ms: u64,
    /// Everything but layers, the first to go last.
    rest: Vec<Item>,
    /// The same of layers.
    layers: Vec<(LayerId, u64)>,
    /// Blobs that would stay but for their layer's deletion.
    with_layer: BTreeMap<Digest, Vec<Item>>,
    /// Blobs of layers that went.
    gone: BTreeSet<Digest>,
}

impl<'a> Search<'a> {
    fn begin(
        store: &'a Store,
        standing: &[(LayerId, LayerId)],
        unused_for: Duration,
        stop: Stop<'a>,
    ) -> Result<Self> {
        let (roots, turn) = (Roots::read(store)?, Turn::new(store.root())?);
        let mut used = BTreeMap::new();
        for id in store.layers().list()? {
            check(stop, store.root())?;
            let at = survey::layer_used_ms(store, &id);
            used.insert(id, at);
        }
        let mut layers = order(&used, standing);
        layers.retain(|(id, _)| !roots.layers.contains_key(id));
        layers.reverse();
        let mut rest = rest(store, &roots, &turn, stop)?;
        let spared = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
        let mut with_layer: BTreeMap<Digest, Vec<Item>> = BTreeMap::new();
        let latest_ms = files::now_ms().saturating_sub(spared);
        // One that is old enough itself goes by its own age.
        let stays = |item: &&Item| item.used_ms > latest_ms;
        for item in rest.iter().filter(stays) {
            if let Spot::Variant { diff_id, .. } = item.place {
                with_layer.entry(diff_id).or_default().push(item.clone());
            }
        }
        catalog::sort(&mut rest);
        rest.reverse();
        Ok(Self {
            store,
            stop,
            roots,
            turn,
            latest_ms,
            rest,
            layers,
            with_layer,
            gone: BTreeSet::new(),
        })
    }

    /// The next things to go: as many as are needed, but not too many at a time. `None` when there are none.
    fn batch(&mut self, need: u64) -> Result<Option<Vec<Item>>> {
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        while bytes < need && batch.len() < BATCH && !(self.stop)() {
            let is_rest_first = match (self.rest.last(), self.layers.last()) {
                (None, None) => break,
                (Some(item), Some((_, at))) => item.can_be_remade || item.used_ms < *at,
                (rest, _) => rest.is_some(),
            };
            let items = if is_rest_first {
                self.next_of_rest().into_iter().collect()
            } else {
                self.next_layer()?
            };
            for item in items {
                bytes = bytes.saturating_add(item.bytes);
                batch.push(item);
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn next_of_rest(&mut self) -> Option<Item> {
        let item = self.rest.pop()?;
        let is_wanted = match &item.place {
            // A list of files goes with the last of its records.
            Spot::Blob(digest) => {
                let referring = self.store.index().referring_to(digest, self.stop);
                referring.is_some_and(|records| records.is_empty())
            }
            Spot::Variant { blob: Some(blob), .. } => !self.gone.contains(blob),
            _ => true,
        };
        let goes = is_wanted && !item.in_use && item.used_ms <= self.latest_ms;
        if goes && let Spot::Variant { blob: Some(blob), .. } = &item.place {
            self.gone.insert(*blob);
        }
        goes.then_some(item)
    }

    /// The next layer, after the blobs that go with it.
    fn next_layer(&mut self) -> Result<Vec<Item>> {
        let Some((id, at)) = self.layers.pop() else {
            return Ok(Vec::new());
        };
        if at > self.latest_ms || self.turn.is_used(Place::of_layer(&id))? {
            return Ok(Vec::new());
        }
        let Some(layer) = survey::layer(self.store, id, self.stop)? else {
            return Ok(Vec::new());
        };
        // Used just now.
        if layer.used_ms > at {
            return Ok(Vec::new());
        }
        let layer = self.item(&layer, at)?;
        let blobs = layer.diff_id.and_then(|diff_id| self.with_layer.remove(&diff_id));
        let mut items = blobs.unwrap_or_default();
        items.retain(|item| {
            let is_there = match &item.place {
                Spot::Variant { blob: Some(blob), .. } => self.gone.insert(*blob),
                _ => true,
            };
            is_there && !item.in_use
        });
        items.push(layer);
        Ok(items)
    }

    fn item(&self, layer: &LayerUse, used_ms: u64) -> Result<Item> {
        let roots = &self.roots.diff_ids;
        let mut item = Item {
            created_ms: (layer.created_ms > 0).then_some(layer.created_ms),
            diff_id: layer.diff_id.filter(|diff_id| !roots.contains(diff_id)),
            ..plain(
                ItemType::Regular,
                Spot::Layer(layer.id.clone()),
                layer.id.to_string(),
                layer.bytes,
                used_ms,
            )
        };
        let mut first_ms = u64::MAX;
        let keys = self.store.index().records_of(&layer.id, self.stop);
        for key in keys.unwrap_or_default() {
            // The record says whose it is.
            let record = self.store.records().peek(&key)?;
            let Some(record) = record.filter(|record| record.output.last() == Some(&layer.id)) else {
                continue;
            };
            item.bytes += survey::own(&self.store.records().path(&key))?;
            item.lists.extend(record.lists());
            item.records.push(key);
            if record.created_ms < first_ms {
                (item.description, first_ms) = (record.step, record.created_ms);
            }
        }
        item.is_cached = !item.records.is_empty();
        Ok(item)
    }

    /// Deletes those of the lists that no record refers to any more. Returns what they took.
    fn drop_lists(&self, lists: &BTreeSet<Digest>) -> Result<u64> {
        let index = self.store.index();
        let mut free = BTreeMap::new();
        for list in lists.iter().filter(|list| !self.roots.blobs.contains(*list)) {
            let Some(records) = index.referring_to(list, self.stop) else {
                continue;
            };
            let mut is_free = true;
            for key in records {
                let record = self.store.records().peek(&key)?;
                if record.is_some_and(|record| record.lists().any(|other| other == *list)) {
                    is_free = false;
                    break;
                }
            }
            if is_free {
                free.insert(*list, survey::own(&self.store.blobs().path(list))?);
            }
        }
        let digests: Vec<Digest> = free.keys().copied().collect();
        let gone = evict::blobs(self.store, &digests)?;
        for list in &gone {
            index.note(&Entry::ListGone(*list));
        }
        Ok(gone.iter().filter_map(|list| free.get(list)).sum())
    }
}

/// Everything that can go but layers and records.
fn rest(store: &Store, roots: &Roots, turn: &Turn, stop: Stop<'_>) -> Result<Vec<Item>> {
    let survey = Survey::of_the_rest(store, stop)?;
    let blobs = LayerBlobs::collect(&survey, roots, turn)?;
    // What is known of a layer's blob without having it goes with the layer. One that came from elsewhere cannot be made
    // again from a layer; whether that is there is not asked.
    let mut items: Vec<Item> = blobs
        .items
        .into_iter()
        .filter_map(|item| match &item.place {
            Spot::Variant {
                blob: Some(_), form, ..
            } => Some(Item {
                can_be_remade: form != ORIGINAL,
                ..item
            }),
            _ => None,
        })
        .collect();
    items.extend(catalog::own_blobs(&survey, roots, turn, |digest| {
        !blobs.taken.contains(digest)
    })?);
    items.extend(catalog::sources(&survey));
    Ok(items)
}
