//! Setting aside what a check found damaged.

use super::{Damage, Report};
use crate::{Error, Result, Store, Warning};

/// Moves what the report names to `damaged/`. [`Error::Busy`] while any other process has the store open. Returns
/// what was moved.
pub fn repair(store: &Store, report: &Report) -> Result<Vec<Warning>> {
    let shared = &store.shared;
    shared.lease.exclusively(|| {
        let mut moved = Vec::new();
        for damage in &report.damage {
            let path = match damage {
                Damage::Record { key, .. } | Damage::RecordLayer { key, .. } => store.records().path(key),
                Damage::Layer { id, .. } | Damage::LayerContent { id, .. } => store.layers().path(id),
                Damage::Blob { digest, .. } => store.blobs().path(digest),
                Damage::Image { id, .. } => store.images().id_path(id),
                Damage::Index { id, .. } => store.images().index_path(id),
                Damage::Name { name, .. } => store.images().name_path(name),
                Damage::File { path, .. } => path.clone(),
            };
            if std::fs::symlink_metadata(&path).is_ok() {
                moved.push(shared.set_aside(&path, damage.to_string()));
            }
        }
        store.layers().forget_seen();
        match moved.iter().find(|warning| warning.moved_to.is_none()) {
            None => Ok(moved),
            Some(stuck) => Err(Error::Damaged {
                path: stuck.path.clone(),
                reason: "cannot be set aside".to_owned(),
            }),
        }
    })
}
