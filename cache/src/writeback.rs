//! Writing back early: what a build wrote goes to the disk while the build goes on.
//!
//! The kernel keeps what was written in memory until there is much of it. The sync at the end of a build would then
//! wait for all of a large layer, after its DiffID was computed and nothing else was left to do. So, each time some
//! tens of MiB were published, a thread asks the kernel to write. That makes nothing durable in the store's eyes:
//! only [`crate::Store::sync`] does.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{Result, durability};

/// So many new bytes are worth a thread.
const BYTES: u64 = 32 << 20;

/// The writing back of one store by this process.
#[derive(Debug)]
pub(crate) struct Writeback {
    root: PathBuf,
    /// Bytes since the last time.
    new: AtomicU64,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: AtomicBool,
    /// The kernel tells of a failed write once: the sync that counts has to hear of it.
    failure: Mutex<Option<crate::Error>>,
}

impl Writeback {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            new: AtomicU64::new(0),
            state: Arc::default(),
        }
    }

    /// Counts bytes that were written, and has them written back when they are many.
    pub(crate) fn wrote(&self, bytes: u64) {
        let new = self.new.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if new < BYTES || self.state.under_way.swap(true, Ordering::Acquire) {
            return;
        }
        self.new.store(0, Ordering::Relaxed);
        let (root, state) = (self.root.clone(), Arc::clone(&self.state));
        let thread = std::thread::Builder::new().name("writeback".to_owned());
        let spawned = thread.spawn(move || {
            // Locked all the while: who asks for a failure waits for the one that is about to be told.
            let mut failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = durability::sync_filesystem(&root) {
                *failure = Some(error);
            }
            drop(failure);
            state.under_way.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            // No thread to be had: the sync at the end does it all.
            self.state.under_way.store(false, Ordering::Release);
        }
    }

    /// What went wrong since the last call. To be called after a sync: a failure that the kernel told here, and so not
    /// there, is known by then.
    pub(crate) fn check(&self) -> Result<()> {
        let mut failure = self.state.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    /// Waits for the thread.
    fn settle(writeback: &Writeback) {
        while writeback.state.under_way.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn much_is_written_back_and_little_is_not() {
        let scratch = Scratch::new();
        let writeback = Writeback::new(scratch.path());
        writeback.wrote(BYTES - 1);
        assert!(!writeback.state.under_way.load(Ordering::Acquire));
        writeback.wrote(1);
        settle(&writeback);
        assert_eq!(writeback.new.load(Ordering::Relaxed), 0);
        writeback.check().unwrap();
    }

    #[test]
    fn a_failure_is_told_once() {
        let scratch = Scratch::new();
        let writeback = Writeback::new(&scratch.path().join("gone"));
        writeback.wrote(BYTES);
        settle(&writeback);
        assert!(writeback.check().is_err());
        writeback.check().unwrap();
    }
}
