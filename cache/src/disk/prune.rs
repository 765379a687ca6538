//! Making room: which things of the cache go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
    time::Duration,
};

use kiln_image::Digest;

use super::{
    Stop, attached,
    catalog::Catalog,
    evict,
    item::{Item, ItemType, Spot},
    never,
    roots::Roots,
    size,
};
use crate::{ImageRecord, Key, Result, Store, error, files, index::Entry, records};

/// So often old records without layers are looked for.
const SWEEP_PACE: Duration = Duration::from_hours(24);

/// Which things may go.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only of these kinds; of all when empty.
    pub kinds: Vec<ItemType>,
    /// Only those whose id begins so; all when empty.
    pub ids: Vec<String>,
    /// Only what images have, too (`true`), or do not have.
    pub shared: Option<bool>,
}

/// How much may stay. Without any of these nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Cache of so many bytes stays in any case.
    pub reserved: Option<u64>,
    /// No more cache than that.
    pub max_used: Option<u64>,
    /// The file system shall have so many bytes free.
    pub min_free: Option<u64>,
    /// The whole store, images and all, shall not be larger than that.
    pub max_size: Option<u64>,
}

/// What to prune.
#[derive(Debug, Clone, Default)]
pub struct Prune {
    /// Records of steps whose layers an image has, too: the image stays, and its steps run again.
    pub all: bool,
    /// Which things may go.
    pub filter: Filter,
    /// How much may stay.
    pub keep: Keep,
    /// Nothing is deleted.
    pub dry_run: bool,
    /// Images that count as removed; for a dry run.
    pub without: BTreeSet<Digest>,
}

/// What was deleted, or would be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The things.
    pub items: Vec<Item>,
    /// What they took.
    pub bytes: u64,
}

impl Filter {
    fn fits(&self, item: &Item, now_ms: u64) -> bool {
        let age = now_ms.saturating_sub(item.used_ms);
        let is_old = |limit: Duration| u128::from(age) >= limit.as_millis();
        self.unused_for.is_none_or(is_old)
            && (self.kinds.is_empty() || self.kinds.contains(&item.kind))
            && (self.ids.is_empty() || self.ids.iter().any(|id| item.id.starts_with(id)))
            && self.shared.is_none_or(|shared| item.is_shared() == shared)
    }

    fn is_open(&self) -> bool {
        self.unused_for.is_none() && self.kinds.is_empty() && self.ids.is_empty() && self.shared.is_none()
    }
}

impl Keep {
    /// How many bytes must go. `None`: all that may.
    fn need(&self, cache: u64, store: u64, free: u64) -> Option<u64> {
        if *self == Self::default() {
            return None;
        }
        let limits = [
            self.max_used.map(|max| cache.saturating_sub(max)),
            self.max_size.map(|max| store.saturating_sub(max)),
            self.min_free.map(|min| min.saturating_sub(free)),
        ];
        let above = |reserved: u64| cache.saturating_sub(reserved);
        Some(match limits.into_iter().flatten().max() {
            Some(need) => need.min(self.reserved.map_or(u64::MAX, above)),
            None => self.reserved.map_or(0, above),
        })
    }
}

/// Deletes what is not needed, the least recently used first, and nothing that any process uses.
pub fn prune(store: &Store, request: &Prune) -> Result<Pruned> {
    let catalog = Catalog::read_without(store, &request.without, &never)?;
    let need = request
        .keep
        .need(catalog.cache_bytes(), catalog.total(), Space::of(store)?.free);
    let pruned = run(store, &catalog, request, need, &never)?;
    if !request.dry_run && request.filter.is_open() && request.keep == Keep::default() {
        // Records that lead nowhere: kept so long to tell why a step ran.
        for key in &catalog.dead {
            store.records().remove(key)?;
        }
        for name in &catalog.survey.stray_stamps {
            // One that just got its blob back costs that blob a hashing.
            let path = store.root().join("blobs/stamps").join(name);
            files::remove_if_there(&path)?;
        }
    }
    if !request.dry_run {
        size::freed(store, pruned.bytes)?;
    }
    // All was looked at anyway: so the index is looked after, too, however large it is.
    if !request.dry_run && store.index().has_work()? {
        store.index().merge(&AtomicBool::new(false));
    }
    Ok(pruned)
}

/// Deletes what the images `gone`, which were just removed, were made of: layers and blobs that no other image needs, and
/// that are no step's result. The steps' stay, as cache.
pub fn prune_images(store: &Store, gone: &[ImageRecord], dry_run: bool) -> Result<Pruned> {
    let ids = gone.iter().map(|image| image.id).collect();
    let catalog = Catalog::read_without(store, &ids, &never)?;
    let mut parts = Roots::default();
    for image in gone {
        parts.add(image.clone());
    }
    let is_part = |item: &Item| match &item.place {
        Spot::Layer(id) => parts.layers.contains_key(id) && !item.is_cached,
        Spot::Blob(digest)
        | Spot::Variant {
            blob: Some(digest), ..
        } => parts.blobs.contains(digest),
        _ => false,
    };
    let pruned = delete(
        store,
        &catalog,
        |item| !item.in_use && is_part(item),
        (dry_run, None),
        &never,
    )?;
    if !dry_run {
        size::freed(store, pruned.bytes)?;
    }
    Ok(pruned)
}

