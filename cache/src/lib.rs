//! The store: everything that Kiln keeps on disk, as plain immutable files.
//!
//! # The folder
//!
//! ```text
//! <root>/version              "kiln-store 1" and which overlay attributes the layers use
//! <root>/blobs/sha256/<hex>   manifests, configs, compressed layers          (blobs)
//! <root>/blobs/stamps/<hex>   when a large blob was published
//! <root>/variants/<DiffID>/   what a layer is as a blob: compressed, or as it came (variants)
//! <root>/layers/<id>/         diff/, listing, meta.json, diffid, usage       (layers)
//! <root>/records/<2>/<key>    key → layers, with the key's readable parts    (records)
//! <root>/hashes/<context>     file hashes of a build context                 (hashes)
//! <root>/mounts/<key>/<n>/    cache mounts: directories that steps keep      (mounts)
//! <root>/images/ids, names    images and their names                         (images)
//! <root>/remotes/<url's hash> what a URL had when it was last asked          (remotes)
//! <root>/git/<remote's hash>/ bare git repositories, filled by the solver
//! <root>/builds/<id>.json     history; <id>.log/ the steps' logs, zstd       (builds)
//! <root>/index/               sled, rebuildable at any time; journal/        (index)
//! <root>/synced/              what of all this survives a power loss         (durability)
//! <root>/locks/               store (the lease), images, layers, create      (lease)
//! <root>/locks/uses           what running processes rely on                 (uses)
//! <root>/tmp/<owner>/         work in progress; tmp/partial/ blobs to resume (temp)
//! <root>/damaged/             what was found damaged and set aside
//! ```
//!
//! # How things get in
//!
//! Everything is written under `tmp/` and gets its name by one rename, complete or not at all. So a reader needs
//! no lock, any number of processes share one root, and after `kill -9` at any moment the next process finds
//! whole things and some rubbish under `tmp/` that it can prove to be nobody's. The order within a build:
//!
//! 1. blobs and layers (nothing refers to them yet),
//! 2. records, which refer to layers,
//! 3. [`Store::sync`], one `syncfs`,
//! 4. the image and last its name, each fsynced.
//!
//! A record whose layer is missing is a miss, so no order of deletion can make a wrong hit. Until step 3 layers
//! and records count only in the boot that made them ([`Stamp`]): after a power loss they are ignored and
//! replaced, never trusted.
//!
//! What is damaged is never an error of a build: it is a miss, is moved to `damaged/`, and is told by
//! [`Store::take_warnings`].
//!
//! # Main types
//!
//! [`Store`] hands out [`Blobs`], [`Layers`], [`Records`], [`Images`], [`Hashes`], [`CacheMounts`], [`Remotes`],
//! [`Builds`], and [`IndexHandle`].
//! A step asks [`Records::get`] with its [`Key`]; on a miss it runs on a [`LayerDraft`], commits that as a
//! [`Layer`], and puts a [`Record`]. [`verify::run`] checks everything against everything; [`disk`] says what takes how
//! much room, and makes some.

mod blobs;
pub mod boot;
mod builds;
pub mod disk;
mod durability;
mod error;
mod files;
#[cfg(test)]
mod formats;
pub mod hashes;
pub mod images;
pub mod index;
mod key;
mod layers;
mod lease;
mod lost;
mod maintenance;
mod mounts;
pub mod portable;
pub mod records;
pub mod remotes;
mod remove;
mod sealed;
mod store;
mod temp;
#[cfg(test)]
mod testing;
mod uses;
pub mod variants;
pub mod verify;
mod writeback;

pub use blobs::{BlobDraft, BlobWriter, Blobs};
pub use boot::BootId;
pub use builds::{BuildId, BuildLog, Builds, LogReader, Retention, RunningBuild, StepLog};
pub use durability::Stamp;
pub use error::{Error, Result, Warning};
pub use hashes::{FileHashes, Hashes};
pub use images::{Found, ImageLayer, ImageRecord, Images, IndexRecord, IndexedImage, Removed};
pub use index::IndexHandle;
pub use key::{Key, KeyPart};
pub use layers::{Layer, LayerDraft, LayerId, Layers, Snapshot};
pub use maintenance::Maintenance;
pub use mounts::{CacheMount, CacheMounts, MountBase, MountEntry, MountIdentity, MountRecord, MountSharing};
pub use portable::{PortableCache, PortableLayer, PortableRecord};
pub use records::{Lookup, Miss, Record, RecordKind, Records};
pub use remotes::{RemoteFile, Remotes};
pub use sealed::{Flaw, seal_for_tests};
pub use store::{Store, StoreOptions};
pub use temp::{Temp, TempDir};
pub use variants::{Variant, Variants};
