//! The small files that say what could be found out again: each may be lost at any time, and a damaged one is never
//! believed. So that a check tells of every changed byte, they are looked at, too.

use std::path::{Path, PathBuf};

use super::Damage;
use crate::{
    Result, Store, blobs, disk, durability, files, layers,
    sealed::{self, Flaw},
};

/// A kind of file: its name in the envelope, and the version that is known.
type Kind = (&'static str, u32);

/// What is damaged of them.
pub(super) fn check(store: &Store) -> Result<Vec<Damage>> {
    let root = store.root();
    let mut damage = Vec::new();
    let folders: [(&str, Kind); 2] = [
        ("blobs/stamps", (blobs::KIND, blobs::VERSION)),
        ("synced/boots", (durability::KIND, durability::VERSION)),
    ];
    for (folder, kind) in folders {
        check_all(&root.join(folder), kind, &mut damage)?;
    }
    for id in store.layers().list()? {
        let layer = store.layers().path(&id);
        for (name, kind) in [layers::DIFF_ID_FILE, disk::USAGE_FILE] {
            check_one(layer.join(name), kind, &mut damage)?;
        }
    }
    Ok(damage)
}

fn check_all(folder: &Path, kind: Kind, damage: &mut Vec<Damage>) -> Result<()> {
    // What is just being written beside its place has no name yet.
    let is_new = |name: &String| {
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "new")
    };
    for name in files::names(folder)?.iter().filter(|name| !is_new(name)) {
        check_one(folder.join(name), kind, damage)?;
    }
    Ok(())
}

fn check_one(path: PathBuf, (kind, version): Kind, damage: &mut Vec<Damage>) -> Result<()> {
    let Some(bytes) = files::read_opt(&path)? else {
        return Ok(());
    };
    if let Err(Flaw::Damaged(reason)) = sealed::open_bytes(kind, version, &bytes) {
        damage.push(Damage::File { path, reason });
    }
    Ok(())
}
