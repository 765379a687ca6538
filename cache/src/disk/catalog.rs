//! What the store's bytes are for: images, and the cache as a list of things that can be deleted one by one.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Digest;

use super::{
    Stop,
    attached::{LayerBlobs, Lists},
    known::Known,
    never,
    roots::Roots,
    survey::Survey,
};
use crate::{
    Key, LayerId, Result, Store, files,
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
    /// What is remembered of a file that was downloaded: its validators.
    Http,
    /// A blob that no image needs: a layer compressed for a push.
    Internal,
}

impl ItemType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Regular,
        Self::CacheMount,
        Self::Git,
        Self::Local,
        Self::Http,
        Self::Internal,
    ];

    /// BuildKit's name, or one in its manner.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::Git => "source.git.checkout",
            Self::Local => "source.local",
            Self::Http => "source.http",
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
    /// The record of a step that made no layer, on nothing.
    Bare,
    Mount(String),
    Git(String),
    Context(String),
    Remote(String),
    Blob(Digest),
    /// A layer as a blob.
    Variant {
        diff_id: Digest,
        form: String,
        /// `None` when it is gone, or an image's.
        blob: Option<Digest>,
    },
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
    /// The lists of files that the records refer to.
    pub(crate) lists: Vec<Digest>,
    /// What of `bytes` is lists.
    pub(crate) list_bytes: u64,
    /// Some record has it in its result.
    pub(crate) is_cached: bool,
    /// Of a layer: the sha256 of its tar, if what is known of it as a blob goes with it.
    pub(crate) diff_id: Option<Digest>,
    /// It costs no more than time to have it again, and less than the step.
    pub(crate) can_be_remade: bool,
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
    pub(crate) lists: Lists,
    builds: usize,
    containers: usize,
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

pub(super) fn plain(kind: ItemType, place: Spot, id: String, bytes: u64, used_ms: u64) -> Item {
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
        lists: Vec::new(),
        list_bytes: 0,
        is_cached: false,
        diff_id: None,
        can_be_remade: false,
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
