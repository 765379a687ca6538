//! A step's row in the timeline, and what unfolds below it.

use std::fmt::Write as _;

use kiln_solver::StepReport;
use kiln_solver::report::StepKind;
use kiln_solver::why::{StepName, Why};

use super::super::super::why::reasons;
use super::super::{Found, seconds, show};
use super::chart::{Scale, end, percent};
use super::escape;
use crate::format;

/// A reason beside its bar is shown up to here.
const TAG: usize = 64;

/// What colour a step's bar has.
pub(super) fn class(step: &StepReport) -> &'static str {
    use kiln_solver::StepOutcome as Outcome;
    match (step.outcome, step.kind) {
        (Outcome::Failed, _) => "failed",
        (Outcome::Canceled, _) => "canceled",
        (Outcome::Cached | Outcome::CachedByContent | Outcome::Skipped, _) => "cached",
        (Outcome::Ran, StepKind::Source) => "source",
        (Outcome::Ran, StepKind::Run | StepKind::Files) => "ran",
    }
}

/// What is said beside the bar.
fn tag(step: &StepReport) -> String {
    match (class(step), &step.why) {
        ("cached" | "canceled", _) => show::outcome(step).to_owned(),
        // It is said once for the whole build.
        (_, Some(Why::FirstBuild)) => String::new(),
        // What only follows from another step needs no words.
        (_, Some(why)) if !why.is_consequence() => format::ellipsis(&why.to_string(), TAG),
        _ => String::new(),
    }
}

/// Opens the step's element and draws its bar.
pub(super) fn row(page: &mut String, at: usize, step: &StepReport, scale: &Scale, critical: bool) {
    let (class, mark) = (class(step), if critical { " critical" } else { "" });
    let text = StepName::of(&step.name).map_or_else(
        || step.name.clone(),
        |name| format!("{} {}", name.position, name.text),
    );
    let _ = write!(
        page,
        "<details class=\"step {class}{mark}\" id=\"step-{number}\"{open}>\n<summary class=\"row\" title=\"{name}\">\
         <span class=\"n\">{number}</span><span class=\"name\">{text}</span>\
         <div class=\"track\"><div class=\"bar {class}{mark}\" style=\"left:{left};width:{width}\"></div>",
        number = at + 1,
        // What went wrong is what the reader came for.
        open = if class == "failed" { " open" } else { "" },
        name = escape(&step.name),
        text = escape(&text),
        left = scale.percent(step.began_ms.min(scale.total.saturating_sub(1))),
        width = scale.percent(step.milliseconds.min(scale.total.saturating_sub(step.began_ms))),
    );
    let tag = tag(step);
    if !tag.is_empty() {
        // Beside the bar, on the side where there is more room.
        let (side, place) = if step.began_ms > scale.total.saturating_sub(end(step)) {
            let room = scale.percent(scale.total.saturating_sub(step.began_ms) + scale.total / 100);
            ("tag before", format!("left:0;right:{room}"))
        } else {
            ("tag", format!("left:{};right:0", scale.percent(end(step))))
        };
        let _ = write!(
            page,
            "<span class=\"{side}\" style=\"{place}\">{}</span>",
            escape(&tag)
        );
    }
    let time = if step.milliseconds == 0 && class == "cached" {
        String::new()
    } else {
        seconds(step.milliseconds)
    };
    let _ = write!(
        page,
        "</div><span class=\"time\">{time}</span><span class=\"size\">"
    );
    if let Some(bytes) = step.bytes {
        let _ = write!(
            page,
            "{}<i style=\"width:{}\"></i>",
            format::size(bytes),
            percent(bytes, scale.bytes)
        );
    }
    page.push_str("</span></summary>\n");
}

/// What unfolds below a step: why it ran, and its facts. Leaves the element open, for the log.
pub(super) fn details(page: &mut String, found: &Found, step: &StepReport) {
    page.push_str("<div class=\"more\">\n<ul class=\"why\">");
    for reason in reasons(step) {
        let _ = write!(page, "<li>{}</li>", escape(&reason));
    }
    page.push_str("</ul>\n<dl>");
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
        }
    };
    fact("step", Some(step.name.clone()));
    fact("result", Some(show::outcome(step).to_owned()));
    fact(
        "line",
        step.line
            .map(|line| format!("{}:{line}", found.record.dockerfile)),
    );
    fact(
        "source",
        step.source
            .as_ref()
            .map(|source| format!("{} {}", source.what, source.digest)),
    );
    fact(
        "time",
        (step.milliseconds > 0).then(|| format!("{} to {}", seconds(step.began_ms), seconds(end(step)))),
    );
    fact("saved", step.saved_ms.map(seconds));
    let inputs: Vec<String> = step.inputs.iter().map(|input| (input + 1).to_string()).collect();
    fact("works on", (!inputs.is_empty()).then(|| inputs.join(", ")));
    fact("key", step.key.map(|key| key.to_string()));
    page.push_str("</dl>\n");
}
