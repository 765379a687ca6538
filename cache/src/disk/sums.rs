//! What takes how much, added up by kind of thing.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use super::{Catalog, ItemType};
use crate::LayerId;

/// Sums over one kind of thing; those of a catalog add up to the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// What it is.
    pub name: &'static str,
    /// How many there are.
    pub count: usize,
    /// What they take.
    pub bytes: u64,
    /// Bytes that are counted here, and that others of this kind or the cache have, too.
    pub shared_bytes: u64,
    /// What `cache prune --all` would give back.
    pub reclaimable: u64,
}

impl Catalog {
    /// The sum of everything in the store.
    pub fn total(&self) -> u64 {
        self.survey.total()
    }

    /// The sum of what is cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// What images take, with the files that describe them.
    pub fn image_bytes(&self) -> u64 {
        self.sums().first().map_or(0, |images| images.bytes)
    }

    /// Bytes of the layers that none of the images `active` has: what would be free without the others.
    pub fn bytes_of_other_images(&self, active: &BTreeSet<Digest>) -> u64 {
        let of = self
            .roots
            .images
            .iter()
            .filter(|record| active.contains(&record.id));
        let kept: BTreeSet<&LayerId> = of
            .flat_map(|record| record.layers.iter().map(|layer| &layer.layer))
            .collect();
        let layers = self.survey.layers.iter();
        layers
            .filter(|layer| self.roots.layers.contains_key(&layer.id) && !kept.contains(&layer.id))
            .map(|layer| layer.bytes)
            .sum()
    }

    /// Sums by kind of thing.
    pub fn sums(&self) -> Vec<Sum> {
        let sizes: BTreeMap<&LayerId, u64> = self
            .survey
            .layers
            .iter()
            .map(|layer| (&layer.id, layer.bytes))
            .collect();
        let used = |least: usize| -> u64 {
            let of = self.roots.layers.iter().filter(|(_, users)| **users >= least);
            of.filter_map(|(id, _)| sizes.get(id)).sum()
        };
        let blobs = self.survey.blobs.iter();
        let blobs: u64 = blobs
            .filter(|blob| self.roots.blobs.contains(&blob.what))
            .map(|blob| blob.bytes)
            .sum();
        let mut sums = vec![Sum {
            name: "images",
            count: self.images.len(),
            bytes: used(1) + blobs + self.survey.images,
            shared_bytes: used(2),
            reclaimable: 0,
        }];
        let names = [
            (ItemType::Regular, "steps"),
            (ItemType::CacheMount, "cache mounts"),
            (ItemType::Git, "git repositories"),
            (ItemType::Local, "contexts"),
            (ItemType::Http, "downloads"),
            (ItemType::Internal, "blobs"),
        ];
        for (kind, name) in names {
            let items = || self.items.iter().filter(move |item| item.kind == kind);
            sums.push(Sum {
                name,
                count: items().count(),
                bytes: items().map(|item| item.bytes).sum(),
                shared_bytes: items().map(|item| item.shared_bytes).sum(),
                reclaimable: items().filter(|item| !item.in_use).map(|item| item.bytes).sum(),
            });
        }
        let rest = self.total() - sums.iter().map(|sum| sum.bytes).sum::<u64>().min(self.total());
        let plain = |name, count, bytes| Sum {
            name,
            count,
            bytes,
            shared_bytes: 0,
            reclaimable: 0,
        };
        let (builds, containers) = (self.survey.builds, self.survey.containers);
        sums.push(plain("builds and logs", self.builds, builds));
        sums.push(plain("containers", self.containers, containers));
        sums.push(plain("other", 0, rest.saturating_sub(builds + containers)));
        sums
    }
}
