//! Cancellation of one build.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Action = Box<dyn FnOnce() + Send>;

/// A flag that is raised once, with actions that run when it is (killing a process, waking a waiter).
#[derive(Clone, Default)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    raised: AtomicBool,
    next: AtomicU64,
    actions: Mutex<BTreeMap<u64, Action>>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cancel")
            .field("raised", &self.is_raised())
            .finish_non_exhaustive()
    }
}

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the build is to stop.
    pub fn is_raised(&self) -> bool {
        self.inner.raised.load(Ordering::Acquire)
    }

    /// An error once the flag is raised, for who reads or writes in pieces.
    pub fn check(&self) -> io::Result<()> {
        if self.is_raised() {
            return Err(canceled());
        }
        Ok(())
    }

    /// Raises the flag and runs the actions; later calls do nothing.
    pub fn raise(&self) {
        if self.inner.raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let actions = std::mem::take(&mut *self.inner.actions.lock().unwrap_or_else(PoisonError::into_inner));
        for action in actions.into_values() {
            action();
        }
    }

    /// Runs `action` when the flag is raised, or at once when it is raised already. Dropping the guard
    /// takes the action back.
    #[must_use = "dropping the guard takes the action back"]
    pub(crate) fn on_raise(&self, action: impl FnOnce() + Send + 'static) -> CancelGuard {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let mut actions = self.inner.actions.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_raised() {
            drop(actions);
            action();
        } else {
            actions.insert(number, Box::new(action));
        }
        CancelGuard {
            cancel: self.clone(),
            number,
        }
    }
}

/// What a reader or writer says that is to stop. Not of the kind `Interrupted`: that asks to be called again.
pub(crate) fn canceled() -> io::Error {
    io::Error::other("canceled")
}

/// Keeps an action registered.
#[derive(Debug)]
pub struct CancelGuard {
    cancel: Cancel,
    number: u64,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.cancel
            .inner
            .actions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn actions_run_once_and_can_be_taken_back() {
        let cancel = Cancel::new();
        let count = Arc::new(AtomicUsize::new(0));
        let add = |amount: usize| {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(amount, Ordering::Relaxed);
            }
        };
        let kept = cancel.on_raise(add(1));
        drop(cancel.on_raise(add(10)));
        cancel.raise();
        cancel.raise();
        let _late = cancel.on_raise(add(100));
        drop(kept);
        assert_eq!(count.load(Ordering::Relaxed), 101);
    }

    #[test]
    fn who_reads_is_told_for_good() {
        let cancel = Cancel::new();
        cancel.check().unwrap();
        cancel.raise();
        let error = cancel.check().unwrap_err();
        assert_ne!(error.kind(), std::io::ErrorKind::Interrupted);
        assert_eq!(error.to_string(), "canceled");
    }

    /// Whoever registers while another thread raises the flag is told, once, on one of the two ways.
    #[test]
    fn registering_and_raising_at_once_loses_nothing() {
        for _ in 0..200 {
            let cancel = Cancel::new();
            let count = Arc::new(AtomicUsize::new(0));
            let guards: Vec<_> = std::thread::scope(|scope| {
                scope.spawn(|| cancel.raise());
                (0..4)
                    .map(|_| {
                        let count = Arc::clone(&count);
                        cancel.on_raise(move || {
                            count.fetch_add(1, Ordering::Relaxed);
                        })
                    })
                    .collect()
            });
            assert_eq!(count.load(Ordering::Relaxed), 4);
            drop(guards);
        }
    }

    #[test]
    fn an_action_may_raise_another_flag_and_register() {
        let (outer, inner) = (Cancel::new(), Cancel::new());
        let (raised, registering) = (inner.clone(), outer.clone());
        let _link = outer.on_raise(move || {
            raised.raise();
            drop(registering.on_raise(|| {}));
        });
        outer.raise();
        assert!(inner.is_raised());
    }
}
