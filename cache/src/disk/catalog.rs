//! What the store's bytes are for: images, and the cache as a list of things that can be deleted one by one.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use super::{roots::Roots, survey::Survey};
use crate::{
    Key, LayerId, Record, Result, Store, files, records,
    uses::{Place, Turn},
};

/// What kind of cache it is; named as BuildKit names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemType {
    /// What a step made.
    Regular,
    /// A directory that steps keep: `RUN --mount=type=cache`.
    CacheMount,
    /// What was fetched of a git repository.
    Git,
    /// What is remembered of the files of a build context.
    Local,
    /// A blob that no image needs: a layer compressed for a push, a listing.
    Internal,
}

impl ItemType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Regular,
        Self::CacheMount,
        Self::Git,
        Self::Local,
        Self::Internal,
    ];

    /// BuildKit's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::Git => "source.git.checkout",
            Self::Local => "source.local",
            Self::Internal => "internal",
        }
    }
}

/// Where an item is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spot {
    Layer(LayerId),
    /// Records whose layers images need, too: only they can go.
    Records,
    Mount(String),
    Git(String),
    Context(String),
    Blob(Digest),
}

/// A thing of the cache that can be deleted on its own.
#[derive(Debug, Clone)]
pub struct Item {
    pub(crate) place: Spot,
    /// What kind it is.
    pub kind: ItemType,
    /// Its name in the store.
    pub id: String,
    /// What deleting it gives back.
    pub bytes: u64,
    /// Bytes that it has together with images, and that stay.
    pub shared_bytes: u64,
    /// When it was made, in milliseconds since 1970, if that is known.
    pub created_ms: Option<u64>,
    /// When it was last used, in milliseconds since 1970.
    pub used_ms: u64,
    /// A process uses it now.
    pub in_use: bool,
    /// What it is, for people: the step, the id of a mount.
    pub description: String,
    /// How many layers are below it at most: of things used at the same time, the upper one goes first.
    pub(crate) depth: usize,
    pub(crate) records: Vec<Key>,
}

impl Item {
    /// An image has it, too.
    pub fn is_shared(&self) -> bool {
        self.place == Spot::Records
    }
}

/// An image and what it takes.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// Its id.
    pub id: Digest,
    /// Its names.
    pub names: Vec<String>,
    /// When it was created, as its config says (RFC 3339).
    pub created: Option<String>,
    /// Bytes of its layers.
    pub bytes: u64,
    /// Of these, the bytes of layers that other images have, too.
    pub shared_bytes: u64,
}

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

/// What is in the store and for what.
#[derive(Debug)]
pub struct Catalog {
    pub(crate) survey: Survey,
    pub(crate) roots: Roots,
    /// The images.
    pub images: Vec<ImageUsage>,
    /// The cache, in the order in which it would be deleted.
    pub items: Vec<Item>,
    /// Records that lead to no result any more, or to one that images have, too.
    pub(crate) dead: Vec<Key>,
    builds: usize,
    containers: usize,
}

impl Catalog {
    /// Looks at everything in the store.
    pub fn read(store: &Store) -> Result<Self> {
        let survey = Survey::take(store)?;
        let roots = Roots::read(store)?;
        let known = Known::read(store, &survey)?;
        let mut catalog = Self {
            images: images(store, &survey, &roots)?,
            items: Vec::new(),
            dead: known.dead.clone(),
            builds: store.builds().list()?.len(),
            containers: files::names(&store.root().join("containers"))?
                .iter()
                .filter(|name| name.len() == 64)
                .count(),
            survey,
            roots,
        };
        catalog.collect(&known, &Turn::new(store.root())?)?;
        // The least recently used first; of those used at the same time, what stands on others.
        catalog.items.sort_by(|one, other| {
            (one.used_ms, other.depth, &one.id).cmp(&(other.used_ms, one.depth, &other.id))
        });
        Ok(catalog)
    }

    /// The sum of everything in the store.
    pub fn total(&self) -> u64 {
        self.survey.total()
    }

