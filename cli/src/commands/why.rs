//! `kiln why`, and the end of `kiln build --explain`.

use std::fmt::Write as _;
use std::process::ExitCode;

use kiln_cache::{BuildId, Store};
use kiln_frontend::{BuildOutcome, BuildRecord};
use kiln_solver::why::{Difference, Why as Reason, cutoff};
use kiln_solver::{StepOutcome, StepReport};
use serde_json::{Value, json};

use super::builds::{Found, find, matching};
use crate::arguments::{Progress, Why};
use crate::machine::Machine;
use crate::progress::visible;
use crate::report::Failure;

/// Runs `kiln why`.
pub(crate) fn run(machine: &Machine, arguments: &Why) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "text")?;
    let store = machine.store()?;
    let found = find(&store, &arguments.build)?;
    let steps = matching(&found.record.steps, arguments.step.as_deref())?;
    // Asked for by name, a cached step is an answer, too.
    let all = arguments.step.is_some();
    let shown: Vec<&StepReport> = steps
        .into_iter()
        .map(|(_, step)| step)
        .filter(|step| all || is_told(step))
        .collect();
    if as_json {
        super::print_json(&as_value(&found, &shown))?;
    } else {
        super::print(&text(&found.record, &shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells on standard error why each step of a build ran that has just ended.
pub(super) fn explain(store: &Store, id: &BuildId, progress: Progress) -> Result<(), Failure> {
    let Some(record) = store.builds().get::<BuildRecord>(id)? else {
        return Ok(());
    };
    // The JSON view has told it.
    if progress == Progress::Rawjson {
        return Ok(());
    }
    let shown: Vec<&StepReport> = record.steps.iter().filter(|step| is_told(step)).collect();
    eprint_text(&format!("\n{}", text(&record, &shown)));
    Ok(())
}

/// Whether there is anything to say of a step that nobody asked for.
fn is_told(step: &StepReport) -> bool {
    step.why.is_some() || step.outcome == StepOutcome::CachedByContent || step.verified.is_some()
}

fn eprint_text(text: &str) {
    // Nothing can be done about a closed standard error.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}

fn as_value(found: &Found, steps: &[&StepReport]) -> Value {
    let step = |step: &&StepReport| {
        json!({
            "step": step.name, "line": step.line, "outcome": step.outcome, "milliseconds": step.milliseconds,
            "why": step.why, "text": step.why.as_ref().map(ToString::to_string), "verified": step.verified,
        })
    };
    json!({
        "build": found.id.as_str(),
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "early_cutoff": cutoff(&found.record.steps),
    })
}

/// What `kiln why` says.
fn text(record: &BuildRecord, steps: &[&StepReport]) -> String {
    let mut text = String::new();
    for step in steps {
        let line = step
            .line
            .map(|line| format!("  ({}:{line})", record.dockerfile))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "{}{}",
            visible(step.name.as_bytes()),
            visible(line.as_bytes())
        );
        for reason in reasons(step) {
            let _ = writeln!(text, "    {}", visible(reason.as_bytes()));
        }
    }
    if let Some(saved) = cutoff(&record.steps) {
        let _ = writeln!(text, "early cutoff: {saved}");
    }
    if text.is_empty() {
        text.push_str(match record.outcome {
            BuildOutcome::Succeeded { .. } => "nothing ran: every step was cached\n",
            _ => "nothing ran: the build did not come to its steps\n",
        });
    }
    text
}

/// Why a step ran, a line each, or why not; and what came of running it once more.
pub(super) fn reasons(step: &StepReport) -> Vec<String> {
    let verified = step.verified.as_ref();
    let verified = verified.map(|verified| format!("run again: {}", verified.outcome));
    cause(step).into_iter().chain(verified).collect()
}

fn cause(step: &StepReport) -> Vec<String> {
    match (&step.why, step.outcome) {
        (Some(Reason::Changed { differences, .. }), _) => {
            let mut lines = Vec::new();
            for difference in differences {
                lines.push(difference.to_string());
                if let Difference::Command { before, after } = difference {
                    lines.push(format!("  - {before}"));
                    lines.push(format!("  + {after}"));
                }
            }
            lines
        }
        (Some(why), _) => vec![why.to_string()],
        (None, StepOutcome::Cached) => vec!["cached".to_owned()],
        (None, StepOutcome::CachedByContent) => vec!["kept: its inputs came out the same".to_owned()],
        (None, StepOutcome::Skipped) => vec!["not needed".to_owned()],
        (None, StepOutcome::Canceled) => vec!["canceled".to_owned()],
        (None, StepOutcome::Ran | StepOutcome::Failed) => vec!["it is looked up in each build".to_owned()],
    }
}
