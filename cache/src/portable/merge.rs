//! Putting together what several machines export, within bounds.

use std::collections::BTreeSet;

use super::{
    MAX_DOCUMENT, MAX_FOREIGN_LAYERS, MAX_FOREIGN_RECORDS, MAX_LAYERS, MAX_OUTPUTS, MAX_RECORDS,
    PortableCache, PortableError, bounded,
};
use crate::LayerId;

/// Days since 1970.
pub type Day = u32;

/// A record that no export has had for longer goes.
pub(crate) const MAX_AGE_DAYS: Day = 60;
/// As long as a record was seen within so many days, another export leaves the day as it is: an export that brings
/// nothing new changes no byte.
pub(crate) const REFRESH_DAYS: Day = 7;

impl PortableCache {
    /// Adds what is `there` already. Layers that are there stay as they are (their blobs need not move); of two
    /// results of one key this one's counts, as the newer.
    pub fn merge(&mut self, there: &Self) {
        for (id, layer) in &there.layers {
            self.layers.insert(id.clone(), layer.clone());
        }
        for (key, old) in &there.records {
            match self.records.get_mut(key) {
                None => drop(self.records.insert(*key, old.clone())),
                Some(new) if new.output == old.output => {
                    let seen = new.seen.max(old.seen);
                    let fresh = seen.saturating_sub(old.seen) < REFRESH_DAYS;
                    *new = old.clone();
                    new.seen = if fresh { old.seen } else { seen };
                }
                Some(_) => {}
            }
        }
    }

    /// As [`Self::merge`], of one of many foreign documents: all together come to no more than one may have.
    pub fn merge_foreign(&mut self, there: &Self) -> Result<(), PortableError> {
        self.merge(there);
        let records = || self.records.values();
        bounded("layers", self.layers.len(), MAX_FOREIGN_LAYERS)?;
        bounded("records", self.records.len(), MAX_FOREIGN_RECORDS)?;
        let outputs = records().map(|record| record.output.len()).sum();
        bounded("layers of records", outputs, MAX_OUTPUTS)?;
        let text = records().map(|record| record.step.len()).sum();
        bounded("bytes", text, MAX_DOCUMENT)
    }

    /// Drops records that were not seen for long, the oldest of too many, and layers that no record leads to.
    pub fn bound(&mut self, today: Day) {
        self.records
            .retain(|_, record| record.seen.saturating_add(MAX_AGE_DAYS) >= today);
        let mut newest: Vec<_> = self
            .records
            .iter()
            .map(|(key, record)| (record.seen, record.created_ms, *key))
            .collect();
        newest.sort_unstable_by(|one, other| other.cmp(one));
        let mut layers: BTreeSet<LayerId> = BTreeSet::new();
        let (mut kept, mut outputs) = (0, 0);
        for (_, _, key) in newest {
            let Some(record) = self.records.get(&key) else {
                continue;
            };
            let more: Vec<&LayerId> = record
                .output
                .iter()
                .filter(|id| self.layers.contains_key(id) && !layers.contains(id))
                .collect();
            let full = kept == MAX_RECORDS
                || layers.len() + more.len() > MAX_LAYERS
                || outputs + record.output.len() > MAX_OUTPUTS;
            if full {
                self.records.remove(&key);
                continue;
            }
            kept += 1;
            outputs += record.output.len();
            layers.extend(more.into_iter().cloned());
        }
        self.layers.retain(|id, _| layers.contains(id));
    }

    /// Whether each key of `other` leads to something here, too.
    pub fn covers(&self, other: &Self) -> bool {
        other.records.keys().all(|key| self.records.contains_key(key))
    }

    /// Takes away layers, and the records that lead to them.
    pub fn without(&mut self, lost: impl Fn(&LayerId) -> bool) {
        self.layers.retain(|id, _| !lost(id));
        self.records.retain(|_, record| !record.output.iter().any(&lost));
    }
}
