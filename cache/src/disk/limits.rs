//! A ceiling for the store and a floor for the free space of its file system, held while commands run.

use std::time::{Duration, Instant};

use super::{
    catalog::Catalog,
    prune::{self, Filter, Prune, Pruned, Space, sweep_records},
    size,
    survey::Survey,
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
    /// once a day.
    pub fn hold(&mut self, store: &Store) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        if self.resume.is_some_and(|resume| Instant::now() < resume) || self.is_futile(store)? {
            return Ok(pruned);
        }
        let space = Space::of(store)?;
        let max = self.limits.max_size.map_or(u64::MAX, |max| max.of(space.size));
        if self.estimate(store, &space)? > max {
            let catalog = Catalog::read(store)?;
            let total = catalog.total();
            let need = total.saturating_sub(max - max / SLACK);
            if total > max {
                pruned = prune::run(store, &catalog, &request(Duration::ZERO), Some(need))?;
                self.wait_if(store, pruned.bytes < total - max)?;
            }
            size::measured(store, total - pruned.bytes.min(total), &Space::of(store)?)?;
            self.told = store.published_bytes();
        }
        let min = self.limits.min_free.map_or(0, |min| min.of(space.size));
        let free = space.free.saturating_add(pruned.bytes);
        if free < min {
            let request = request(self.limits.min_free_spares);
            let more = prune::run(store, &Catalog::read(store)?, &request, Some(min - free))?;
            self.wait_if(store, more.bytes < min - free)?;
            pruned.bytes += more.bytes;
            pruned.items.extend(more.items);
        }
        if !pruned.items.is_empty() {
            sweep_records(store, RECORDS_KEPT)?;
            // What cannot be told only makes the index know less.
            let _ = store.index().flush();
        }
        Ok(pruned)
    }

    /// [`Keeper::hold`] where nobody waits for it: what fails is told by [`Store::take_warnings`], once.
    pub fn tend(&mut self, store: &Store) {
        if let Err(error) = self.hold(store) {
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

    /// The size of the store as far as it can be known without looking; 0 without a ceiling.
    fn estimate(&mut self, store: &Store, space: &Space) -> Result<u64> {
        if self.limits.max_size.is_none() {
            return Ok(0);
        }
        let published = store.published_bytes();
        let known = size::estimate(store, published.saturating_sub(self.told), space)?;
        self.told = published;
        if let Some(known) = known {
            return Ok(known);
        }
        let total = Survey::take(store)?.total();
        size::measured(store, total, space)?;
        Ok(total)
    }
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
