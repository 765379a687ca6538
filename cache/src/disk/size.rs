//! How large the store is, as far as that is known without looking at all of it: `index/size`.
//!
//! A store is measured as a whole ([`super::total`]) when it may have passed its ceiling, and once a day. In between its size is the one
//! that was measured and what processes have published since, or what the file system has filled since, whichever is
//! more: what is said is rather too much than too little, and too much costs one more measuring.

use serde::{Deserialize, Serialize};

use super::prune::Space;
use crate::{Result, Store, files, lease, sealed};

const KIND: &str = "size";
const VERSION: u32 = 1;
/// As long as this a measured size is believed: what cache mounts grow by is not counted if others delete as much.
const BELIEVED_MS: u64 = 24 * 60 * 60 * 1000;

/// Of what was measured that lately, nobody but who tells of it has deleted much without the file system being emptier:
/// there room is made without another measuring. A large store is measured beside several commands, and the deleting has
/// to get its turn.
const JUST_NOW_MS: u64 = 10 * 60 * 1000;

#[derive(Debug, Serialize, Deserialize)]
struct SizeFile {
    /// What was measured.
    total: u64,
    /// What was published since then.
    added: u64,
    /// What of the file system was filled then.
    filled: u64,
    measured_ms: u64,
}

/// What is known of the size without looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Estimate {
    /// It is no larger than that.
    pub(super) most: u64,
    /// It is no smaller, if it was measured just now; else 0.
    pub(super) least: u64,
}

/// Adds what this process has published since it last did so. Returns what is known of the size; `None` if it has to be
/// measured.
pub(super) fn estimate(store: &Store, published: u64, space: &Space) -> Result<Option<Estimate>> {
    let _turn = lease::short(store.root(), "size")?;
    let Some(mut known) = read(store)? else {
        return Ok(None);
    };
    // A clock that was set back makes it look young: it grows old again.
    let age = files::now_ms().saturating_sub(known.measured_ms);
    if age > BELIEVED_MS {
        return Ok(None);
    }
    if published > 0 {
        known.added = known.added.saturating_add(published);
        write(store, &known)?;
    }
    let filled = space.filled().saturating_sub(known.filled);
    let freed = known.filled.saturating_sub(space.filled());
    Ok(Some(Estimate {
        most: known.total.saturating_add(known.added.max(filled)),
        least: if age < JUST_NOW_MS {
            known.total.saturating_sub(freed)
        } else {
            0
        },
    }))
}

/// Keeps what was measured, and what of the file system was filled when that began.
pub(super) fn measured(store: &Store, total: u64, filled: u64) -> Result<()> {
    let _turn = lease::short(store.root(), "size")?;
    write(
        store,
        &SizeFile {
            total,
            added: 0,
            filled,
            measured_ms: files::now_ms(),
        },
    )
}

/// Takes into account that so much was deleted.
pub(super) fn freed(store: &Store, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let _turn = lease::short(store.root(), "size")?;
    let Some(mut known) = read(store)? else {
        return Ok(());
    };
    known.total = known.total.saturating_sub(bytes);
    known.filled = known.filled.saturating_sub(bytes);
    match write(store, &known) {
        Ok(()) => Ok(()),
        // The disk may be full. Then it is measured anew.
        Err(_) => files::remove_if_there(&store.root().join("index/size")),
    }
}

fn read(store: &Store) -> Result<Option<SizeFile>> {
    let bytes = files::read_opt(&store.root().join("index/size"))?;
    Ok(bytes.and_then(|bytes| sealed::open(KIND, VERSION, &bytes).ok()))
}

fn write(store: &Store, known: &SizeFile) -> Result<()> {
    let bytes = sealed::seal(KIND, VERSION, known)?;
    store
        .temp()
        .publish(&bytes, &store.root().join("index/size"), false)
}
