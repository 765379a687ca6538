//! Things of the cache that can be deleted one by one.

use kiln_image::Digest;

use crate::{Key, LayerId};

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

/// An item of which no more is known.
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
