//! What a user sees of a failure: what failed, where, the last output, a hint. And with which exit code.
//!
//! [`Failure`] holds that of any command; `build` makes the one of a build, with its excerpt of the Dockerfile; `hints`
//! knows what to do about it; `text` words errors and their causes. Warnings of a build are in `warnings`.

mod build;
mod failure;
mod hints;
#[cfg(test)]
mod tests;
mod text;
mod warnings;

use std::io::Write as _;
use std::process::ExitCode;

pub(crate) use self::failure::Failure;
pub(crate) use self::text::{chain, shorten};
pub(crate) use self::warnings::build_warnings;
use crate::signal;
use crate::style::{Label, Style};

/// Prints a failure and gives its exit code.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    let text = failure.render(Style::of_stderr());
    // Nothing can be done about a closed standard error.
    let _ = std::io::stderr().write_all(text.as_bytes());
    // Whatever failed first on the way out: a signal was the reason.
    ExitCode::from(if signal::came() {
        signal::exit_code()
    } else {
        failure.code()
    })
}

/// A warning, on standard error.
pub(crate) fn warning(message: &str) {
    let label = Style::of_stderr().paint(Label::Warning, "WARN:");
    // Nothing can be done about a closed standard error.
    let _ = writeln!(std::io::stderr(), "{label} {message}");
}
