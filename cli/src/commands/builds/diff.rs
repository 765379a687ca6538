//! `kiln builds diff`: what two builds did differently.

use std::fmt::Write as _;
use std::process::ExitCode;

use kiln_cache::Store;
use kiln_solver::StepReport;
use kiln_solver::why::same_steps;
use serde_json::json;

use super::super::why::reasons;
use super::{Found, find, seconds, short, show};
use crate::arguments::BuildsDiff;
use crate::format;
use crate::progress::visible;
use crate::report::Failure;
use crate::table::Table;

/// Names of steps are shown up to here.
const NAME: usize = 60;
/// Times that differ by less are the same.
const SAME_MS: u64 = 100;

/// A step of either build.
struct Row<'a> {
    before: Option<&'a StepReport>,
    after: Option<&'a StepReport>,
}

impl Row<'_> {
    /// Whether there is something to tell.
    fn differs(&self) -> bool {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return true;
        };
        before.outcome != after.outcome
            || before.key != after.key
            || before.milliseconds.abs_diff(after.milliseconds) >= SAME_MS
    }
}

/// Runs `kiln builds diff`.
pub(super) fn run(store: &Store, arguments: &BuildsDiff) -> Result<ExitCode, Failure> {
    let as_json = super::super::is_json(arguments.format.as_deref(), "text")?;
    let after = find(store, &arguments.after)?;
    let before = match &arguments.before {
        Some(before) => find(store, before)?,
        None => build_before(store, &after)?,
    };
    let rows = rows(&before.record.steps, &after.record.steps);
    if as_json {
        let step = |step: Option<&StepReport>| {
            step.map(|step| {
                json!({
                    "name": step.name, "outcome": step.outcome, "milliseconds": step.milliseconds,
                    "bytes": step.bytes, "why": step.why,
                })
            })
        };
        let steps: Vec<_> = rows
            .iter()
            .map(|row| json!({ "before": step(row.before), "after": step(row.after), "differs": row.differs() }))
            .collect();
        let build = |found: &Found| json!({ "id": found.id.as_str(), "status": found.status(), "milliseconds": found.record.duration_ms });
        super::super::print_json(
            &json!({ "before": build(&before), "after": build(&after), "steps": steps }),
        )?;
    } else {
        super::super::print(&text(&before, &after, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the latest build is compared with where nothing is named.
fn build_before(store: &Store, after: &Found) -> Result<Found, Failure> {
    let id = kiln_frontend::build_before(store, &after.id, &after.record).ok_or_else(|| {
        Failure::message(format!(
            "there is no other build of what build {} made",
            short(&after.id)
        ))
        .hint("kiln builds ls lists all builds; kiln builds diff BEFORE AFTER compares any two")
    })?;
    find(store, id.as_str())
}

/// The steps of the second build with their like in the first, then those that only the first one has.
fn rows<'a>(before: &'a [StepReport], after: &'a [StepReport]) -> Vec<Row<'a>> {
    let same = same_steps(after, before);
    let mut rows: Vec<Row<'a>> = after
        .iter()
        .zip(&same)
        .map(|(step, old)| Row {
            before: old.and_then(|old| before.get(old)),
            after: Some(step),
        })
        .collect();
    let gone = before
        .iter()
        .enumerate()
        .filter(|(at, _)| !same.contains(&Some(*at)));
    rows.extend(gone.map(|(_, step)| Row {
        before: Some(step),
        after: None,
    }));
    rows
}

fn text(before: &Found, after: &Found, rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for (sign, found) in [("-", before), ("+", after)] {
        let _ = writeln!(
            text,
            "{sign} {}  {}  {}  {}",
            short(&found.id),
            found.status(),
            seconds(found.record.duration_ms),
            visible(found.title().as_bytes())
        );
    }
    text.push('\n');
    let mut table = Table::new(&["STEP", "BEFORE", "AFTER", "TIME", "WHY"]);
    let mut equal = 0;
    for row in rows {
        if !row.differs() {
            equal += 1;
            continue;
        }
        let name = row.after.or(row.before).map_or("", |step| step.name.as_str());
        let outcome = |step: Option<&StepReport>| step.map_or("-", show::outcome).to_owned();
        let time = |step: Option<&StepReport>| step.map_or("-".to_owned(), |step| seconds(step.milliseconds));
        let why = row
            .after
            .filter(|step| step.why.is_some())
            .map(|step| reasons(step).join("; "));
        table.row(vec![
            format::ellipsis(&visible(name.as_bytes()), NAME),
            outcome(row.before),
            outcome(row.after),
            format!("{} -> {}", time(row.before), time(row.after)),
            visible(why.unwrap_or_default().as_bytes()),
        ]);
    }
    let differing = rows.len() - equal;
    if differing > 0 {
        for line in table.render().lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    let _ = writeln!(text, "{differing} steps differ, {equal} are the same");
    text
}
