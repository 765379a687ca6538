//! A ceiling for the store and a floor for the free space of its file system, held while commands run.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    Stop,
    catalog::Catalog,
    oldest,
    prune::{self, Filter, Prune, Pruned, Space, sweep_records},
    size, total,
};
use crate::{Result, Store, Warning, files};

/// After an attempt that made not enough room, the next one waits that long: what is left is in use.
const PAUSE: Duration = Duration::from_secs(10);
/// Where the ceiling is passed, room for this part of it is made, so that not every layer has to make room anew.
const SLACK: u64 = 20;
/// Records without layers still tell why a step ran again; so long.
const RECORDS_KEPT: Duration = Duration::from_hours(7 * 24);

/// An amount of bytes, or a part of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the file system's size.
    Percent(u8),
    /// So many percent of the file system's size, but no more than so many bytes.
    PercentUpTo(u8, u64),
}

impl Amount {
    fn of(self, size: u64) -> u64 {
        let part = |percent| u64::try_from(u128::from(size) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => part(percent),
            Self::PercentUpTo(percent, most) => part(percent).min(most),
        }
    }
}

/// How large the store may become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// The whole store is to be no larger than this.
    pub max_size: Option<Amount>,
    /// The file system is to have this free.
    pub min_free: Option<Amount>,
    /// For the sake of the free space only what was not used for so long is deleted.
    pub min_free_spares: Duration,
}

/// Holds the limits of a store. One a process is enough.
#[derive(Debug)]
pub struct Keeper {
    limits: DiskLimits,
    /// What this process has published and told of.
    told: u64,
    /// Nothing is tried before.
    resume: Option<Instant>,
}

impl Keeper {
    /// A keeper of these limits.
    pub fn new(limits: DiskLimits) -> Self {
        Self {
            limits,
            told: 0,
            resume: None,
        }
    }

    /// Deletes the least recently used things of the cache if the store is too large, or the file system too full.
    /// Cheap when it is not: the store is measured only when so much was published that it could be too large, and
    /// once a day. When `stop` says so, it ends soon; what was begun then goes on with the next call, in whatever process.
    pub fn hold(&mut self, store: &Store, stop: &dyn Fn() -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        if self.resume.is_some_and(|resume| Instant::now() < resume) || self.is_futile(store)? {
            return Ok(pruned);
        }
        let space = Space::of(store)?;
        let max = self.limits.max_size.map_or(u64::MAX, |max| max.of(space.size));
        if let Some(total) = self.total_above(store, &space, max, stop)? {
            pruned = make_room(store, total - (max - max / SLACK), Duration::ZERO, stop)?;
            size::freed(store, pruned.bytes)?;
            self.wait_if(store, pruned.bytes < total - max && !stop())?;
        }
        let min = self.limits.min_free.map_or(0, |min| min.of(space.size));
        let free = space.free.saturating_add(pruned.bytes);
        if free < min && !stop() {
            let more = make_room(store, min - free, self.limits.min_free_spares, stop)?;
            size::freed(store, more.bytes)?;
            self.wait_if(store, more.bytes < min - free && !stop())?;
            pruned.bytes += more.bytes;
            pruned.items.extend(more.items);
        }
        if !pruned.items.is_empty() {
            sweep_records(store, RECORDS_KEPT, stop)?;
        }
        // Other processes may want it.
        store.index().close();
        Ok(pruned)
    }

    /// [`Keeper::hold`] where nobody waits for it: what fails is told by [`Store::take_warnings`], once.
    pub fn tend(&mut self, store: &Store, stop: &dyn Fn() -> bool) {
        if let Err(error) = self.hold(store, stop)
            // What was stopped has not failed.
            && !stop()
        {
            store.shared.warn(Warning {
                path: store.root().to_owned(),
                reason: format!("cannot make room: {error}"),
                moved_to: None,
            });
            self.limits = DiskLimits::default();
        }
    }

    fn wait_if(&mut self, store: &Store, not_enough: bool) -> Result<()> {
        self.resume = not_enough.then(|| Instant::now() + PAUSE);
        if not_enough {
            let limits = format!("{:?}", self.limits);
            store.temp().publish(limits.as_bytes(), &futile(store), false)?;
        }
        Ok(())
    }

    /// Whether another process has just tried the same in vain: everything is looked at for it.
    fn is_futile(&self, store: &Store) -> Result<bool> {
        let path = futile(store);
        let tried = std::fs::metadata(&path).and_then(|meta| meta.modified());
        let lately = tried.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed < PAUSE));
        Ok(lately
            && files::read_opt(&path)?
                .is_some_and(|limits| limits == format!("{:?}", self.limits).as_bytes()))
    }

    /// The size of the store, if it is above `max`. That is looked at only if it may be so.
    fn total_above(&mut self, store: &Store, space: &Space, max: u64, stop: Stop<'_>) -> Result<Option<u64>> {
        if self.limits.max_size.is_none() {
            return Ok(None);
        }
        let published = store.published_bytes();
        let known = size::estimate(store, published.saturating_sub(self.told), space)?;
        self.told = published;
        match known {
            Some(known) if known.most <= max => return Ok(None),
            Some(known) if known.least > max => return Ok(Some(known.least)),
            _ => {}
        }
        Ok(total::go_on(store, space, stop)?.filter(|total| *total > max))
    }
}

/// By the index, if that can be asked, or by looking at everything.
fn make_room(store: &Store, need: u64, unused_for: Duration, stop: Stop<'_>) -> Result<Pruned> {
    if let Some(pruned) = oldest::make_room(store, need, unused_for, stop)? {
        return Ok(pruned);
    }
    let catalog = Catalog::read_without(store, &BTreeSet::new(), stop)?;
    prune::run(store, &catalog, &request(unused_for), Some(need), stop)
}

fn futile(store: &Store) -> std::path::PathBuf {
    store.root().join("index/futile")
}

fn request(unused_for: Duration) -> Prune {
    Prune {
        filter: Filter {
            unused_for: Some(unused_for),
            ..Filter::default()
        },
        ..Prune::default()
    }
}
