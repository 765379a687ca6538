//! The index: what is searched rather than looked up. When a layer or record was last used, and which record a
//! step had before. It only ever answers "when" and "why", never "is this a hit": losing it costs a re-scan.
//!
//! ```text
//! index/lock        who holds it has the database
//! index/sled/       the database
//! index/state       kind `index`, version 1: closed cleanly, or in use
//! index/doubt       its presence orders a rebuild
//! index/rebuilding  kind `index-rebuild`, version 1: how far a rebuild is that is not done yet
//! index/journal/    what others want to tell it (see [`journal`])
//! ```
//!
//! sled lets one process in, takes its time to open, and is not to be trusted after a power loss or a copy. So:
//! nobody waits for it; everybody writes to a journal ([`IndexHandle::note`]); whoever gets `index/lock` without
//! waiting, in a background thread, opens it, checks it, and merges the journals. A panic, an error, a slow
//! open, a wrong count after an unclean end, or a size far beyond its content end in a rebuild from the files.

mod database;
pub mod journal;
mod rebuild;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

pub use journal::{Entry, Item};

use crate::{Key, Result, error, files, store::Shared};

/// What the store wants of a searchable index. One implementation: sled. Hidden, so that it can be changed.
pub(crate) trait Index: Send {
    /// Takes entries in, all or none. An older entry never overrides a newer one.
    fn apply(&mut self, entries: &[Entry]) -> Result<(), String>;
    /// When an item was last used.
    fn last_use(&self, item: &Item) -> Result<Option<u64>, String>;
    /// The newest record of a step.
    fn nearest(&self, identity: &Key) -> Result<Option<Key>, String>;
    /// All items with their last use, the oldest first.
    fn oldest(&self) -> Result<Vec<(Item, u64)>, String>;
    /// Ends cleanly: what was applied is flushed.
    fn close(self: Box<Self>) -> Result<(), String>;
}

/// How long an open may take before it is given up.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// A rebuild pauses after so long, and the next process goes on with it.
const REBUILD_LIMIT: Duration = Duration::from_secs(2);
/// More records than that, about, make the database large.
const LARGE: usize = 20_000;
/// So many journals are worth opening the database for.
const JOURNALS: usize = 8;
/// The buffer is appended to the journal when it is this long.
const BUFFER: usize = 32 * 1024;

/// The way to the index: notes go to the journal, questions to the database if this process can have it.
pub struct IndexHandle {
    shared: Arc<Shared>,
    pending: Mutex<Pending>,
    opened: Arc<Opened>,
}

#[derive(Default)]
struct Pending {
    buffer: Vec<u8>,
    file: Option<(File, PathBuf)>,
}

#[derive(Default)]
struct Opened {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
enum State {
    #[default]
    Not,
    Opening,
    Open(Box<dyn Index>),
    /// Another process has it, or it could not be opened.
    Unavailable,
}

impl std::fmt::Debug for IndexHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexHandle").finish_non_exhaustive()
    }
}

