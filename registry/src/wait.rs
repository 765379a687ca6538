//! Waits for a server: each ends in time, and soon after the caller wants no more.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::NextTimeout;

use crate::config::{Clock, Interrupted};

/// How often a wait asks whether it is still wanted. Nobody notices so much between Ctrl-C and the end, and a machine
/// does not notice ten looks a second.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// One wait: how long it may take, and who may end it.
pub(crate) struct Wait<'a> {
    clock: &'a Arc<dyn Clock>,
    /// The machine's own time: the clock's may stand still, a server does not.
    until: Option<Instant>,
    timeout: NextTimeout,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(clock: &'a Arc<dyn Clock>, timeout: NextTimeout) -> Self {
        let until = (!timeout.after.is_not_happening())
            .then(|| Instant::now().checked_add(*timeout.after))
            .flatten();
        Self {
            clock,
            until,
            timeout,
        }
    }

    /// How long to wait before the next look. An error when the time is over or nobody waits any more.
    pub(crate) fn next(&self) -> Result<Duration, Error> {
        // Not an error of the kind `Interrupted`: that asks to be tried again.
        self.clock.check().map_err(io::Error::other)?;
        let Some(until) = self.until else { return Ok(LOOK) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(self.timeout.reason));
        }
        Ok(left.min(LOOK))
    }
}

/// Whether an error of the HTTP client is the end of a wait that nobody wants any more.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<Interrupted>())
}

#[cfg(test)]
mod tests {
    use super::{LOOK, Wait, is_interrupted};
    use crate::config::{Clock, Over, SystemClock};
    use std::sync::Arc;
    use std::time::Duration;
    use ureq::unversioned::transport::NextTimeout;
    use ureq::unversioned::transport::time::Duration as Limit;

    fn within(after: Limit) -> NextTimeout {
        NextTimeout {
            after,
            ..NextTimeout::default()
        }
    }

    #[test]
    fn waits_are_looked_at_and_end() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let endless = Wait::new(&clock, within(Limit::NotHappening));
        assert_eq!(endless.next().unwrap(), LOOK);
        let long = Wait::new(&clock, within(Limit::from_secs(3600)));
        assert_eq!(long.next().unwrap(), LOOK);
        let short = Wait::new(&clock, within(Limit::from_millis(50)));
        assert!(short.next().unwrap() <= Duration::from_millis(50));
        let over = Wait::new(&clock, within(Limit::from_secs(0)));
        assert!(matches!(over.next(), Err(ureq::Error::Timeout(_))));
    }

    #[test]
    fn an_unwanted_wait_is_none() {
        let clock: Arc<dyn Clock> = Arc::new(Over);
        let wait = Wait::new(&clock, within(Limit::from_secs(3600)));
        assert!(matches!(wait.next(), Err(ureq::Error::Io(error)) if is_interrupted(&error)));
    }
}
