//! What the store's bytes are for: images, and the cache as a list of [`Item`]s.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use super::{
    Stop,
    attached::{LayerBlobs, Lists},
    item::{Item, ItemType, Spot, plain},
    known::Known,
    never,
    roots::Roots,
    survey::Survey,
};
use crate::{
    Key, LayerId, Result, Store, files,
    uses::{Place, Turn},
};

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
    pub(crate) lists: Lists,
    pub(super) builds: usize,
    pub(super) containers: usize,
}

impl Catalog {
    /// Looks at everything in the store.
    pub fn read(store: &Store) -> Result<Self> {
        Self::read_without(store, &BTreeSet::new(), &never)
    }

    /// The same, as if these images were removed, and as long as nobody says to stop.
    pub(crate) fn read_without(store: &Store, gone: &BTreeSet<Digest>, stop: Stop<'_>) -> Result<Self> {
        let survey = Survey::take(store, stop)?;
        let roots = Roots::read_without(store, gone)?;
        let mut known = Known::read(store, &survey, stop)?;
        let mut catalog = Self {
            images: images(store, &survey, &roots)?,
            items: Vec::new(),
            dead: Vec::new(),
            lists: Lists::default(),
            builds: store.builds().list()?.len(),
            containers: files::names(&store.root().join("containers"))?
                .iter()
                .filter(|name| name.len() == 64)
                .count(),
            survey,
            roots,
        };
        catalog.dead = std::mem::take(&mut known.dead);
        catalog.collect(known, &Turn::new(store.root())?)?;
        sort(&mut catalog.items);
        catalog.lists = Lists::count(&mut catalog.items, &catalog.survey, &catalog.roots);
        Ok(catalog)
    }

    fn collect(&mut self, mut known: Known, turn: &Turn) -> Result<()> {
        let mut blobs = LayerBlobs::collect(&self.survey, &self.roots, turn)?;
        for layer in &self.survey.layers {
            let of = known.of.remove(&layer.id);
            let is_cached = of.is_some();
            let of = of.unwrap_or_default();
            let is_root = self.roots.layers.contains_key(&layer.id);
            if is_root && of.records.is_empty() {
                continue;
            }
            let diff_id = layer
                .diff_id
                .filter(|diff_id| !is_root && !self.roots.diff_ids.contains(diff_id));
            let files = diff_id.and_then(|diff_id| blobs.files.remove(&diff_id));
            let own = layer.bytes + files.unwrap_or(0);
            let place = if is_root {
                Spot::Records
            } else {
                Spot::Layer(layer.id.clone())
            };
            let used_ms = of.used_ms.max(layer.used_ms);
            self.items.push(Item {
                bytes: if is_root { of.bytes } else { own + of.bytes },
                shared_bytes: if is_root { layer.bytes } else { 0 },
                created_ms: (layer.created_ms > 0).then_some(layer.created_ms),
                in_use: turn.is_used(Place::of_layer(&layer.id))?,
                description: of.step,
                depth: of.depth,
                records: of.records,
                lists: of.lists.into_iter().collect(),
                is_cached,
                diff_id,
                ..plain(ItemType::Regular, place, layer.id.to_string(), 0, used_ms)
            });
        }
        for (key, step, bytes, used_ms) in known.bare {
            let item = plain(ItemType::Regular, Spot::Bare, key.to_string(), bytes, used_ms);
            self.items.push(Item {
                description: step,
                records: vec![key],
                ..item
            });
        }
        let of_records: BTreeSet<Digest> = self
            .items
            .iter()
            .flat_map(|item| item.lists.iter().copied())
            .collect();
        self.items.append(&mut blobs.items);
        let is_blob = |digest: &Digest| !of_records.contains(digest) && !blobs.taken.contains(digest);
        self.items
            .extend(own_blobs(&self.survey, &self.roots, turn, is_blob)?);
        self.items.extend(sources(&self.survey));
        Ok(())
    }
}

/// What can be made again goes first, then the least recently used; of those used at the same time, what stands on
/// others.
pub(super) fn sort(items: &mut [Item]) {
    items.sort_by(|one, other| {
        let order = |item: &Item| (!item.can_be_remade, item.used_ms);
        let place = || (other.depth, &one.id).cmp(&(one.depth, &other.id));
        order(one).cmp(&order(other)).then_with(place)
    });
}

/// The blobs that no image needs, as far as `pick` wants them.
pub(super) fn own_blobs(
    survey: &Survey,
    roots: &Roots,
    turn: &Turn,
    pick: impl Fn(&Digest) -> bool,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for blob in &survey.blobs {
        if !roots.blobs.contains(&blob.what) && pick(&blob.what) {
            let in_use = turn.is_used(Place::of_blob(&blob.what))?;
            let (place, id) = (Spot::Blob(blob.what), blob.what.to_string());
            let item = plain(ItemType::Internal, place, id, blob.bytes, blob.used_ms);
            items.push(Item { in_use, ..item });
        }
    }
    Ok(items)
}

/// Cache mounts, and what was fetched or read.
pub(super) fn sources(survey: &Survey) -> Vec<Item> {
    let mut items = Vec::new();
    for mount in &survey.mounts {
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
        items.push(Item {
            description: id.unwrap_or_default(),
            created_ms: record.as_ref().map(|record| record.created_ms),
            ..item
        });
    }
    for git in &survey.git {
        let place = Spot::Git(git.what.clone());
        let id = format!("git-{}", git.what);
        items.push(plain(ItemType::Git, place, id, git.bytes, git.used_ms));
    }
    for context in &survey.contexts {
        let place = Spot::Context(context.what.clone());
        let id = format!("context-{}", context.what);
        items.push(plain(ItemType::Local, place, id, context.bytes, context.used_ms));
    }
    for remote in &survey.remotes {
        let (name, shown) = &remote.what;
        let (place, id) = (Spot::Remote(name.clone()), format!("http-{name}"));
        let item = plain(ItemType::Http, place, id, remote.bytes, remote.used_ms);
        items.push(Item {
            description: shown.clone(),
            ..item
        });
    }
    items
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
