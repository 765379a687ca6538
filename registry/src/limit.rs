//! At most so many connections to one host at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::config::{Clock, Interrupted};
use crate::wait::LOOK;

/// Counts the connections in use, by host.
#[derive(Debug)]
pub(crate) struct HostLimit {
    most: usize,
    in_use: Mutex<HashMap<String, usize>>,
    freed: Condvar,
}

/// The right to one connection, given back on drop. A thread holds one at a time: it lets go of a
/// response before it asks for a token or follows a redirect, or threads could wait for each other.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<HostLimit>,
    host: String,
}

impl HostLimit {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            in_use: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    /// Waits for a free connection, as long as the clock lets it.
    pub(crate) fn acquire(self: &Arc<Self>, host: &str, clock: &dyn Clock) -> Result<Permit, Interrupted> {
        // The map is consistent at every point, so a panic elsewhere does no harm.
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        while in_use.get(host).copied().unwrap_or(0) >= self.most {
            clock.check()?;
            let woken = self.freed.wait_timeout(in_use, LOOK);
            (in_use, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        *in_use.entry(host.to_owned()).or_insert(0) += 1;
        Ok(Permit {
            limit: Arc::clone(self),
            host: host.to_owned(),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut in_use = self.limit.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_use.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.host);
            }
        }
        self.limit.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemClock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn never_more_than_the_limit() {
        let limit = HostLimit::new(3);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let _permit = limit.acquire("h", &SystemClock).unwrap();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 3);
        assert!(limit.in_use.lock().unwrap().is_empty());
    }

    #[test]
    fn hosts_do_not_hinder_each_other() {
        let limit = HostLimit::new(1);
        let _one = limit.acquire("a", &SystemClock).unwrap();
        let _two = limit.acquire("b", &SystemClock).unwrap();
        assert_eq!(limit.in_use.lock().unwrap().len(), 2);
    }
}
