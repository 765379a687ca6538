//! What is remembered of a lookup and of the files that a step takes, for the question *why*.

use std::collections::HashMap;

use kiln_cache::{Key, KeyPart, Lookup, Miss, Record};
use kiln_image::Digest;

use super::{Chosen, Solve};
use crate::error::StepFailure;
use crate::graph::VertexId;
use crate::report::Missed;
use crate::why::FileList;

/// The blobs of lists of files, by the hash of the files.
pub(super) type Lists = HashMap<String, Digest>;

/// `parts` with the lists of the files that they stand for.
pub(super) fn with_lists(mut parts: Vec<KeyPart>, lists: &Lists) -> Vec<KeyPart> {
    let is_files =
        |name: &str| name == "copy files" || name.starts_with("mount ") && name.ends_with(" files");
    for part in parts.iter_mut().filter(|part| is_files(&part.name)) {
        part.listing = lists.get(&part.value).copied();
    }
    parts
}

impl Solve<'_> {
    /// The record of a key. What it saves, and why one that is there is of no use, is noted.
    pub(super) fn find(&self, id: VertexId, key: &Key) -> Result<Option<Record>, StepFailure> {
        let records = self.engine.store.records();
        let missed = match records.lookup(key)? {
            Lookup::Hit(record) => {
                let Some(expired) = self.expired(id, record.created_ms) else {
                    self.results
                        .note(id, |made| made.saved_ms = Some(record.duration_ms));
                    return Ok(Some(*record));
                };
                expired
            }
            Lookup::Miss(Miss::Absent) => return Ok(None),
            Lookup::Miss(Miss::LayerMissing(_)) => Missed::LayerGone,
            Lookup::Miss(Miss::Unsynced) => Missed::Unsynced,
            Lookup::Miss(Miss::Newer(_)) => Missed::Newer,
            Lookup::Miss(Miss::Damaged(warning)) => {
                self.engine.note(warning.to_string());
                Missed::Damaged
            }
        };
        self.results.note(id, |made| made.missed = Some(missed));
        Ok(None)
    }

    /// Keeps the lists of the files that were selected, as blobs, by the hash that stands for them in keys. A list
    /// that cannot be kept is left out: it only ever says which file changed, never whether.
    pub(super) fn keep_lists(&self, chosen: &[Option<Chosen>], inputs: &[VertexId]) -> Lists {
        let mut lists = Lists::new();
        for chosen in chosen.iter().flatten() {
            let hash = chosen.selection.hash.to_string();
            if let Some(list) = self.keep_list(chosen, inputs) {
                lists.insert(hash, list);
            }
        }
        lists
    }

    fn keep_list(&self, chosen: &Chosen, inputs: &[VertexId]) -> Option<Digest> {
        let list = if let Some(view) = &chosen.view {
            FileList::of(&chosen.selection, &view.listing)
        } else {
            let snapshot = self.input_snapshot(inputs, chosen.slot).ok()?;
            FileList::of(&chosen.selection, &*self.roots.listing(&snapshot).ok()?)
        };
        self.engine.store.blobs().put_bytes(&list.encode()).ok()
    }
}
