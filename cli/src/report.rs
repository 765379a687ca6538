//! What a user sees of a failure: what failed, where, the last output, a hint. And with which exit code.

mod hints;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use kiln_frontend::BuildError;
use kiln_parser::{Diagnostic, LineIndex, Span};
use kiln_registry::ErrorKind;
use kiln_solver::image::PullError;
use kiln_solver::{SolveError, StepError, StepFailure};

use self::hints::{DISK_FULL, NO_SPACE, ended_on_full_disk, is_disk_full, missing_image, sandbox_hint};
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
        if is_disk_full(error) {
            failure.hints.push(DISK_FULL.to_owned());
        }
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

    /// A failed build. `source` and `name` are the Dockerfile's bytes and name.
    pub(crate) fn build(error: &BuildError, source: &[u8], name: &str) -> Self {
        match error {
            BuildError::Dockerfile(diagnostics) => {
                let failure = dockerfile(diagnostics, source, name);
                // What the build needed of other places is looked up before there are steps; only the text says why
                // that failed.
                if diagnostics.iter().any(|found| found.message.contains(NO_SPACE)) {
                    failure.hint(DISK_FULL)
                } else {
                    failure
                }
            }
            BuildError::Solve(SolveError::Step(step)) => step_failure(step, source, name),
            BuildError::Solve(SolveError::Canceled) => Self::canceled(),
            BuildError::Context { source, .. } => {
                let failure = Self::error(error);
                match source.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            other => Self::error(other),
        }
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

/// Text of several lines that leaves the terminal as it is: parts of it may come from anywhere.
fn visible_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| visible(line.as_bytes())).collect();
    lines.join("\n")
}

/// Prints a failure and gives its exit code.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    let text = failure.render(Style::of_stderr());
    // Nothing can be done about a closed standard error.
    let _ = std::io::stderr().write_all(text.as_bytes());
    // Whatever failed first on the way out: a signal was the reason.
    ExitCode::from(if signal::came() {
        signal::exit_code()
    } else {
        failure.code
    })
}

/// A warning, on standard error.
pub(crate) fn warning(message: &str) {
    let label = Style::of_stderr().paint(Label::Warning, "WARN:");
    // Nothing can be done about a closed standard error.
    let _ = writeln!(std::io::stderr(), "{label} {message}");
}

/// Errors of a Dockerfile that are shown; the rest is counted.
const MOST_ERRORS: usize = 20;
/// Warnings that are shown; the rest is counted.
const MOST_WARNINGS: usize = 100;
/// Bytes of a message that are shown: one may quote what is wrong, of any length.
const LONGEST: usize = 4096;

/// The start of a text, as much of it as a reader can use.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    match text.floor_char_boundary(LONGEST) {
        end if end < text.len() => format!("{}…", &text[..end]).into(),
        _ => text.into(),
    }
}

/// A diagnostic whose texts are short enough to be read.
fn shortened(diagnostic: &Diagnostic) -> Diagnostic {
    let mut short = diagnostic.clone();
    short.message = shorten(&short.message).into_owned();
    short.hint = short.hint.map(|hint| shorten(&hint).into_owned());
    for related in &mut short.related {
        related.message = shorten(&related.message).into_owned();
    }
    short
}

