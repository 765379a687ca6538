//! Filling the database from the records of the store.
//!
//! A rebuild goes on as long as [`REBUILD_LIMIT`] at a time and holds little in memory, so that a build with a large
//! store beside it does not notice. How far it is stands in `index/rebuilding`, written after what it speaks of was
//! taken in; while that file is there, the database answers nothing. To take something in twice does no harm.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use super::{Entry, Index, REBUILD_LIMIT, database::Sled};
use crate::{files, records, sealed, store::Shared};

const KIND: &str = "index-rebuild";
const VERSION: u32 = 1;
/// Its name below `index/`.
pub(super) const FILE: &str = "rebuilding";

/// How far it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// The last folder of records that is done.
    shard: String,
}

/// Notes that everything is to be taken in.
pub(super) fn begin(shared: &Shared) -> Result<(), String> {
    write(shared, &Progress::default())
}

/// Goes on with a rebuild, if one is under way. `None` when it is not done yet: the database is closed, then.
pub(super) fn go_on(
    shared: &Arc<Shared>,
    mut sled: Sled,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Sled>, String> {
    let path = shared.root.join("index").join(FILE);
    let Some(bytes) = files::read_opt(&path).map_err(text)? else {
        return Ok(Some(sled));
    };
    // Nobody knows how far it was.
    let mut progress: Progress = sealed::open(KIND, VERSION, &bytes).unwrap_or_default();
    let end = Instant::now() + REBUILD_LIMIT;
    loop {
        if stop() || Instant::now() >= end {
            Box::new(sled).close()?;
            return Ok(None);
        }
        let Some(entries) = next(shared, &mut progress)? else {
            break;
        };
        sled.apply(&entries)?;
        write(shared, &progress)?;
    }
    files::remove_if_there(&path).map_err(text)?;
    Ok(Some(sled))
}

/// The next part, and how far it is with that. `None` at the end.
fn next(shared: &Shared, progress: &mut Progress) -> Result<Option<Vec<Entry>>, String> {
    let folder = shared.root.join("records");
    let shards = files::names(&folder).map_err(text)?;
    let Some(shard) = shards.into_iter().find(|shard| *shard > progress.shard) else {
        return Ok(None);
    };
    let mut entries = Vec::new();
    for name in files::names(&folder.join(&shard)).map_err(text)? {
        let Ok(bytes) = std::fs::read(folder.join(&shard).join(name)) else {
            continue;
        };
        if let Ok((record, _)) = records::parse(&bytes) {
            entries.push(Entry::of(&record));
        }
    }
    progress.shard = shard;
    Ok(Some(entries))
}

fn write(shared: &Shared, progress: &Progress) -> Result<(), String> {
    let path = shared.root.join("index").join(FILE);
    let bytes = sealed::seal(KIND, VERSION, progress).map_err(text)?;
    shared.temp.publish(&bytes, &path, false).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