/// Deletes things of `catalog` until `need` bytes are free, or all.
pub(crate) fn run(
    store: &Store,
    catalog: &Catalog,
    request: &Prune,
    need: Option<u64>,
    stop: Stop<'_>,
) -> Result<Pruned> {
    let now = files::now_ms();
    let goes =
        |item: &Item| !item.in_use && (request.all || !item.is_shared()) && request.filter.fits(item, now);
    delete(store, catalog, goes, (request.dry_run, need), stop)
}

/// Deletes those of the things that `goes` says.
fn delete(
    store: &Store,
    catalog: &Catalog,
    goes: impl Fn(&Item) -> bool,
    (dry_run, need): (bool, Option<u64>),
    stop: Stop<'_>,
) -> Result<Pruned> {
    let candidates = attached::with_blobs(&catalog.items, goes);
    let mut lists = catalog.lists.clone();
    let mut pruned = Pruned::default();
    let mut left = candidates.as_slice();
    while !left.is_empty() && need.is_none_or(|need| pruned.bytes < need) && !stop() {
        let missing = need.map_or(u64::MAX, |need| need - pruned.bytes);
        let mut sum = 0;
        let enough = left.iter().take_while(|item| {
            let wanted = sum < missing;
            sum = u64::saturating_add(sum, item.bytes);
            wanted
        });
        let (batch, rest) = left.split_at(enough.count().max(1));
        left = rest;
        if dry_run {
            pruned.bytes += batch.iter().map(|item| item.bytes).sum::<u64>();
            pruned.items.extend(batch.iter().map(|&item| item.clone()));
            continue;
        }
        let mut free = BTreeMap::new();
        evict::items(store, batch, |item| {
            pruned.bytes += item.bytes.saturating_sub(item.list_bytes);
            pruned.items.push(item.clone());
            free.extend(lists.release(item));
        })?;
        let digests: Vec<Digest> = free.keys().copied().collect();
        let gone = evict::blobs(store, &digests)?;
        for list in &gone {
            store.index().note(&Entry::ListGone(*list));
        }
        pruned.bytes += gone.iter().filter_map(|digest| free.get(digest)).sum::<u64>();
    }
    Ok(pruned)
}

/// Deletes the records whose layers are gone and that are older than `age`, once a day: every record is read for it. What
/// is not done when it is stopped, the next one goes on with.
pub(crate) fn sweep_records(store: &Store, age: Duration, stop: Stop<'_>) -> Result<()> {
    // Empty, or the last folder of records that is done.
    let marker = store.root().join("index/swept");
    let known = files::read_opt(&marker)?.and_then(|bytes| String::from_utf8(bytes).ok());
    let done = known.unwrap_or_default();
    let swept = std::fs::metadata(&marker).and_then(|meta| meta.modified());
    if done.is_empty() && swept.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed < SWEEP_PACE)) {
        return Ok(());
    }
    let (now, mut last) = (files::now_ms(), done.clone());
    for shard in store.records().shards()? {
        if shard <= done {
            continue;
        }
        if stop() {
            return store.temp().publish(last.as_bytes(), &marker, false);
        }
        for key in store.records().of_shard(&shard)? {
            if is_dead(store, &key, now, age)? {
                store.records().remove(&key)?;
            }
        }
        last = shard;
    }
    store.temp().publish(b"", &marker, false)
}

fn is_dead(store: &Store, key: &Key, now_ms: u64, age: Duration) -> Result<bool> {
    let Some(bytes) = files::read_opt(&store.records().path(key))? else {
        return Ok(false);
    };
    let Ok((record, _)) = records::parse(&bytes) else {
        return Ok(false);
    };
    let is_old = u128::from(now_ms.saturating_sub(record.created_ms)) >= age.as_millis();
    let is_gone = |layer: &crate::LayerId| !store.layers().path(layer).exists();
    Ok(is_old && record.output.iter().any(is_gone))
}

/// The room of the store's file system.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// All of it.
    pub size: u64,
    /// What an ordinary user can still fill.
    pub free: u64,
    /// What nobody has filled.
    unfilled: u64,
}

impl Space {
    /// Asks the file system.
    pub fn of(store: &Store) -> Result<Self> {
        let stat = rustix::fs::statvfs(store.root()).map_err(error::errno("look at", store.root()))?;
        Ok(Self {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            unfilled: stat.f_bfree.saturating_mul(stat.f_frsize),
        })
    }

    /// What is in use of it.
    pub(super) fn filled(&self) -> u64 {
        self.size.saturating_sub(self.unfilled)
    }
}

#[cfg(test)]
mod tests {
    use super::Keep;

    #[test]
    fn what_must_go() {
        let keep = |reserved, max_used, min_free, max_size| Keep {
            reserved,
            max_used,
            min_free,
            max_size,
        };
        // Cache 100, store 150, free 20.
        let table = [
            (keep(None, None, None, None), None),
            (keep(Some(30), None, None, None), Some(70)),
            (keep(Some(300), None, None, None), Some(0)),
            (keep(None, Some(40), None, None), Some(60)),
            (keep(Some(70), Some(40), None, None), Some(30)),
            (keep(None, None, Some(50), None), Some(30)),
            (keep(None, None, Some(10), None), Some(0)),
            (keep(None, None, None, Some(140)), Some(10)),
            (keep(None, Some(90), Some(50), Some(140)), Some(30)),
            (keep(Some(95), Some(90), Some(50), Some(140)), Some(5)),
        ];
        for (keep, need) in table {
            assert_eq!(keep.need(100, 150, 20), need, "{keep:?}");
        }
    }
}
