//! Deleting things of the cache that nobody uses, beside everybody else.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use kiln_image::Digest;
use rustix::fs::FlockOperation;

use super::{
    item::{Item, Spot},
    roots::Roots,
};
use crate::{
    LayerId, MountEntry, Result, Store, error, files,
    index::Entry,
    remove,
    uses::{Place, Turn},
    variants,
};

/// So many things are locked, judged and taken away at a time. Who wants one of them waits for that long.
const BATCH: usize = 64;

/// Deletes `items`, except those that are in use or that an image needs by now. Tells of each one that it deleted.
pub(crate) fn items(store: &Store, items: &[&Item], mut deleted: impl FnMut(&Item)) -> Result<()> {
    for batch in items.chunks(BATCH) {
        let away = take_away(store, batch)?;
        for (item, path) in away {
            for key in &item.records {
                store.records().remove(key)?;
            }
            if let Spot::Layer(id) = &item.place {
                store.index().note(&Entry::LayerGone(id.clone()));
            }
            if let Some(diff_id) = &item.diff_id {
                variants_of(store, diff_id)?;
            }
            if let Some(path) = path {
                remove::tree(&path).map_err(error::io("delete", path))?;
            }
            deleted(item);
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
            Spot::Blob(digest)
            | Spot::Variant {
                blob: Some(digest), ..
            } => turn.take(Place::of_blob(digest))?,
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
            Spot::Records | Spot::Bare => {
                away.push((item, None));
                continue;
            }
            Spot::Variant { diff_id, form, blob } => {
                // Of a layer that stays, where its own blob is to be had again stays, too: nothing else makes that blob.
                let layer = store.layers().path(&LayerId::from_diff_id(diff_id));
                if form != variants::ORIGINAL || !layer.exists() {
                    store.variants().forget(diff_id, form)?;
                }
                let blob = blob.filter(|digest| !roots.blobs.contains(digest));
                let path = match &blob {
                    Some(digest) => take_blob(store, digest)?,
                    None => None,
                };
                away.push((item, path));
                continue;
            }
            Spot::Layer(id) => store.layers().path(id),
            Spot::Blob(digest) => {
                away.extend(take_blob(store, digest)?.map(|path| (item, Some(path))));
                continue;
            }
            Spot::Remote(name) => root.join("remotes").join(name),
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

fn take_blob(store: &Store, digest: &Digest) -> Result<Option<PathBuf>> {
    files::remove_if_there(&store.root().join("blobs/stamps").join(digest.hex()))?;
    move_away(store, &store.blobs().path(digest))
}

/// Forgets what a layer that is gone was known as. Blobs that somebody uses now are for the next time.
fn variants_of(store: &Store, diff_id: &Digest) -> Result<()> {
    for form in files::names(&store.variants().folder(diff_id))? {
        if variants::is_form(&form) {
            store.variants().forget(diff_id, &form)?;
        }
    }
    Ok(())
}

/// Deletes those of the blobs that nobody uses and no image needs; returns them.
pub(crate) fn blobs(store: &Store, digests: &[Digest]) -> Result<BTreeSet<Digest>> {
    let mut gone = BTreeSet::new();
    for batch in digests.chunks(BATCH) {
        let turn = Turn::new(store.root())?;
        let mut free = Vec::new();
        for digest in batch {
            if turn.take(Place::of_blob(digest))? {
                free.push(digest);
            }
        }
        let roots = Roots::read(store)?;
        for digest in free.into_iter().filter(|digest| !roots.blobs.contains(*digest)) {
            if let Some(path) = take_blob(store, digest)? {
                files::remove_if_there(&path)?;
                gone.insert(*digest);
            }
        }
    }
    Ok(gone)
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