impl IndexHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            pending: Mutex::default(),
            opened: Arc::default(),
        }
    }

    /// Tells the index something: appended to this process's journal, now or a little later.
    pub fn note(&self, entry: &Entry) -> Result<()> {
        let mut pending = self.pending();
        journal::encode(entry, &mut pending.buffer);
        if pending.buffer.len() >= BUFFER {
            self.append(&mut pending)
        } else {
            Ok(())
        }
    }

    /// Notes the use of an item now.
    pub fn used(&self, item: Item) -> Result<()> {
        self.note(&Entry::Used {
            item,
            at_ms: files::now_ms(),
        })
    }

    /// Appends what was noted to the journal. Done by itself when the store is closed.
    pub fn flush(&self) -> Result<()> {
        self.append(&mut self.pending())
    }

    /// Begins to open the database in the background, if nobody did yet.
    pub fn warm(&self) {
        let mut state = self.opened.lock();
        if !matches!(*state, State::Not) {
            return;
        }
        *state = State::Opening;
        drop(state);
        let (shared, opened) = (Arc::clone(&self.shared), Arc::clone(&self.opened));
        let spawned = std::thread::Builder::new()
            .name("kiln-index".into())
            .spawn(move || {
                let index = open_within(&shared, &opened, OPEN_LIMIT);
                *opened.lock() = index.map_or(State::Unavailable, State::Open);
                opened.changed.notify_all();
            });
        if spawned.is_err() {
            *self.opened.lock() = State::Unavailable;
            self.opened.changed.notify_all();
        }
    }

    /// The newest earlier record of a step, if the database can be asked within `patience`.
    pub fn nearest(&self, identity: &Key, patience: Duration) -> Option<Key> {
        self.ask(patience, |index| index.nearest(identity))?
    }

    /// When an item was last used, in milliseconds since 1970, if the database can be asked within `patience`.
    pub fn last_use(&self, item: &Item, patience: Duration) -> Option<u64> {
        self.ask(patience, |index| index.last_use(item))?
    }

    /// All items with their last use, the oldest first; for eviction.
    pub fn oldest(&self, patience: Duration) -> Option<Vec<(Item, u64)>> {
        self.ask(patience, |index| index.oldest())
    }

    /// Whether opening the database is worth its time: it is lost, in doubt or half made, or there are enough journals
    /// to merge.
    pub(crate) fn has_work(&self) -> Result<bool> {
        let folder = self.shared.root.join("index");
        Ok(database::wants_opening(&folder) || files::names(&folder.join("journal"))?.len() >= JOURNALS)
    }

    /// Whether the database is so large that to open it beside a build would be felt: then only those commands do it
    /// that look at the whole store anyway.
    pub(crate) fn is_large(&self) -> Result<bool> {
        let folder = self.shared.root.join("records");
        let shards = files::names(&folder)?;
        // Keys are hashes: one folder is as full as the others.
        let Some(shard) = shards.first() else {
            return Ok(false);
        };
        Ok(files::names(&folder.join(shard))?.len() * shards.len() > LARGE)
    }

    /// Opens the database, if nobody else has it, which merges the journals, and closes it again. Returns whether it
    /// could.
    pub(crate) fn merge(&self, stop: &AtomicBool) -> Result<bool> {
        self.flush()?;
        // Our own journal shall be merged too: the next note begins a new one.
        self.pending().file = None;
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.warm();
        let merged = self.ask(OPEN_LIMIT, |_| Ok(())).is_some();
        self.close();
        Ok(merged)
    }

    fn ask<T>(
        &self,
        patience: Duration,
        question: impl FnOnce(&dyn Index) -> Result<T, String>,
    ) -> Option<T> {
        self.warm();
        let end = Instant::now() + patience;
        let mut state = self.opened.lock();
        while matches!(*state, State::Opening) {
            let left = end.checked_duration_since(Instant::now())?;
            state = self
                .opened
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let State::Open(index) = &*state else { return None };
        let answer = guarded(|| question(index.as_ref()));
        if answer.is_err() {
            // The doubt is written down; the next one who opens it rebuilds.
            doubt(&self.shared.root);
            *state = State::Unavailable;
        }
        answer.ok()
    }

    /// Closes the database cleanly, if it is open.
    fn close(&self) {
        let mut state = self.opened.lock();
        if let State::Open(index) = std::mem::replace(&mut *state, State::Not)
            && guarded(|| index.close()).is_err()
        {
            doubt(&self.shared.root);
        }
    }

    fn append(&self, pending: &mut Pending) -> Result<()> {
        if pending.buffer.is_empty() {
            return Ok(());
        }
        if pending.file.is_none() {
            pending.file = Some(begin_journal(&self.shared.root)?);
        }
        if let Some((file, path)) = &mut pending.file {
            file.write_all(&pending.buffer)
                .map_err(error::io("write", &*path))?;
        }
        pending.buffer.clear();
        Ok(())
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IndexHandle {
    fn drop(&mut self) {
        // What cannot be told is not worth an error at this point: it only makes the index know less.
        let _ = self.flush();
        self.opened.stop.store(true, Ordering::Relaxed);
        self.close();
    }
}

impl Opened {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin_journal(root: &Path) -> Result<(File, PathBuf)> {
    let folder = root.join("index/journal");
    std::fs::create_dir_all(&folder).map_err(error::io("create", &folder))?;
    let path = folder.join(format!("{}-{}", std::process::id(), files::random_name()));
    let mut file = files::open_lock(&path)?;
    files::flock(&file, FlockOperation::LockExclusive, &path)?;
    file.write_all(&journal::header())
        .map_err(error::io("write", &path))?;
    Ok((file, path))
}

/// Runs a call into the database; a panic in there is an error like any other.
fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("the database panicked".to_owned()))
}

/// Orders a rebuild.
fn doubt(root: &Path) {
    // If even this cannot be written, the state file says "in use", and the count is checked.
    let _ = std::fs::write(root.join("index/doubt"), "");
}

/// Opens the database and merges the journals, on a thread of its own that is left alone when it takes too long.
fn open_within(shared: &Arc<Shared>, opened: &Arc<Opened>, limit: Duration) -> Option<Box<dyn Index>> {
    let (send, receive) = mpsc::sync_channel::<Option<Box<dyn Index>>>(0);
    let (shared_there, opened) = (Arc::clone(shared), Arc::clone(opened));
    let work = move || {
        let stop = || opened.stop.load(Ordering::Relaxed);
        let index = guarded(|| open_and_merge(&shared_there, &stop)).unwrap_or_else(|_| {
            doubt(&shared_there.root);
            None
        });
        // Nobody listens any more: it came too late, and is closed again.
        if let Err(mpsc::SendError(Some(index))) = send.send(index)
            && guarded(|| index.close()).is_err()
        {
            doubt(&shared_there.root);
        }
    };
    std::thread::Builder::new()
        .name("kiln-index-open".into())
        .spawn(work)
        .ok()?;
    let in_time = receive.recv_timeout(limit);
    if in_time.is_err() {
        doubt(&shared.root);
    }
    in_time.ok().flatten()
}

fn open_and_merge(shared: &Arc<Shared>, stop: &dyn Fn() -> bool) -> Result<Option<Box<dyn Index>>, String> {
    let Some(mut index) = database::Sled::open(shared, stop)? else {
        return Ok(None);
    };
    merge_journals(&shared.root, &mut index, stop)?;
    Ok(Some(Box::new(index)))
}

/// Takes in the journals of processes that are gone, and deletes them.
fn merge_journals(root: &Path, index: &mut dyn Index, stop: &dyn Fn() -> bool) -> Result<(), String> {
    let folder = root.join("index/journal");
    for name in files::names(&folder).map_err(|error| error.to_string())? {
        if stop() {
            break;
        }
        let path = folder.join(name);
        let Ok(file) = File::open(&path) else { continue };
        if !files::try_flock(&file, FlockOperation::NonBlockingLockExclusive, &path).unwrap_or(false) {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        // A writer that was killed between making and locking its journal, or has not locked it yet.
        if bytes.is_empty() && young(&file) {
            continue;
        }
        index.apply(&journal::parse(&bytes))?;
        std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn young(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < Duration::from_mins(1)))
}

#[cfg(test)]
mod tests;
