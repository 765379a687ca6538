//! `kiln builds show --html`: a build as one page, for looking at.
//!
//! The page needs nothing but itself: no script, no font, no image, and its policy forbids all that. Everything that
//! comes from outside (names, logs, messages) goes through [`escape`].

use std::fmt::Write as _;
use std::io::Read as _;

use kiln_cache::Store;
use kiln_frontend::BuildOutcome;
use kiln_solver::StepReport;
use kiln_solver::report::StepKind;
use kiln_solver::why::cutoff;

use super::super::why::reasons;
use super::{Found, path, seconds, short, show, time};
use crate::format;
use crate::report::Failure;

const STYLE: &str = include_str!("page.css");
/// More of a log makes no page that a browser can show; the page says where the rest is.
const LOG_BYTES: u64 = 2 << 20;
/// A reason beside its bar is shown up to here.
const TAG: usize = 52;
/// Ticks of the time axis, beside its beginning.
const TICKS: u64 = 5;

/// The page.
pub(super) fn page(store: &Store, found: &Found) -> Result<String, Failure> {
    let record = &found.record;
    let critical = path::critical(&record.steps);
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} \u{b7} build {id}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        title = escape(found.title()),
        id = short(&found.id),
    );
    head(&mut page, found);
    tiles(&mut page, found, &critical);
    chart(&mut page, store, found, &critical)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

/// Text for any place in the page.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            // Not allowed in a page, or turning the direction of what follows.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn head(page: &mut String, found: &Found) {
    let record = &found.record;
    let status = found.status();
    let _ = writeln!(
        page,
        "<h1>{}<span class=\"status {status}\">{status}</span></h1>",
        escape(found.title())
    );
    let target = record
        .target
        .as_ref()
        .map(|target| format!(" \u{b7} target {target}"))
        .unwrap_or_default();
    let line = format!(
        "{} \u{b7} {} of {}{target} \u{b7} {} \u{b7} build {}",
        time(record.began_ms),
        record.dockerfile,
        record.context,
        record.platform,
        found.id
    );
    let _ = writeln!(page, "<div class=\"sub\">{}</div>", escape(&line));
    match &record.outcome {
        BuildOutcome::Succeeded { image, .. } => {
            let _ = writeln!(page, "<div class=\"sub\">{}</div>", escape(image));
        }
        BuildOutcome::Failed { message } => {
            let _ = writeln!(page, "<div class=\"error\">{}</div>", escape(message));
        }
        BuildOutcome::Unfinished | BuildOutcome::Canceled => {}
    }
}

fn tiles(page: &mut String, found: &Found, critical: &[usize]) {
    let steps = &found.record.steps;
    let (cached, all) = found.cached();
    let on_path: u64 = critical
        .iter()
        .filter_map(|at| steps.get(*at))
        .map(|step| step.milliseconds)
        .sum();
    let made = steps
        .iter()
        .filter(|step| step.is_miss())
        .filter_map(|step| step.bytes);
    let mut tiles = vec![
        (seconds(found.record.duration_ms), "duration".to_owned()),
        (format!("{cached} / {all}"), "steps cached".to_owned()),
        (
            seconds(on_path),
            format!("critical path, {} steps", critical.len()),
        ),
        (format::size(made.sum()), "new layers".to_owned()),
    ];
    if let Some(cutoff) = cutoff(steps) {
        tiles.push((
            seconds(cutoff.saved_ms),
            format!("saved by early cutoff, {} steps", cutoff.steps),
        ));
    }
    page.push_str("<div class=\"tiles\">\n");
    for (value, what) in tiles {
        let _ = writeln!(
            page,
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
            escape(&value),
            escape(&what)
        );
    }
    page.push_str("</div>\n");
}

const LEGEND: [(&str, &str); 5] = [
    ("background:var(--ran)", "ran"),
    ("background:var(--cached)", "cached"),
    ("background:var(--source)", "source"),
    ("background:var(--failed)", "failed"),
    ("box-shadow:0 0 0 2px var(--critical)", "critical path"),
];

