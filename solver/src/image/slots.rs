//! So much at a time: a layer that comes takes threads, a connection and memory.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::cancel::Cancel;

/// Places to work in, or mebibytes to work with.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// What was taken, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    count: usize,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    /// Waits for a place; `None` when `stop` is raised before there is one.
    pub(super) fn take(self: &Arc<Self>, stop: &Cancel) -> Option<Slot> {
        self.take_many(1, stop)
    }

    /// Waits until so many are free at once, of which there are that many; `None` when `stop` is raised before. Who has
    /// some already and waits for more may wait for ever.
    pub(crate) fn take_many(self: &Arc<Self>, count: usize, stop: &Cancel) -> Option<Slot> {
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
            if *free >= count {
                *free -= count;
                let slots = Arc::clone(self);
                return Some(Slot { slots, count });
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
        *self.slots.free() += self.count;
        self.slots.freed.notify_all();
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
    fn what_is_taken_together_is_there_at_once() {
        let (slots, stop) = (Slots::new(8), Cancel::new());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for count in (1..=8).chain(1..=8) {
                let (slots, stop, now, most) = (&slots, &stop, &now, &most);
                scope.spawn(move || {
                    let _slot = slots.take_many(count, stop).unwrap();
                    most.fetch_max(now.fetch_add(count, Ordering::SeqCst) + count, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    now.fetch_sub(count, Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= 8);
        assert_eq!(*slots.free(), 8);
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
