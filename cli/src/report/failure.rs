//! A failed command: its message, what is shown above it, its hints, and its exit code.

use std::error::Error;
use std::fmt::Write as _;

use kiln_registry::ErrorKind;
use kiln_solver::image::PullError;

use super::hints::{DISK_FULL, disk_hint, missing_image, sandbox_hint};
use super::text::{chain, reason, visible_lines};
use crate::exit;
use crate::signal;
use crate::style::{Label, Style};

/// A failed command, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Shown above the error line: excerpts, last output.
    pub(super) details: String,
    message: String,
    pub(super) hints: Vec<String>,
}

impl Failure {
    /// A failure in our own words.
    pub(crate) fn message(message: impl Into<String>) -> Self {
        Self {
            code: exit::FAILURE,
            details: String::new(),
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Wrong arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: exit::USAGE,
            ..Self::message(message)
        }
    }

    /// A failed file operation.
    #[expect(clippy::needless_pass_by_value, reason = "that is how `map_err` has it")]
    pub(crate) fn io(action: &str, path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        let full = source.kind() == std::io::ErrorKind::StorageFull;
        let path = path.as_ref().display();
        let failure = Self::message(format!("cannot {action} {path}: {}", reason(&source.to_string())));
        if full { failure.hint(DISK_FULL) } else { failure }
    }

    /// An error with its causes.
    pub(crate) fn error(error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::message(chain(error));
        failure.hints.extend(sandbox_hint(error));
        failure.hints.extend(disk_hint(error).map(str::to_owned));
        failure.hints.extend(missing_image(error));
        failure
    }

    /// The user ended it.
    pub(crate) fn canceled() -> Self {
        Self::message("canceled").with_code(signal::exit_code())
    }

    /// The text that is shown.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = style.excerpt(&self.details);
        let message = visible_lines(&self.message);
        let _ = writeln!(text, "{} {message}", style.paint(Label::Error, "ERROR:"));
        for hint in &self.hints {
            let hint = visible_lines(hint);
            let _ = writeln!(text, "{} {hint}", style.paint(Label::Hint, "hint:"));
        }
        text
    }

    /// What is wrong, without places and hints.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.message.clone()
    }

    /// What is wrong, for a place that shows it in another frame.
    pub(crate) fn message_text(&self) -> String {
        self.message.clone()
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Changes the exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

macro_rules! failure_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::error(&error)
            }
        }
    )*};
}

failure_from!(
    kiln_cache::Error,
    kiln_executor::Error,
    kiln_solver::ImportError,
    kiln_solver::SaveError,
    kiln_container::Error,
    kiln_tree::Error,
    crate::config::ConfigFileError,
);

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Canceled => Self::canceled(),
            PullError::Registry(error) if error.kind() == ErrorKind::Interrupted => Self::canceled(),
            PullError::Registry(error) => match error.hint() {
                Some(hint) => Self::error(&error).hint(hint),
                None => Self::error(&error),
            },
            error => Self::error(&error),
        }
    }
}
