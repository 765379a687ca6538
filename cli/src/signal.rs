//! Ctrl-C and friends during a build or a download.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use kiln_registry::{Clock, Interrupted};
use kiln_solver::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{SigId, flag};

use crate::exit;
use crate::progress::View;
use crate::report::Failure;

/// The exit code that the first signal asks for: 128 + its number. Zero when none came.
static EXIT_CODE: AtomicU8 = AtomicU8::new(0);

/// Whether waits for servers are over. Set after everything else was told to stop: who is woken by it finds that.
static WAITS_OVER: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked this command to end.
pub(crate) fn came() -> bool {
    EXIT_CODE.load(Ordering::Relaxed) != 0
}

/// How often a wait between two requests looks whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// The time of registry clients: their waits, which may take minutes, end with the first signal.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InterruptedWaits;

impl Clock for InterruptedWaits {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        let began = Instant::now();
        loop {
            self.check()?;
            let left = duration.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn check(&self) -> Result<(), Interrupted> {
        if WAITS_OVER.load(Ordering::Acquire) {
            return Err(Interrupted);
        }
        Ok(())
    }
}

/// The exit code of a canceled command.
pub(crate) fn exit_code() -> u8 {
    match EXIT_CODE.load(Ordering::Relaxed) {
        0 => exit::INTERRUPTED,
        code => code,
    }
}

/// While this lives, the first signal cancels cleanly: processes are killed, temporary files go. The second one
/// ends the program at once; what is left over then is swept by the next command.
#[derive(Debug)]
pub(crate) struct Interrupts {
    handle: signal_hook::iterator::Handle,
}

impl Interrupts {
    /// Signals raise `cancel`; `view` tells that.
    pub(crate) fn cancel(cancel: &Cancel, view: &View) -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| Failure::io("handle", "signals", error))?;
        let handle = signals.handle();
        let (cancel, view) = (cancel.clone(), view.clone());
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if came() {
                        view.finish();
                        signal_hook::low_level::exit(i32::from(exit_code()));
                    }
                    EXIT_CODE.store(
                        u8::try_from(128 + signal).unwrap_or(exit::INTERRUPTED),
                        Ordering::Relaxed,
                    );
                    view.notice("canceling; once more to quit at once");
                    cancel.raise();
                    WAITS_OVER.store(true, Ordering::Release);
                }
            });
        thread.map_err(|error| Failure::io("start", "a thread", error))?;
        Ok(Self { handle })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Signals at the end of a command, when its work is done: the first one raises a flag, the second one ends the program at
/// once. Dropped, it leaves them to whoever else handles them.
#[derive(Debug)]
pub(crate) struct Hurry(Vec<SigId>);

impl Hurry {
    /// Signals raise `raised`.
    pub(crate) fn raise(raised: &Arc<AtomicBool>) -> Self {
        let mut ids = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Of two actions for one signal the first is done first: so it takes two signals to end the program. One
            // that cannot be handled ends it right away.
            let twice = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(raised));
            let once = flag::register(signal, Arc::clone(raised));
            ids.extend([twice, once].into_iter().flatten());
        }
        Self(ids)
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_at_the_end_only_raises_the_flag() {
        let raised = Arc::new(AtomicBool::new(false));
        let hurry = Hurry::raise(&raised);
        assert!(!raised.load(Ordering::Relaxed));
        // One that no other test raises; by default it would end this program.
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(raised.load(Ordering::Relaxed));
        drop(hurry);
        assert!(!came(), "the command itself was not canceled");
    }
}