    /// The sum of what is cache.
    pub fn cache_bytes(&self) -> u64 {
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

    fn collect(&mut self, known: &Known, turn: &Turn) -> Result<()> {
        for layer in &self.survey.layers {
            let of = known.of.get(&layer.id);
            let records = of.map(|of| of.records.clone()).unwrap_or_default();
            let kept: u64 = of.map_or(0, |of| of.bytes);
            let is_root = self.roots.layers.contains_key(&layer.id);
            if is_root && records.is_empty() {
                continue;
            }
            self.items.push(Item {
                kind: ItemType::Regular,
                id: layer.id.to_string(),
                bytes: if is_root { kept } else { layer.bytes + kept },
                shared_bytes: if is_root { layer.bytes } else { 0 },
                created_ms: (layer.created_ms > 0).then_some(layer.created_ms),
                used_ms: of.map_or(0, |of| of.used_ms).max(layer.used_ms),
                in_use: turn.is_used(Place::of_layer(&layer.id))?,
                description: of.map(|of| of.step.clone()).unwrap_or_default(),
                depth: of.map_or(0, |of| of.depth),
                place: if is_root {
                    Spot::Records
                } else {
                    Spot::Layer(layer.id.clone())
                },
                records,
            });
        }
        for blob in &self.survey.blobs {
            if !self.roots.blobs.contains(&blob.what) {
                let in_use = turn.is_used(Place::of_blob(&blob.what))?;
                let place = Spot::Blob(blob.what);
                let item = plain(
                    ItemType::Internal,
                    place,
                    blob.what.to_string(),
                    blob.bytes,
                    blob.used_ms,
                );
                self.items.push(Item { in_use, ..item });
            }
        }
        for mount in &self.survey.mounts {
            let (name, record) = &mount.what;
            let place = Spot::Mount(name.clone());
            let item = plain(
                ItemType::CacheMount,
                place,
                name.clone(),
                mount.bytes,
                mount.used_ms,
            );
            let id = record.as_ref().map(|record| record.identity.id.clone());
            self.items.push(Item {
                description: id.unwrap_or_default(),
                created_ms: record.as_ref().map(|record| record.created_ms),
                ..item
            });
        }
        for git in &self.survey.git {
            let place = Spot::Git(git.what.clone());
            let id = format!("git-{}", git.what);
            self.items
                .push(plain(ItemType::Git, place, id, git.bytes, git.used_ms));
        }
        for context in &self.survey.contexts {
            let place = Spot::Context(context.what.clone());
            let id = format!("context-{}", context.what);
            self.items
                .push(plain(ItemType::Local, place, id, context.bytes, context.used_ms));
        }
        Ok(())
    }
}

fn plain(kind: ItemType, place: Spot, id: String, bytes: u64, used_ms: u64) -> Item {
    Item {
        place,
        kind,
        id,
        bytes,
        shared_bytes: 0,
        created_ms: None,
        used_ms,
        in_use: false,
        description: String::new(),
        depth: 0,
        records: Vec::new(),
    }
}

fn images(store: &Store, survey: &Survey, roots: &Roots) -> Result<Vec<ImageUsage>> {
    let sizes: BTreeMap<&LayerId, u64> = survey
        .layers
        .iter()
        .map(|layer| (&layer.id, layer.bytes))
        .collect();
    let names = store.images().names()?;
    let usage = |record: &crate::ImageRecord| {
        let layers: BTreeSet<&LayerId> = record.layers.iter().map(|layer| &layer.layer).collect();
        let sum = |least: usize| {
            let of = layers
                .iter()
                .filter(|layer| roots.layers.get(**layer) >= Some(&least));
            of.filter_map(|layer| sizes.get(layer)).sum::<u64>()
        };
        ImageUsage {
            id: record.id,
            names: names
                .iter()
                .filter(|(_, id)| **id == record.id)
                .map(|(name, _)| name.clone())
                .collect(),
            created: record.created.clone(),
            bytes: sum(1),
            shared_bytes: sum(2),
        }
    };
    Ok(roots.images.iter().map(usage).collect())
}

/// What the records say of layers.
#[derive(Default)]
struct Known {
    of: BTreeMap<LayerId, OfLayer>,
    dead: Vec<Key>,
}

/// What the records say of a layer.
#[derive(Default)]
struct OfLayer {
    /// Those whose step made it.
    records: Vec<Key>,
    bytes: u64,
    step: String,
    made_ms: u64,
    used_ms: u64,
    depth: usize,
}

impl Known {
    fn read(store: &Store, survey: &Survey) -> Result<Self> {
        let used: BTreeMap<&LayerId, u64> = survey
            .layers
            .iter()
            .map(|layer| (&layer.id, layer.used_ms))
            .collect();
        let mut known = Self::default();
        for file in &survey.records {
            let Some(bytes) = files::read_opt(&store.records().path(&file.what))? else {
                continue;
            };
            // What a newer program wrote is not looked into, and not deleted.
            let Ok((record, _)) = records::parse(&bytes) else {
                continue;
            };
            if record.output.iter().all(|layer| used.contains_key(layer)) {
                known.add(record, file.bytes, &used);
            } else {
                known.dead.push(file.what);
            }
        }
        Ok(known)
    }

    fn add(&mut self, record: Record, bytes: u64, used: &BTreeMap<&LayerId, u64>) {
        // A layer is as old as the youngest that stands on it: without it that one is worth nothing.
        let mut used_ms = 0;
        for (depth, layer) in record.output.iter().enumerate().rev() {
            used_ms = used_ms.max(used.get(layer).copied().unwrap_or(0));
            let of = self.of.entry(layer.clone()).or_default();
            of.used_ms = of.used_ms.max(used_ms);
            of.depth = of.depth.max(depth);
        }
        let Some(of) = record.output.last().and_then(|top| self.of.get_mut(top)) else {
            // A step without a layer, on nothing: the record is all there is.
            return;
        };
        of.records.push(record.key);
        of.bytes += bytes;
        if of.step.is_empty() || record.created_ms < of.made_ms {
            (of.step, of.made_ms) = (record.step, record.created_ms);
        }
    }
}
