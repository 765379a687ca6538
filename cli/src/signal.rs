//! Ctrl-C and friends during a build or a download.

use std::io::Write;

use kiln_solver::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit;
use crate::report::Failure;

/// The first signal cancels cleanly: processes are killed, temporary files go. The second one ends the program
/// at once; what is left over then is swept by the next command.
pub(crate) fn cancel_on_interrupt(cancel: &Cancel) -> Result<(), Failure> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| Failure::io("handle", "signals", error))?;
    let cancel = cancel.clone();
    let thread = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _signal in signals.forever() {
                if cancel.is_raised() {
                    signal_hook::low_level::exit(i32::from(exit::INTERRUPTED));
                }
                // Nothing can be done about a closed terminal.
                let _ = writeln!(std::io::stderr(), "canceling; once more to quit at once");
                cancel.raise();
            }
        });
    thread
        .map(drop)
        .map_err(|error| Failure::io("start", "a thread", error))
}
