//! Deleting things of the cache that nobody uses, beside everybody else.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;

use super::{
    catalog::{Item, Spot},
    roots::Roots,
};
use crate::{
    LayerId, MountEntry, Result, Store, error, files,
    index::{Entry, journal},
    remove,
    uses::{Place, Turn},
};

/// So many things are locked, judged and taken away at a time. Who wants one of them waits for that long.
const BATCH: usize = 64;

/// Deletes `items`, except those that are in use or that an image needs by now. Tells of each one that it deleted.
pub(crate) fn items(store: &Store, items: &[&Item], mut deleted: impl FnMut(&Item)) -> Result<()> {
    for batch in items.chunks(BATCH) {
        let away = take_away(store, batch)?;
        for (item, path) in away {
            for key in &item.records {
                records(store, std::slice::from_ref(key))?;
            }
            if let Some(path) = path {
                remove::tree(&path).map_err(error::io("delete", path))?;
            }
            deleted(item);
        }
    }
    Ok(())
}

/// Deletes records and tells the index.
pub(crate) fn records(store: &Store, keys: &[crate::Key]) -> Result<()> {
    for key in keys {
        store.records().remove(key)?;
        // What cannot be told only makes the index know less, and a full disk is where room is to be made.
        let _ = store.index().note(&Entry::Forget {
            item: journal::Item::Record(*key),
            at_ms: files::now_ms(),
        });
    }
    Ok(())
}

/// Deletes what is known of the blobs of layers, where they all are gone and nothing was noted for `age`. Of a layer
/// that came as a tar it stays while the layer is there: it says where that tar is to be had again.
pub(crate) fn variants(store: &Store, age: Duration) -> Result<()> {
    let variants = store.variants();
    for diff_id in variants.list()? {
        if !store.layers().path(&LayerId::from_diff_id(&diff_id)).exists() {
            variants.forget(&diff_id, age, |blob| store.blobs().path(blob).exists())?;
        }
    }
    Ok(())
}

/// Moves to `tmp/` what can go, and returns where it is. From then on it cannot be found any more.
fn take_away<'a>(store: &Store, batch: &[&'a Item]) -> Result<Vec<(&'a Item, Option<PathBuf>)>> {
    let turn = Turn::new(store.root())?;
    let mut free = Vec::new();
    for &item in batch {
        let is_free = match &item.place {
            Spot::Layer(id) => turn.take(Place::of_layer(id))?,
            Spot::Blob(digest) => turn.take(Place::of_blob(digest))?,
            _ => true,
        };
        if is_free {
            free.push(item);
        }
    }
    // Only now: whoever made an image of these things held them until its file was there.
    let roots = Roots::read(store)?;
    let mut away = Vec::new();
    for item in free {
        let root = store.root();
        let path = match &item.place {
            Spot::Layer(id) if roots.layers.contains_key(id) => continue,
            Spot::Blob(digest) if roots.blobs.contains(digest) => continue,
            Spot::Records => {
                away.push((item, None));
                continue;
            }
            Spot::Layer(id) => store.layers().path(id),
            Spot::Blob(digest) => {
                delete(&root.join("blobs/stamps").join(digest.hex()))?;
                store.blobs().path(digest)
            }
            Spot::Context(name) => root.join("hashes").join(name),
            Spot::Mount(name) => {
                let (name, record) = (name.clone(), None);
                if store.cache_mounts().remove(&MountEntry { name, record })? {
                    away.push((item, None));
                }
                continue;
            }
            Spot::Git(name) => {
                away.extend(take_repository(store, name)?.map(|path| (item, Some(path))));
                continue;
            }
        };
        away.extend(move_away(store, &path)?.map(|path| (item, Some(path))));
    }
    Ok(away)
}

/// A repository is locked by who uses it.
fn take_repository(store: &Store, name: &str) -> Result<Option<PathBuf>> {
    let folder = store.root().join("git");
    let lock_path = folder.join(format!("{name}.lock"));
    let lock: File = files::open_lock(&lock_path)?;
    if !files::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &lock_path)? {
        return Ok(None);
    }
    move_away(store, &folder.join(name))
}

/// `None` when it is gone already.
fn move_away(store: &Store, path: &Path) -> Result<Option<PathBuf>> {
    let away = store.temp().away();
    match std::fs::rename(path, &away) {
        Ok(()) => Ok(Some(away)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error::io("delete", path)(source)),
    }
}

fn delete(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(error::io("delete", path)(source))
        }
        _ => Ok(()),
    }
}
