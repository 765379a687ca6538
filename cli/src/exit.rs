//! Exit codes: part of the interface that scripts rely on.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};

use crate::report::{self, Failure};
use crate::{arguments, unsupported};

/// The build or the command failed.
pub(crate) const FAILURE: u8 = 1;
/// The arguments are wrong.
pub(crate) const USAGE: u8 = 2;
/// `run`: the engine failed before the container's process could start, as with Docker.
pub(crate) const ENGINE: u8 = 125;
/// Ended by Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// How a command ends that went on after what `failed`.
pub(crate) fn code_of(failed: bool) -> ExitCode {
    if failed {
        ExitCode::from(FAILURE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints what clap says; help and version are no failure. `run` answers wrong arguments with 125 like Docker.
pub(crate) fn usage(error: &clap::Error, typed: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be done about a closed terminal.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let command = arguments::command_name(typed);
    let code = if command.as_deref() == Some("run") {
        ENGINE
    } else {
        USAGE
    };
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    if let Some(message) = command.and_then(|command| unsupported::flag(&command, flag)) {
        return report::failure(&Failure::usage(message).with_code(code));
    }
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    ExitCode::from(code)
}
