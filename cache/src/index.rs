//! The index: what is searched rather than looked up. Which layer stands on which, which records a layer's step has, and
//! which records refer to a list of files: what must be known to delete a layer without reading every record of the
//! store. It says neither that something is there nor when it was used; the files do. Losing it costs a reading of
//! all records.
//!
//! ```text
//! index/lock        who holds it has the database
//! index/sled/       the database
//! index/state       kind `index-state`, version 1: closed cleanly, or in use
//! index/doubt       its presence orders a rebuild
//! index/rebuilding  kind `index-rebuild`, version 1: how far a rebuild is that is not done yet
//! index/journal/    what others want to tell it (see [`journal`])
//! ```
//!
//! sled lets one process in, takes its time to open, and is not to be trusted after a power loss or a copy. So:
//! nobody waits for it; everybody writes to a journal ([`IndexHandle::note`]), before what it tells of is there;
//! whoever gets `index/lock` without waiting, in a background thread, opens it, checks it, and merges the journals. A
//! panic, an error, a slow open, a wrong count after an unclean end, or a size far beyond its content end in a rebuild
//! from the files.
//!
//! What it does not know is of processes that still run and use what they made, or of one that was killed between two
//! system calls; what it knows too much is found out when the files are looked at.

mod database;
pub mod journal;
mod rebuild;

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::fs::FlockOperation;

pub use journal::Entry;
use kiln_image::Digest;

use crate::{Key, LayerId, Result, error, files, store::Shared};

/// What the store wants of a searchable index. One implementation: sled. Hidden, so that it can be changed.
pub(crate) trait Index: Send {
    /// Takes entries in, all or none.
    fn apply(&mut self, entries: &[Entry]) -> Result<(), String>;
    /// Which layer stands on which in some record's result: the upper one, and the one right below it.
    fn standing(&self) -> Result<Vec<(LayerId, LayerId)>, String>;
    /// The records whose step made a layer.
    fn records_of(&self, layer: &LayerId) -> Result<Vec<Key>, String>;
    /// The records that refer to a list of files.
    fn referring_to(&self, list: &Digest) -> Result<Vec<Key>, String>;
    /// Ends cleanly: what was applied is flushed.
    fn close(self: Box<Self>) -> Result<(), String>;
}

/// How long an open may take before it is given up.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// A process that ends waits so long for the database to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);
/// A rebuild pauses after so long, and the next process goes on with it.
const REBUILD_LIMIT: Duration = Duration::from_secs(2);
/// More records than that, about, make the database large.
const LARGE: usize = 20_000;
/// So many journals are worth opening the database for.
const JOURNALS: usize = 8;
/// So many, if it is large.
const JOURNALS_OF_LARGE: usize = 256;
/// So many entries of a journal are taken in at a time.
const AT_ONCE: usize = 1024;
/// Who waits for the database looks so often whether to go on waiting.
const LOOK: Duration = Duration::from_millis(20);