fn chart(page: &mut String, store: &Store, found: &Found, critical: &[usize]) -> Result<(), Failure> {
    let steps = &found.record.steps;
    let ends = steps.iter().map(|step| step.began_ms + step.milliseconds);
    let total = ends.chain([found.record.duration_ms, 1]).max().unwrap_or(1);
    page.push_str("<h2>Timeline</h2>\n<div class=\"legend\">");
    for (style, what) in LEGEND {
        let _ = write!(page, "<span><i style=\"{style}\"></i>{what}</span>");
    }
    page.push_str("</div>\n<div class=\"chart\">\n<div class=\"row axis\"><span></span><span></span><div class=\"track\">");
    for tick in 0..=TICKS {
        let _ = write!(
            page,
            "<span style=\"left:{}%\">{}</span>",
            tick * 100 / TICKS,
            tick_text(total * tick / TICKS, total)
        );
    }
    page.push_str("</div><span></span><span></span></div>\n");
    for (at, step) in steps.iter().enumerate() {
        row(page, at, step, total, critical.contains(&at));
        details(page, store, found, at, step)?;
    }
    page.push_str("</div>\n");
    Ok(())
}

/// A time on the axis, with as many digits as the whole needs.
fn tick_text(milliseconds: u64, total: u64) -> String {
    match total {
        ..2_000 => format!("{milliseconds}ms"),
        2_000..600_000 => seconds(milliseconds),
        _ => format!("{}m", milliseconds / 60_000),
    }
}

/// What colour a step's bar has.
fn class(step: &StepReport) -> &'static str {
    use kiln_solver::StepOutcome as Outcome;
    match (step.outcome, step.kind) {
        (Outcome::Failed | Outcome::Canceled, _) => "failed",
        (Outcome::Cached | Outcome::CachedByContent | Outcome::Skipped, _) => "cached",
        (Outcome::Ran, StepKind::Source) => "source",
        (Outcome::Ran, StepKind::Run | StepKind::Files) => "ran",
    }
}

/// Opens the step's element and draws its bar.
fn row(page: &mut String, at: usize, step: &StepReport, total: u64, critical: bool) {
    // Hundredths of a percent, without floating point.
    let share = |milliseconds: u64| {
        let share = milliseconds.min(total) * 10_000 / total;
        format!("{}.{:02}%", share / 100, share % 100)
    };
    let (class, mark) = (class(step), if critical { " critical" } else { "" });
    let tag = match (class, &step.why) {
        ("cached", _) => show::outcome(step).to_owned(),
        // What only follows from another step needs no words.
        (_, Some(why)) if !why.is_consequence() => format::ellipsis(&why.to_string(), TAG),
        _ => String::new(),
    };
    let _ = write!(
        page,
        "<details class=\"step {class}{mark}\" id=\"step-{number}\">\n<summary class=\"row\" title=\"{name}\">\
         <span class=\"n\">{number}</span><span class=\"name\">{name}</span>\
         <div class=\"track\"><div class=\"bar {class}{mark}\" style=\"left:{left};width:{width}\"></div>",
        number = at + 1,
        name = escape(&step.name),
        left = share(step.began_ms.min(total.saturating_sub(1))),
        width = share(step.milliseconds.min(total.saturating_sub(step.began_ms))),
    );
    if !tag.is_empty() {
        // Beside the bar, on the side where there is room.
        let end = step.began_ms + step.milliseconds;
        let (side, place) = if end > total / 2 && step.began_ms > total / 2 {
            let room = share(total.saturating_sub(step.began_ms) + total / 100);
            ("tag before", format!("left:0;right:{room}"))
        } else {
            ("tag", format!("left:{};right:0", share(end)))
        };
        let _ = write!(
            page,
            "<span class=\"{side}\" style=\"{place}\">{}</span>",
            escape(&tag)
        );
    }
    let _ = writeln!(
        page,
        "</div><span class=\"time\">{}</span><span class=\"size\">{}</span></summary>",
        seconds(step.milliseconds),
        step.bytes.map(format::size).unwrap_or_default()
    );
}

