//! Exit codes: part of the interface that scripts rely on.

use std::process::ExitCode;

/// The build or the command failed.
pub(crate) const FAILURE: u8 = 1;
/// The arguments are wrong.
pub(crate) const USAGE: u8 = 2;
/// `run`: the engine failed before the container's process could start, as with Docker.
pub(crate) const ENGINE: u8 = 125;
/// Ended by Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Prints what clap says; help and version are no failure. `run` answers wrong arguments with 125 like Docker.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let is_run = std::env::args_os()
        .skip(1)
        .find(|argument| !argument.to_string_lossy().starts_with('-'));
    ExitCode::from(if is_run.is_some_and(|command| command == "run") {
        ENGINE
    } else {
        USAGE
    })
}