/// The way to the index: notes go to the journal, questions to the database if this process can have it.
pub struct IndexHandle {
    shared: Arc<Shared>,
    /// This process's journal, once it has something to tell.
    journal: Mutex<Option<File>>,
    opened: Arc<Opened>,
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
            journal: Mutex::default(),
            opened: Arc::default(),
        }
    }

    /// Tells the index something: appended to this process's journal. If that fails, the index is in doubt.
    pub fn note(&self, entry: &Entry) {
        let mut frame = Vec::new();
        journal::encode(entry, &mut frame);
        let mut journal = self.journal();
        if journal.is_none() {
            *journal = begin_journal(&self.shared.root).ok();
        }
        let written = journal
            .as_mut()
            .is_some_and(|file| file.write_all(&frame).is_ok());
        if !written {
            doubt(&self.shared.root);
        }
    }

    /// Begins to open the database in the background, if nobody did yet.
    fn warm(&self) {
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

    /// Which layer stands on which, if the database can be asked before `give_up` says so.
    pub(crate) fn standing(&self, give_up: &dyn Fn() -> bool) -> Option<Vec<(LayerId, LayerId)>> {
        self.ask(give_up, |index| index.standing())
    }

    /// The records whose step made a layer.
    pub(crate) fn records_of(&self, layer: &LayerId, give_up: &dyn Fn() -> bool) -> Option<Vec<Key>> {
        self.ask(give_up, |index| index.records_of(layer))
    }

    /// The records that refer to a list of files.
    pub(crate) fn referring_to(&self, list: &Digest, give_up: &dyn Fn() -> bool) -> Option<Vec<Key>> {
        self.ask(give_up, |index| index.referring_to(list))
    }

    /// Whether opening the database is worth its time: it is lost, in doubt or half made, or there are enough journals
    /// to merge.
    pub(crate) fn has_work(&self) -> Result<bool> {
        Ok(database::wants_opening(&self.shared.root.join("index")) || self.journals()? >= JOURNALS)
    }

    /// Whether it is so beside a build, too.
    pub(crate) fn has_work_beside_builds(&self) -> Result<bool> {
        Ok(if self.is_large()? {
            self.journals()? >= JOURNALS_OF_LARGE
        } else {
            self.has_work()?
        })
    }

    fn journals(&self) -> Result<usize> {
        Ok(files::names(&self.shared.root.join("index/journal"))?.len())
    }

    /// Whether the database is so large that to open it beside a build would be felt: then that is done only when room
    /// is to be made, and when very much is to be merged.
    fn is_large(&self) -> Result<bool> {
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
    pub(crate) fn merge(&self, stop: &AtomicBool) -> bool {
        // Our own journal shall be merged too: the next note begins a new one.
        *self.journal() = None;
        let merged = self.ask(&|| stop.load(Ordering::Relaxed), |_| Ok(())).is_some();
        self.close();
        merged
    }

    fn ask<T>(
        &self,
        give_up: &dyn Fn() -> bool,
        question: impl FnOnce(&dyn Index) -> Result<T, String>,
    ) -> Option<T> {
        if give_up() {
            return None;
        }
        self.warm();
        let mut state = self.opened.lock();
        // An open that takes too long is given up by who opens.
        while matches!(*state, State::Opening) {
            let waited = self.opened.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if give_up() {
                return None;
            }
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

    /// Closes the database cleanly, if it is open: others may want it.
    pub(crate) fn close(&self) {
        let mut state = self.opened.lock();
        if matches!(*state, State::Opening) {
            return;
        }
        if let State::Open(index) = std::mem::replace(&mut *state, State::Not)
            && guarded(|| index.close()).is_err()
        {
            doubt(&self.shared.root);
        }
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IndexHandle {
    fn drop(&mut self) {
        self.opened.stop.store(true, Ordering::Relaxed);
        // Who is just opening it is told to stop, and closes it cleanly if that is soon done: otherwise the next one
        // has to look at all of it.
        let waits = |state: &mut State| matches!(*state, State::Opening);
        let waited = self
            .opened
            .changed
            .wait_timeout_while(self.opened.lock(), CLOSE_PATIENCE, waits);
        drop(waited);
        self.close();
    }
}

impl Opened {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin_journal(root: &Path) -> Result<File> {
    let folder = root.join("index/journal");
    std::fs::create_dir_all(&folder).map_err(error::io("create", &folder))?;
    let path = folder.join(format!("{}-{}", std::process::id(), files::random_name()));
    let mut file = files::open_lock(&path)?;
    files::flock(&file, FlockOperation::LockExclusive, &path)?;
    file.write_all(&journal::header())
        .map_err(error::io("write", &path))?;
    Ok(file)
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
        for entries in journal::parse(&bytes).chunks(AT_ONCE) {
            index.apply(entries)?;
        }
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
