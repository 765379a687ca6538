//! So many at a time: a layer that comes takes threads, a connection and memory.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::cancel::Cancel;

/// Places to work in.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One place, given back on drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    /// Waits for a place; `None` when `stop` is raised before there is one.
    pub(super) fn take(self: &Arc<Self>, stop: &Cancel) -> Option<Slot> {
        let woken = Arc::clone(self);
        let _link = stop.on_raise(move || {
            // With the lock: whoever looked at the flag before waits by now.
            let _free = woken.free();
            woken.freed.notify_all();
        });
        let mut free = self.free();
        loop {
            if stop.is_raised() {
                return None;
            }
            if *free > 0 {
                *free -= 1;
                return Some(Slot(Arc::clone(self)));
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::Slots;
    use crate::cancel::Cancel;

    #[test]
    fn never_more_than_there_are() {
        let (slots, stop) = (Slots::new(3), Cancel::new());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let _slot = slots.take(&stop).unwrap();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 3);
        assert_eq!(*slots.free(), 3);
    }

    #[test]
    fn who_is_stopped_does_not_wait() {
        let (slots, stop, other) = (Slots::new(1), Cancel::new(), Cancel::new());
        let held = slots.take(&other).unwrap();
        std::thread::scope(|scope| {
            let stopped = scope.spawn(|| slots.take(&stop).is_none());
            let waiting = scope.spawn(|| slots.take(&other).is_some());
            std::thread::sleep(Duration::from_millis(20));
            stop.raise();
            assert!(stopped.join().unwrap());
            assert!(!waiting.is_finished());
            drop(held);
            assert!(waiting.join().unwrap());
        });
        assert!(slots.take(&stop).is_none());
        assert_eq!(*slots.free(), 1);
    }
}
