//! Making room: which things of the cache go.

use std::time::Duration;

use super::{
    catalog::{Catalog, Item, ItemType},
    evict,
};
use crate::{Key, Result, Store, error, files, records};

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
    let catalog = Catalog::read(store)?;
    let need = request
        .keep
        .need(catalog.cache_bytes(), catalog.total(), Space::of(store)?.free);
    let pruned = run(store, &catalog, request, need)?;
    if !request.dry_run && request.filter.is_open() && request.keep == Keep::default() {
        // Records that lead nowhere: kept so long to tell why a step ran.
        evict::records(store, &catalog.dead)?;
        evict::variants(store, Duration::ZERO)?;
    }
    // As with each note: the disk may be full.
    let _ = store.index().flush();
    Ok(pruned)
}

/// Deletes things of `catalog` until `need` bytes are free, or all.
pub(crate) fn run(store: &Store, catalog: &Catalog, request: &Prune, need: Option<u64>) -> Result<Pruned> {
    let now = files::now_ms();
    let candidates: Vec<&Item> = catalog
        .items
        .iter()
        .filter(|item| !item.in_use && (request.all || !item.is_shared()) && request.filter.fits(item, now))
        .collect();
    let mut pruned = Pruned::default();
    let mut left = candidates.as_slice();
    while !left.is_empty() && need.is_none_or(|need| pruned.bytes < need) {
        let missing = need.map_or(u64::MAX, |need| need - pruned.bytes);
        let mut sum = 0;
        let enough = left.iter().take_while(|item| {
            let wanted = sum < missing;
            sum = u64::saturating_add(sum, item.bytes);
            wanted
        });
        let (batch, rest) = left.split_at(enough.count().max(1));
        left = rest;
        let mut deleted = |item: &Item| {
            pruned.bytes += item.bytes;
            pruned.items.push(item.clone());
        };
        if request.dry_run {
            for item in batch {
                deleted(item);
            }
        } else {
            evict::items(store, batch, deleted)?;
        }
    }
    Ok(pruned)
}

/// Deletes the records whose layers are gone and that are older than `age`. Returns how many.
pub(crate) fn sweep_records(store: &Store, age: Duration, stop: &dyn Fn() -> bool) -> Result<usize> {
    let now = files::now_ms();
    let mut swept = 0;
    for key in store.records().list()? {
        if stop() {
            break;
        }
        if is_dead(store, &key, now, age)? {
            evict::records(store, &[key])?;
            swept += 1;
        }
    }
    Ok(swept)
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
}

impl Space {
    /// Asks the file system.
    pub fn of(store: &Store) -> Result<Self> {
        let stat = rustix::fs::statvfs(store.root()).map_err(error::errno("look at", store.root()))?;
        Ok(Self {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
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
