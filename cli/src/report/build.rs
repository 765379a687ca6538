//! The failure of a build: the Dockerfile's lines that it is about, a step's last output, and what to do.

use std::fmt::Write as _;
use std::path::Path;

use kiln_frontend::BuildError;
use kiln_parser::{Diagnostic, LineIndex, Span};
use kiln_solver::{SolveError, StepError, StepFailure};

use super::failure::Failure;
use super::hints::{DISK_FULL, NO_SPACE, disk_hint, ended_on_full_disk, sandbox_hint};
use super::text::{chain, shorten};
use crate::progress::visible;

/// Errors of a Dockerfile that are shown; the rest is counted.
const MOST_ERRORS: usize = 20;

impl Failure {
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
    let full = || ended_on_full_disk(cause).then_some(DISK_FULL);
    hints.extend(disk_hint(cause).or_else(full).map(str::to_owned));
    (chain(cause), hints)
}

/// How to read a step's whole log: logs are compressed.
fn full_log(log: &Path) -> Option<String> {
    let build = log.parent()?.file_stem()?.to_str()?;
    let id: String = build.chars().take(12).collect();
    Some(format!("the full log: kiln builds logs {id}"))
}
