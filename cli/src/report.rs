//! What a user sees of a failure: what failed, where, the last output, a hint. And with which exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use kiln_frontend::BuildError;
use kiln_parser::{Diagnostic, LineIndex, Span};
use kiln_solver::image::PullError;
use kiln_solver::{SolveError, StepError, StepFailure};

use crate::exit;
use crate::progress::visible;
use crate::signal;
use crate::style::{Label, Style};

/// A failed command, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Shown above the error line: excerpts, last output.
    details: String,
    message: String,
    hints: Vec<String>,
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
    pub(crate) fn io(action: &str, path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        let full = source.kind() == std::io::ErrorKind::StorageFull;
        let path = path.as_ref().display();
        let failure = Self::message(format!("cannot {action} {path}: {}", reason(&source.to_string())));
        if full { failure.hint(DISK_FULL) } else { failure }
    }

    /// An error with its causes.
    pub(crate) fn error(error: &(dyn Error + 'static)) -> Self {
        let failure = Self::message(chain(error));
        if is_disk_full(error) {
            failure.hint(DISK_FULL)
        } else {
            failure
        }
    }

    /// The user ended it.
    pub(crate) fn canceled() -> Self {
        Self::message("canceled").with_code(signal::exit_code())
    }

    /// The text that is shown.
    fn render(&self, style: Style) -> String {
        let mut text = style.excerpt(&self.details);
        let _ = writeln!(text, "{} {}", style.paint(Label::Error, "ERROR:"), self.message);
        for hint in &self.hints {
            let _ = writeln!(text, "{} {hint}", style.paint(Label::Hint, "hint:"));
        }
        text
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

    /// A failed build. `source` and `name` are the Dockerfile's bytes and name.
    pub(crate) fn build(error: &BuildError, source: &[u8], name: &str) -> Self {
        match error {
            BuildError::Dockerfile(diagnostics) => dockerfile(diagnostics, source, name),
            BuildError::Solve(SolveError::Step(step)) => step_failure(step, source, name),
            BuildError::Solve(SolveError::Canceled) => Self::canceled(),
            other => Self::error(other),
        }
    }
}

const DISK_FULL: &str = "the disk is full: free some space on the file system of the store (see `kiln info`)";

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
            PullError::Registry(error) => match error.hint() {
                Some(hint) => Self::error(&error).hint(hint),
                None => Self::error(&error),
            },
            error => Self::error(&error),
        }
    }
}

/// Prints a failure and gives its exit code.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    let text = failure.render(Style::of_stderr());
    // Nothing can be done about a closed standard error.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(failure.code)
}

/// A warning, on standard error.
pub(crate) fn warning(message: &str) {
    let label = Style::of_stderr().paint(Label::Warning, "WARN:");
    // Nothing can be done about a closed standard error.
    let _ = writeln!(std::io::stderr(), "{label} {message}");
}

fn dockerfile(diagnostics: &[Diagnostic], source: &[u8], name: &str) -> Failure {
    if let [only] = diagnostics {
        return single(only, source, name);
    }
    let first = diagnostics
        .first()
        .map_or("the Dockerfile is not valid", |diagnostic| &diagnostic.message);
    let more = diagnostics.len().saturating_sub(1);
    let mut failure = Failure::message(format!("failed to solve: {first} (and {more} more)"));
    for diagnostic in diagnostics {
        failure
            .details
            .push_str(&kiln_parser::render(diagnostic, source, name));
    }
    failure
}

/// The place comes first, message and hint last, where the eye is.
fn single(diagnostic: &Diagnostic, source: &[u8], name: &str) -> Failure {
    let mut failure = Failure::message(format!("failed to solve: {}", diagnostic.message));
    failure.hints.extend(diagnostic.hint.clone());
    let is_placed = diagnostic.span != Span::default();
    if is_placed {
        let silent = Diagnostic {
            hint: None,
            ..diagnostic.clone()
        };
        let rendered = kiln_parser::render(&silent, source, name);
        // Its first line is the message.
        failure
            .details
            .push_str(rendered.split_once('\n').map_or("", |(_, excerpt)| excerpt));
    }
    failure
}

fn step_failure(step: &StepError, source: &[u8], name: &str) -> Failure {
    let (message, hints) = explain(&step.cause);
    let place = match &step.cause {
        StepFailure::SourceNotFound { span: Some(span), .. }
        | StepFailure::Source { span: Some(span), .. } => Some(*span),
        _ => step.span,
    };
    let mut details = String::new();
    if let StepFailure::Process { last_output, .. } = &step.cause
        && !last_output.is_empty()
    {
        let _ = writeln!(details, "------\n > {}:", step.name);
        for line in last_output {
            let _ = writeln!(details, "{}", visible(line.as_bytes()));
        }
        let _ = writeln!(details, "------");
    }
    let span = place.map_or_else(Span::default, |span| Span {
        start: span.start,
        end: span.end,
    });
    let mut failure = single(&Diagnostic::error(span, message), source, name);
    failure.details.insert_str(0, &details);
    failure.hints = hints;
    failure
}

fn explain(cause: &StepFailure) -> (String, Vec<String>) {
    let mut hints = Vec::new();
    match cause {
        StepFailure::Process { log: Some(log), .. } => {
            hints.push(format!("the full log is {}", log.display()))
        }
        StepFailure::SourceNotFound {
            ignored_by, similar, ..
        } => {
            hints.extend(
                ignored_by
                    .as_ref()
                    .map(|rule| format!("it is excluded by {rule}")),
            );
            if !similar.is_empty() {
                hints.push(format!("there is {}", similar.join(", ")));
            }
        }
        _ => {}
    }
    if is_disk_full(cause) {
        hints.push(DISK_FULL.to_owned());
    }
    (chain(cause), hints)
}

/// An error with its causes, in one line, without saying anything twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = reason(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = reason(&source.to_string());
        if !text.to_lowercase().contains(&source_text.to_lowercase()) {
            let _ = write!(text, ": {source_text}");
        }
        next = source.source();
    }
    text
}

/// A message without what only programmers read: the number of a system error, the class of an HTTP error.
fn reason(message: &str) -> String {
    let message = message
        .strip_prefix("io: ")
        .or(message.strip_prefix("other: "))
        .unwrap_or(message);
    let Some((before, rest)) = message.split_once(" (os error ") else {
        return message.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
        if full {
            return true;
        }
        next = error.source();
    }
    false
}

/// Findings that did not stop a build, in the form of BuildKit's closing block.
pub(crate) fn build_warnings(warnings: &[Diagnostic], source: &[u8], name: &str) {
    if warnings.is_empty() {
        return;
    }
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let index = LineIndex::new(source);
    let mut text = format!("\n {} warning{plural} found:\n", warnings.len());
    for warning in warnings {
        let line = index.line(warning.span.start);
        let rule = warning.rule.unwrap_or("Warning");
        let _ = writeln!(text, " - {rule}: {} ({name}:{line})", warning.message);
    }
    // Nothing can be done about a closed standard error.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