fn dockerfile(diagnostics: &[Diagnostic], source: &[u8], name: &str) -> Failure {
    if let [only] = diagnostics {
        return single(&shortened(only), source, name);
    }
    let first = diagnostics
        .first()
        .map_or("the Dockerfile is not valid", |diagnostic| &diagnostic.message);
    let first = shorten(first);
    let more = diagnostics.len().saturating_sub(1);
    let mut failure = Failure::message(format!("failed to solve: {first} (and {more} more)"));
    let index = LineIndex::new(source);
    for diagnostic in diagnostics.iter().take(MOST_ERRORS) {
        let text = kiln_parser::render_indexed(&shortened(diagnostic), source, &index, name);
        failure.details.push_str(&text);
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
        StepFailure::MissingSecret { span: Some(span), .. }
        | StepFailure::Secret { span: Some(span), .. }
        | StepFailure::MissingAgent { span: Some(span), .. }
        | StepFailure::Agent { span: Some(span), .. }
        | StepFailure::SourceNotFound { span: Some(span), .. }
        | StepFailure::Source { span: Some(span), .. } => Some(*span),
        _ => step.span,
    };
    let mut details = String::new();
    if let StepFailure::Process { last_output, .. } = &step.cause
        && !last_output.is_empty()
    {
        let _ = writeln!(details, "------\n > {}:", visible(step.name.as_bytes()));
        for line in last_output {
            let _ = writeln!(details, "{}", visible(line.as_bytes()));
        }
        let _ = writeln!(details, "------");
    }
    let span = place.map_or_else(Span::default, |span| Span {
        start: span.start,
        end: span.end,
    });
    let mut failure = single(&Diagnostic::error(span, shorten(&message)), source, name);
    failure.details.insert_str(0, &details);
    failure.hints = hints;
    failure
}

fn explain(cause: &StepFailure) -> (String, Vec<String>) {
    let mut hints = Vec::new();
    match cause {
        StepFailure::Process {
            log, out_of_memory, ..
        } => {
            if *out_of_memory {
                hints.push("it ran out of memory: give it more with --memory".to_owned());
            }
            hints.extend(log.as_deref().and_then(full_log));
        }
        StepFailure::MissingSecret { id, .. } => {
            hints.push(format!(
                "pass it with --secret id={id},src=FILE or --secret id={id},env=NAME"
            ));
        }
        StepFailure::MissingAgent { id, .. } => hints.push(format!("pass it with --ssh {id}")),
        StepFailure::Platform(cause) => hints.push(cause.remedy.clone()),
        StepFailure::SourceNotFound {
            ignored_by, similar, ..
        } => match ignored_by {
            Some(rule) => hints.push(format!("it is excluded by {rule}")),
            None if !similar.is_empty() => hints.push(format!("there is {}", similar.join(", "))),
            None => {}
        },
        StepFailure::Remote(error) => hints.extend(error.hint()),
        _ => hints.extend(sandbox_hint(cause)),
    }
    if is_disk_full(cause) || ended_on_full_disk(cause) {
        hints.push(DISK_FULL.to_owned());
    }
    (chain(cause), hints)
}

