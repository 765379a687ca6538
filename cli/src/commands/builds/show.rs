//! `kiln builds show`.

use std::fmt::Write as _;
use std::process::ExitCode;

use kiln_cache::Store;
use kiln_frontend::BuildOutcome;
use kiln_solver::{StepOutcome, StepReport};
use serde_json::json;

use super::super::why::reasons;
use super::{Found, find, html, path, seconds, time};
use crate::arguments::BuildsShow;
use crate::format;
use crate::progress::visible;
use crate::report::Failure;
use crate::table::Table;

/// Names of steps are shown up to here.
const NAME: usize = 60;

/// Runs `kiln builds show`.
pub(super) fn run(store: &Store, arguments: &BuildsShow) -> Result<ExitCode, Failure> {
    let as_json = super::super::is_json(arguments.format.as_deref(), "text")?;
    let found = find(store, &arguments.build)?;
    if let Some(file) = &arguments.html {
        let page = html::page(store, &found)?;
        std::fs::write(file, page).map_err(|error| Failure::io("write", file, error))?;
    } else if as_json {
        super::super::print_json(&value(&found)?)?;
    } else {
        super::super::print(&text(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The record with what follows from it.
pub(super) fn value(found: &Found) -> Result<serde_json::Value, Failure> {
    let mut value = serde_json::to_value(&found.record).map_err(|error| Failure::error(&error))?;
    value["id"] = json!(found.id.as_str());
    value["status"] = json!(found.status());
    value["exit_code"] = json!(found.exit_code());
    value["critical_path"] = json!(path::critical(&found.record.steps));
    value["early_cutoff"] = json!(kiln_solver::why::cutoff(&found.record.steps));
    Ok(value)
}

/// How a step came to its result, in a word.
pub(super) fn outcome(step: &StepReport) -> &'static str {
    match step.outcome {
        StepOutcome::Cached => "cached",
        StepOutcome::CachedByContent => "cached (content)",
        StepOutcome::Ran => "ran",
        StepOutcome::Skipped => "not needed",
        StepOutcome::Failed => "failed",
        StepOutcome::Canceled => "canceled",
    }
}

fn text(found: &Found) -> String {
    let record = &found.record;
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12}{}", visible(value.as_bytes()));
        }
    };
    field("build", found.id.as_str());
    field("status", found.status());
    match &record.outcome {
        BuildOutcome::Succeeded { image, .. } => field("image", image),
        BuildOutcome::Failed { message } => field("error", message),
        BuildOutcome::Unfinished | BuildOutcome::Canceled => {}
    }
    field("names", &record.names.join(", "));
    field("dockerfile", &record.dockerfile);
    field("context", &record.context);
    field("target", record.target.as_deref().unwrap_or_default());
    field("platform", &record.platform);
    field("began", &time(record.began_ms));
    field("duration", &seconds(record.duration_ms));
    let critical = path::critical(&record.steps);
    let mut table = Table::new(&["#", "STEP", "RESULT", "TIME", "SIZE", "WHY"]);
    for (at, step) in record.steps.iter().enumerate() {
        let mark = if critical.contains(&at) { "*" } else { "" };
        let why = if step.why.is_some() || step.verified.is_some() {
            reasons(step).join("; ")
        } else {
            String::new()
        };
        table.row(vec![
            format!("{}{mark}", at + 1),
            format::ellipsis(&visible(step.name.as_bytes()), NAME),
            outcome(step).to_owned(),
            seconds(step.milliseconds),
            step.bytes.map(format::size).unwrap_or_default(),
            visible(why.as_bytes()),
        ]);
    }
    let table: Vec<String> = table
        .render()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    let _ = writeln!(text, "\n{}", table.join("\n"));
    if !critical.is_empty() {
        text.push_str("* on the critical path\n");
    }
    if let Some(saved) = kiln_solver::why::cutoff(&record.steps) {
        let _ = writeln!(text, "early cutoff: {saved}");
    }
    text
}
