//! What the records say of layers.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use super::{Stop, check, survey::Survey};
use crate::{Key, LayerId, Record, Result, Store, files, records};

/// What the records say of layers.
#[derive(Default)]
pub(super) struct Known {
    pub(super) of: BTreeMap<LayerId, OfLayer>,
    pub(super) dead: Vec<Key>,
    /// Records that lead to no layer at all: key, step, bytes, last use.
    pub(super) bare: Vec<(Key, String, u64, u64)>,
}

/// What the records say of a layer.
#[derive(Default)]
pub(super) struct OfLayer {
    /// Those whose step made it.
    pub(super) records: Vec<Key>,
    pub(super) bytes: u64,
    pub(super) step: String,
    made_ms: u64,
    pub(super) used_ms: u64,
    pub(super) depth: usize,
    pub(super) lists: BTreeSet<Digest>,
}

impl Known {
    pub(super) fn read(store: &Store, survey: &Survey, stop: Stop<'_>) -> Result<Self> {
        let used: BTreeMap<&LayerId, u64> = survey
            .layers
            .iter()
            .map(|layer| (&layer.id, layer.used_ms))
            .collect();
        let mut known = Self::default();
        for file in &survey.records {
            check(stop, store.root())?;
            let Some(bytes) = files::read_opt(&store.records().path(&file.what))? else {
                continue;
            };
            // What a newer program wrote is not looked into, and not deleted.
            let Ok((record, _)) = records::parse(&bytes) else {
                continue;
            };
            if record.output.iter().all(|layer| used.contains_key(layer)) {
                known.add(record, file.bytes, file.used_ms, &used);
            } else {
                known.dead.push(file.what);
            }
        }
        Ok(known)
    }

    fn add(&mut self, record: Record, bytes: u64, made_ms: u64, used: &BTreeMap<&LayerId, u64>) {
        // A layer is as old as the youngest that stands on it: without it that one is worth nothing.
        let mut used_ms = 0;
        for (depth, layer) in record.output.iter().enumerate().rev() {
            used_ms = used_ms.max(used.get(layer).copied().unwrap_or(0));
            let of = match self.of.get_mut(layer) {
                Some(of) => of,
                None => self.of.entry(layer.clone()).or_default(),
            };
            of.used_ms = of.used_ms.max(used_ms);
            of.depth = of.depth.max(depth);
        }
        let Some(of) = record.output.last().and_then(|top| self.of.get_mut(top)) else {
            self.bare.push((record.key, record.step, bytes, made_ms));
            return;
        };
        of.lists.extend(record.lists());
        of.records.push(record.key);
        of.bytes += bytes;
        if of.step.is_empty() || record.created_ms < of.made_ms {
            (of.step, of.made_ms) = (record.step, record.created_ms);
        }
    }
}
