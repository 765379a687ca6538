//! The command line: arguments in, calls of the other crates, results and exit code out.
//!
//! [`main`] reads the arguments and the environment once, enters the process's namespaces while there is one
//! thread, and hands over to one file a command in `commands`. Results go to standard output, progress and
//! errors to standard error. Nothing here decides what a build or a container does.

mod amount;
mod arguments;
mod commands;
mod config;
mod exit;
#[cfg(test)]
mod expected;
mod format;
mod machine;
mod progress;
mod report;
mod signal;
mod style;
mod table;
mod terminal;
mod unsupported;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let _terminal = progress::TerminalGuard;
    let typed: Vec<OsString> = std::env::args_os().collect();
    let arguments = match arguments::Kiln::read(&typed) {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error, &typed),
    };
    match commands::dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => report::failure(&failure),
    }
}