/// What unfolds below a step: why it ran, its facts, its log. Closes the element.
fn details(
    page: &mut String,
    store: &Store,
    found: &Found,
    at: usize,
    step: &StepReport,
) -> Result<(), Failure> {
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
    fact("saved", step.saved_ms.map(seconds));
    let inputs: Vec<String> = step.inputs.iter().map(|input| (input + 1).to_string()).collect();
    fact("works on", (!inputs.is_empty()).then(|| inputs.join(", ")));
    fact("key", step.key.map(|key| key.to_string()));
    page.push_str("</dl>\n");
    let again = step.verified.as_ref().and_then(|verified| verified.log.as_ref());
    for name in step.log.iter().chain(again) {
        log(page, store, found, at, name)?;
    }
    page.push_str("</div>\n</details>\n");
    Ok(())
}

fn log(page: &mut String, store: &Store, found: &Found, at: usize, name: &str) -> Result<(), Failure> {
    let log = store.builds().log(&found.id);
    let Some(reader) = log.read(name)? else {
        return Ok(());
    };
    let mut bytes = Vec::new();
    reader
        .take(LOG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read", log.path().join(name), error))?;
    if bytes.is_empty() {
        return Ok(());
    }
    let cut = bytes.len() as u64 > LOG_BYTES;
    bytes.truncate(usize::try_from(LOG_BYTES).unwrap_or(usize::MAX));
    let text = String::from_utf8_lossy(&bytes);
    let text = console::strip_ansi_codes(&text);
    let _ = write!(page, "<pre class=\"log\">{}</pre>", escape(&shown(&text)));
    if cut {
        let _ = write!(
            page,
            "<p class=\"sub\">The log goes on: kiln builds logs {} --step {}</p>",
            short(&found.id),
            at + 1
        );
    }
    page.push('\n');
    Ok(())
}

/// Lines as a terminal would leave them: what a carriage return takes back is left out.
fn shown(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.rsplit('\r').next().unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use kiln_cache::{BuildId, Store, StoreOptions};
    use kiln_frontend::BuildRecord;
    use serde_json::json;

    use super::super::Found;
    use super::super::path::tests::step;
    use super::{escape, page, shown};

    #[test]
    fn nothing_breaks_out() {
        assert_eq!(
            escape("<script>alert('x')</script>&\"\u{1b}[0m\u{202e}"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}[0m\u{fffd}"
        );
        assert_eq!(shown("a\r\n10%\r20%\nend"), "a\n20%\nend");
    }

    #[test]
    fn the_page_has_everything_and_runs_nothing() {
        let folder = std::env::temp_dir().join(format!("kiln-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(
            &folder.join("store"),
            StoreOptions {
                userxattr: false,
                boot: kiln_cache::boot::id().unwrap(),
            },
        )
        .unwrap();
        let id = BuildId::new();
        let evil = "</title></pre><script>alert(1)</script><img src=x onerror=alert(2)>";
        writeln!(store.builds().log(&id).step("0002").unwrap(), "log {evil}").unwrap();
        let mut run = step(&format!("[2/2] RUN echo {evil}"), 20, 900, &[0]);
        run.log = Some("0002".to_owned());
        run.bytes = Some(1234);
        let record: BuildRecord = serde_json::from_value(json!({
            "dockerfile": evil, "context": evil, "target": evil, "platform": "linux/amd64", "names": [evil],
            "began_ms": 1, "duration_ms": 1000, "outcome": { "failed": { "message": evil } },
            "steps": [step("[1/2] FROM x", 0, 20, &[]), run],
        }))
        .unwrap();
        let text = page(
            &store,
            &Found {
                id,
                record,
                running: false,
            },
        )
        .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
        for has in [
            "id=\"step-2\"",
            "bar ran critical",
            "left:2.00%;width:90.00%",
            "1.23kB",
            "log &lt;/title&gt;",
        ] {
            assert!(text.contains(has), "{has}: {text}");
        }
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("url("));
    }
}
