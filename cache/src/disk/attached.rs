//! What hangs on something else: a layer's blobs, made for a push or kept of a pull (`variants/`), and the lists of
//! files that records refer to.
//!
//! A blob that was made of a layer can be made again from it, so it goes before anything else does, and in any case
//! when its layer does. A list of files only ever tells *why* a step ran: it counts with the records that refer to it,
//! and goes with the last of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kiln_image::Digest;

use super::{
    item::{Item, ItemType, Spot, plain},
    roots::Roots,
    survey::{Survey, VariantUse},
};
use crate::{LayerId, Result, uses::Place, uses::Turn, variants::ORIGINAL};

/// A list of files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    pub(crate) bytes: u64,
    /// How many items have records that refer to it.
    pub(crate) items: usize,
}

/// The lists of files of all records that are of use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists(pub(crate) BTreeMap<Digest, List>);

impl Lists {
    /// Counts the lists of `items`, as far as they are blobs of the store, and adds each to what the last of its
    /// items takes: with that one it goes.
    pub(crate) fn count(items: &mut [Item], survey: &Survey, roots: &Roots) -> Self {
        let sizes: BTreeMap<Digest, u64> = survey.blobs.iter().map(|blob| (blob.what, blob.bytes)).collect();
        let mut lists = Self::default();
        for item in items.iter_mut().rev() {
            item.lists
                .retain(|list| sizes.contains_key(list) && !roots.blobs.contains(list));
            for list in &item.lists {
                let bytes = sizes.get(list).copied().unwrap_or(0);
                let known = lists.0.entry(*list).or_insert(List { bytes, items: 0 });
                if known.items == 0 {
                    item.list_bytes += bytes;
                }
                known.items += 1;
            }
            item.bytes += item.list_bytes;
        }
        lists
    }

    /// Takes an item out of the count; returns the lists that nothing refers to any more, with their bytes.
    pub(crate) fn release(&mut self, item: &Item) -> Vec<(Digest, u64)> {
        let mut free = Vec::new();
        for list in &item.lists {
            if let Some(known) = self.0.get_mut(list) {
                known.items = known.items.saturating_sub(1);
                if known.items == 0 {
                    free.push((*list, known.bytes));
                }
            }
        }
        free
    }
}

/// The blobs of layers as items, and what of `variants/` belongs to the layers' own.
#[derive(Debug, Default)]
pub(crate) struct LayerBlobs {
    pub(crate) items: Vec<Item>,
    /// Blobs that are such an item.
    pub(crate) taken: HashSet<Digest>,
    /// Files that have no blob of their own to delete, by DiffID of layers that are there: they go with the layer.
    pub(crate) files: BTreeMap<Digest, u64>,
}

impl LayerBlobs {
    pub(crate) fn collect(survey: &Survey, roots: &Roots, turn: &Turn) -> Result<Self> {
        let sizes: BTreeMap<Digest, (u64, u64)> = survey
            .blobs
            .iter()
            .map(|blob| (blob.what, (blob.bytes, blob.used_ms)))
            .collect();
        let layers: BTreeMap<Digest, &LayerId> = survey
            .layers
            .iter()
            .filter_map(|layer| Some((layer.diff_id?, &layer.id)))
            .collect();
        let mut found = Self::default();
        for variant in &survey.variants {
            // What cannot be read is damaged, or of a newer program: `verify` tells which.
            let Some(read) = &variant.read else { continue };
            let blob = read.blob.digest;
            let own = sizes.get(&blob).filter(|_| !roots.blobs.contains(&blob)).copied();
            let layer = layers.get(&variant.diff_id).copied();
            if let Some((bytes, used_ms)) = own
                && found.taken.insert(blob)
            {
                let in_use = turn.is_used(Place::of_blob(&blob))?;
                let item = item(variant, Some(blob), layer);
                found.items.push(Item {
                    bytes: variant.bytes + bytes,
                    used_ms: used_ms.max(variant.used_ms),
                    in_use,
                    ..item
                });
            } else if layer.is_some() {
                *found.files.entry(variant.diff_id).or_default() += variant.bytes;
            } else if !roots.diff_ids.contains(&variant.diff_id) {
                found.items.push(item(variant, None, None));
            }
        }
        Ok(found)
    }
}

fn item(variant: &VariantUse, blob: Option<Digest>, layer: Option<&LayerId>) -> Item {
    let place = Spot::Variant {
        diff_id: variant.diff_id,
        form: variant.form.clone(),
        blob,
    };
    let id = match blob {
        Some(blob) => blob.to_string(),
        None => format!("{}/{}", variant.diff_id, variant.form),
    };
    let description = layer.map_or_else(
        || format!("{} of a layer that is gone", variant.form),
        |layer| format!("{} of {layer}", variant.form),
    );
    Item {
        description,
        // One that came from elsewhere cannot be made again.
        can_be_remade: variant.form != ORIGINAL || layer.is_none(),
        ..plain(ItemType::Internal, place, id, variant.bytes, variant.used_ms)
    }
}

/// Those of the items that `goes` says, in their order. The blobs of a layer that goes go before it, whatever is said
/// of them.
pub(crate) fn with_blobs(items: &[Item], goes: impl Fn(&Item) -> bool) -> Vec<&Item> {
    let mut of: BTreeMap<Digest, Vec<&Item>> = BTreeMap::new();
    for item in items {
        if let Spot::Variant { diff_id, .. } = &item.place
            && !item.in_use
            && !goes(item)
        {
            of.entry(*diff_id).or_default().push(item);
        }
    }
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for item in items.iter().filter(|item| goes(item)) {
        if let Some(diff_id) = item.diff_id
            && seen.insert(diff_id)
        {
            all.extend(of.remove(&diff_id).unwrap_or_default());
        }
        all.push(item);
    }
    all
}
