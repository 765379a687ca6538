//! `kiln builds show --html`: a build as one page, for looking at.
//!
//! The page needs nothing but itself: no script, no font, no image, and its policy forbids all that. Everything that
//! comes from outside (names, logs, messages) goes through [`escape`].

mod chart;
mod log;
mod step;

use std::fmt::Write as _;

use kiln_cache::Store;
use kiln_frontend::BuildOutcome;
use kiln_solver::why::{Summary, cutoff};

use super::{Found, path, seconds, short, time};
use crate::format;
use crate::report::Failure;

const STYLE: &str = include_str!("html/page.css");

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
    chart::write(&mut page, store, found, &critical)?;
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
    ];
    if !critical.is_empty() {
        let path = format!("critical path, {}", steps_text(critical.len()));
        tiles.push((seconds(on_path), path));
    }
    tiles.push((format::size(made.sum()), "new layers".to_owned()));
    if let Some(cutoff) = cutoff(steps) {
        tiles.push((
            seconds(cutoff.saved_ms),
            format!("saved by early cutoff, {}", steps_text(cutoff.steps)),
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
    let succeeded = matches!(found.record.outcome, BuildOutcome::Succeeded { .. });
    if succeeded && all > 0 && cached == all {
        page.push_str("<div class=\"because\">every step was cached</div>\n");
    }
    for line in Summary::of(steps).iter().flat_map(Summary::lines) {
        let _ = writeln!(page, "<div class=\"because\">{}</div>", escape(&line));
    }
}

fn steps_text(count: usize) -> String {
    if count == 1 {
        "1 step".to_owned()
    } else {
        format!("{count} steps")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use kiln_cache::{BuildId, Store, StoreOptions};
    use kiln_frontend::BuildRecord;
    use serde_json::json;

    use super::super::Found;
    use super::super::path::tests::step;
    use super::{escape, page};

    #[test]
    fn nothing_breaks_out() {
        assert_eq!(
            escape("<script>alert('x')</script>&\"\u{1b}[0m\u{202e}"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}[0m\u{fffd}"
        );
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
                runtime: None,
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