/// How to read a step's whole log: logs are compressed.
fn full_log(log: &Path) -> Option<String> {
    let build = log.parent()?.file_stem()?.to_str()?;
    let id: String = build.chars().take(12).collect();
    Some(format!("the full log: kiln builds logs {id}"))
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
    let message = message.trim_end();
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

/// Findings that did not stop a build, in the form of Docker's closing block.
pub(crate) fn build_warnings(warnings: &[Diagnostic], source: &[u8]) {
    if warnings.is_empty() {
        return;
    }
    // Nothing can be done about a closed standard error.
    let _ = std::io::stderr().write_all(warnings_text(warnings, source).as_bytes());
}

fn warnings_text(warnings: &[Diagnostic], source: &[u8]) -> String {
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let index = LineIndex::new(source);
    let count = warnings.len();
    let mut text = format!("\n {count} warning{plural} found (use --check to see where):\n");
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let line = index.line(warning.extent().start);
        let rule = warning.rule.unwrap_or("Warning");
        let _ = writeln!(text, " - {rule}: {} (line {line})", shorten(&warning.message));
    }
    if let Some(more) = count.checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        let _ = writeln!(text, " - and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::ErrorKind;
    use std::path::PathBuf;

    use kiln_frontend::BuildError;
    use kiln_parser::{Diagnostic, Span};
    use kiln_solver::graph::SourceSpan;
    use kiln_solver::image::PullError;
    use kiln_solver::{CannotRun, SolveError, StepError, StepFailure};
    use kiln_tree::TreePath;

    use super::{DISK_FULL, Failure, chain};
    use crate::exit;
    use crate::style::Style;

    const DOCKERFILE: &[u8] =
        b"FROM busybox AS build\nWORKDIR /src\nCOPY main.c nosuch.c .\nRUN cc main.c && \\\n    ./a.out\n";

    fn place(text: &str) -> Span {
        let start = String::from_utf8_lossy(DOCKERFILE).find(text).unwrap();
        Span {
            start,
            end: start + text.len(),
        }
    }

    fn step(at: &str, cause: StepFailure) -> Failure {
        let span = place(at);
        let span = Some(SourceSpan {
            start: span.start,
            end: span.end,
        });
        let step = StepError {
            name: format!("[build 3/4] {at}"),
            span,
            cause,
        };
        Failure::build(
            &BuildError::Solve(SolveError::Step(Box::new(step))),
            DOCKERFILE,
            "Dockerfile",
        )
    }

    fn dockerfile(diagnostics: Vec<Diagnostic>) -> Failure {
        Failure::build(
            &BuildError::Dockerfile(diagnostics),
            DOCKERFILE,
            "docker/Dockerfile",
        )
    }

    fn full() -> std::io::Error {
        std::io::Error::from_raw_os_error(28)
    }

    fn process(last_output: &[&str], log: Option<&str>) -> StepFailure {
        StepFailure::Process {
            command: "/bin/sh -c cc main.c &&     ./a.out".to_owned(),
            status: "exit code: 2".to_owned(),
            code: 2,
            out_of_memory: false,
            disk_full: false,
            last_output: last_output.iter().map(|&line| line.to_owned()).collect(),
            log: log.map(PathBuf::from),
        }
    }

    fn not_found(ignored_by: Option<&str>, similar: &[&str]) -> StepFailure {
        let span = place("nosuch.c");
        StepFailure::SourceNotFound {
            path: TreePath::new(b"nosuch.c").unwrap(),
            place: "the build context".to_owned(),
            ignored_by: ignored_by.map(str::to_owned),
            similar: similar.iter().map(|&name| name.to_owned()).collect(),
            span: Some(SourceSpan {
                start: span.start,
                end: span.end,
            }),
        }
    }

    fn failures() -> Vec<(&'static str, Failure)> {
        let copy = "COPY main.c nosuch.c .";
        let run = "RUN cc main.c && \\\n    ./a.out";
        vec![
            (
                "failing RUN",
                step(
                    run,
                    process(
                        &["main.c:1: \u{1b}[31merror\u{1b}[0m", "\tx"],
                        Some("/r/builds/1.log/4"),
                    ),
                ),
            ),
            ("failing RUN without output", step(run, process(&[], None))),
            (
                "failing RUN on a full disk",
                step(run, process(&["cc: a.out: No space left on device"], None)),
            ),
            (
                "RUN of a platform that nothing runs",
                step(
                    run,
                    StepFailure::Platform(CannotRun {
                        platform: Box::new("linux/s390x".parse().unwrap()),
                        reason: "no interpreter is registered with the kernel, and qemu-s390x-static is not \
                                 installed"
                            .to_owned(),
                        remedy: "install the package qemu-user-static (it has qemu-s390x-static)".to_owned(),
                    }),
                ),
            ),
            ("missing source", step(copy, not_found(None, &[]))),
            (
                "missing source with a similar one",
                step(copy, not_found(None, &["nosuch.cc"])),
            ),
            (
                "hidden source",
                step(copy, not_found(Some(".dockerignore:2 (*.c)"), &["nosuch.c"])),
            ),
            (
                "full disk",
                step(
                    copy,
                    StepFailure::Io {
                        path: PathBuf::from("/r/layers/x"),
                        source: full(),
                    },
                ),
            ),
            (
                "lost image",
                step(
                    "FROM busybox AS build",
                    StepFailure::Pull(PullError::NotLocal("busybox:latest".to_owned())),
                ),
            ),
            (
                "one error in the Dockerfile",
                dockerfile(vec![
                    Diagnostic::error(place("WORKDIR"), "unknown instruction: WORKDIRR")
                        .hint("did you mean WORKDIR?"),
                ]),
            ),
            (
                "two errors in the Dockerfile",
                dockerfile(vec![
                    Diagnostic::error(place("busybox"), "invalid image").related(place("build"), "the stage"),
                    Diagnostic::error(place("./a.out"), "odd").hint("even"),
                ]),
            ),
            (
                "an error without a place",
                dockerfile(vec![
                    Diagnostic::error(Span::default(), "target stage \"bulid\" could not be found")
                        .hint("did you mean build?"),
                ]),
            ),
            (
                "canceled",
                Failure::build(&BuildError::Solve(SolveError::Canceled), DOCKERFILE, "Dockerfile"),
            ),
            (
                "a file that cannot be read",
                Failure::io("read", "/x", ErrorKind::PermissionDenied.into()),
            ),
            (
                "a file that cannot be written",
                Failure::io("write", "/x", full()),
            ),
            (
                "wrong arguments",
                Failure::usage("--network x: expected default, host or none"),
            ),
        ]
    }

    #[test]
    fn failures_look_as_expected() {
        let mut text = String::new();
        for (name, failure) in failures() {
            let _ = write!(
                text,
                "=== {name} (exit code {})\n{}",
                failure.code(),
                failure.render(Style::PLAIN)
            );
        }
        crate::expected::check("errors.txt", &text);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        for (name, failure) in failures() {
            let coloured = failure.render(Style::COLOURED);
            assert!(coloured.contains("\u{1b}[31mERROR:\u{1b}[0m "), "{name}");
            assert_eq!(
                console::strip_ansi_codes(&coloured),
                failure.render(Style::PLAIN),
                "{name}"
            );
        }
    }

    #[test]
    fn a_full_disk_is_recognized_wherever_it_shows() {
        for (name, failure) in failures() {
            let text = failure.render(Style::PLAIN);
            assert_eq!(
                text.contains("No space left"),
                text.contains(DISK_FULL),
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn a_full_disk_is_recognized_in_words_and_where_nobody_says_so() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed: No space left on device (os error 28)")]
        struct Text;
        #[derive(Debug, thiserror::Error)]
        #[error("failed to store the image")]
        struct Outer(#[source] Text);
        assert!(
            Failure::error(&Outer(Text))
                .render(Style::PLAIN)
                .contains(DISK_FULL)
        );
        let found = Diagnostic::error(Span::default(), "cannot create /x: No space left on device");
        let error = BuildError::Dockerfile(vec![found]);
        let failure = Failure::build(&error, DOCKERFILE, "Dockerfile");
        assert!(failure.render(Style::PLAIN).contains(DISK_FULL));
        let mut silent = process(&["no word of it"], None);
        if let StepFailure::Process { disk_full, .. } = &mut silent {
            *disk_full = true;
        }
        assert!(step("COPY", silent).render(Style::PLAIN).contains(DISK_FULL));
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: &'static str,
            source: Option<Box<Layer>>,
        }
        let layer = |text, source: Option<Layer>| Layer {
            text,
            source: source.map(Box::new),
        };
        let refused = layer("io: Connection refused (os error 111)", None);
        assert_eq!(
            chain(&layer("GET x: connection refused", Some(refused))),
            "GET x: connection refused"
        );
        let missing = layer("No such file or directory (os error 2)", None);
        assert_eq!(
            chain(&layer("open x", Some(layer("open x", Some(missing))))),
            "open x: No such file or directory"
        );
    }

    #[test]
    fn a_canceled_pull_is_no_failure_of_the_registry() {
        assert_eq!(Failure::from(PullError::Canceled).code(), exit::INTERRUPTED);
        assert_eq!(
            Failure::from(PullError::NotLocal("x".to_owned())).code(),
            exit::FAILURE
        );
    }
}
