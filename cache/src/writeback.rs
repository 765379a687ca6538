//! Writing back early: what a build wrote goes to the disk while the build goes on.
//!
//! The kernel keeps what was written in memory until there is much of it. The sync at the end of a build would then
//! wait for all of a large layer, after its DiffID was computed and nothing else was left to do. So, each time some
//! tens of MiB were published, a thread asks the kernel to write. That makes nothing durable in the store's eyes:
//! only [`crate::Store::sync`] does.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// So many new bytes are worth a thread.
const BYTES: u64 = 32 << 20;

/// The writing back of one store by this process.
#[derive(Debug, Default)]
pub(crate) struct Writeback {
    /// Bytes since the last time.
    new: AtomicU64,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: AtomicBool,
    /// Held by who writes back.
    turn: Mutex<()>,
}

impl State {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writeback {
    /// Counts bytes that were written, and calls `write_back` on a thread of its own when they are many.
    pub(crate) fn wrote(&self, bytes: u64, write_back: impl FnOnce() + Send + 'static) {
        let new = self.new.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if new < BYTES || self.state.under_way.swap(true, Ordering::Acquire) {
            return;
        }
        self.new.store(0, Ordering::Relaxed);
        let state = Arc::clone(&self.state);
        let thread = std::thread::Builder::new().name("writeback".to_owned());
        let spawned = thread.spawn(move || {
            let turn = state.turn();
            write_back();
            drop(turn);
            state.under_way.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            // No thread to be had: the sync at the end does it all.
            self.state.under_way.store(false, Ordering::Release);
        }
    }

    /// Waits for what is under way. To be called after a sync, when there is nothing left that it would wait for.
    pub(crate) fn wait(&self) {
        drop(self.state.turn());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn only_many_bytes_are_written_back() {
        let writeback = Writeback::default();
        let (send, done) = mpsc::channel();
        let again = send.clone();
        writeback.wrote(BYTES - 1, || unreachable!("that is not much"));
        writeback.wrote(1, move || send.send(()).unwrap());
        done.recv().unwrap();
        writeback.wait();
        assert_eq!(writeback.new.load(Ordering::Relaxed), 0);
        while writeback.state.under_way.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        writeback.wrote(BYTES, move || again.send(()).unwrap());
        done.recv().unwrap();
    }

    #[test]
    fn one_at_a_time_and_the_sync_waits_for_it() {
        let writeback = Writeback::default();
        let (started, wait) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        writeback.wrote(BYTES, move || {
            started.send(()).unwrap();
            gone.recv().unwrap();
            told.store(true, Ordering::SeqCst);
        });
        wait.recv().unwrap();
        writeback.wrote(BYTES, || unreachable!("one is under way"));
        go.send(()).unwrap();
        writeback.wait();
        assert!(ended.load(Ordering::SeqCst));
    }
}
