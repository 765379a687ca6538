//! The answers to `--call` as text and as JSON, in the shapes of Docker's client.
//!
//! In the JSON, `ranges` are what Docker has: one a line of the instruction. What is exact comes beside them under
//! names of its own: `span` (lines and columns from 1), `fix`, `errors`.

use std::fmt::Write as _;

use base64::Engine as _;
use kiln_frontend::{Findings, Outline, OutlineNeed, Target};
use kiln_parser::{Diagnostic, LineIndex, Span, rules};
use serde_json::{Map, Value, json};

use crate::report::Failure;

/// Lines of one place that are listed one by one.
const MOST_LINES: usize = 1000;
/// Lines of one place that are shown; the middle of more is left out.
const MOST_SHOWN: usize = 40;
/// Characters of a line that are shown.
const WIDEST: usize = 400;

/// A Dockerfile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// What it is called.
    pub(super) name: &'a str,
}

/// A Dockerfile whose lines can be looked up.
struct Lines<'a> {
    source: Source<'a>,
    index: LineIndex,
}

impl<'a> Lines<'a> {
    fn new(source: Source<'a>) -> Self {
        Self {
            source,
            index: LineIndex::new(source.bytes),
        }
    }

    /// `{"ranges": […]}` as Docker has it.
    fn location(&self, extent: Span) -> Value {
        let (first, last) = self.index.lines(extent);
        let range = |start: usize, end: usize| json!({ "start": { "line": start }, "end": { "line": end } });
        let ranges: Vec<Value> = if last - first < MOST_LINES {
            (first..=last).map(|line| range(line, line)).collect()
        } else {
            vec![range(first, last)]
        };
        json!({ "ranges": ranges })
    }

    /// The location of a diagnostic, with its exact span.
    fn place(&self, diagnostic: &Diagnostic) -> Value {
        let mut location = self.location(diagnostic.extent());
        location["span"] = json!({
            "start": self.index.position(self.source.bytes, diagnostic.span.start),
            "end": self.index.position(self.source.bytes, diagnostic.span.end),
        });
        location
    }

    /// The lines around a place, as Docker shows them.
    fn excerpt(&self, extent: Span, text: &mut String) {
        let (first, last) = self.index.lines(extent);
        let count = self.index.count();
        let (mut start, mut end) = (first, last.min(count));
        let padding = if first == last { 4 } else { 2 };
        let mut padded = 0;
        while padded < padding {
            if start > 1 {
                start -= 1;
                padded += 1;
            }
            if end != count {
                end += 1;
                padded += 1;
            }
            padded += 1;
        }
        let rule = "--------------------";
        let _ = writeln!(text, "{}:{first}\n{rule}", self.source.name);
        let hidden = (first + MOST_SHOWN / 2)..=(last.saturating_sub(MOST_SHOWN / 2));
        for line in start..=end {
            if last - first >= MOST_SHOWN && hidden.contains(&line) {
                if line == *hidden.start() {
                    text.push_str("  ... | >>> …\n");
                }
                continue;
            }
            let marker = if (first..=last).contains(&line) {
                ">>>"
            } else {
                "   "
            };
            let _ = writeln!(text, " {line:3} | {marker} {}", self.line(line));
        }
        let _ = writeln!(text, "{rule}");
    }

    fn line(&self, number: usize) -> String {
        let bytes = self.index.text(self.source.bytes, number);
        let cut = &bytes[..bytes.len().min(WIDEST * 4)];
        let mut text: String = String::from_utf8_lossy(cut)
            .chars()
            .take(WIDEST)
            .map(|character| match character {
                '\t' => '\t',
                character if character.is_control() => ' ',
                character => character,
            })
            .collect();
        if text.len() < bytes.len() && text.chars().count() == WIDEST {
            text.push('…');
        }
        text
    }
}

fn to_json(value: &Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::error(&error))?;
    Ok(text + "\n")
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// An object without its empty fields.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_empty(value));
    Value::Object(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

/// What `--check` found.
pub(super) fn check(findings: &Findings, source: Source<'_>, json: bool) -> Result<String, Failure> {
    let lines = Lines::new(source);
    if json {
        return to_json(&check_json(findings, &lines));
    }
    let mut text = String::new();
    match findings.warnings.len() {
        0 if findings.errors.is_empty() => text.push_str("Check complete, no warnings found.\n"),
        0 => {}
        1 => text.push_str("Check complete, 1 warning has been found!\n"),
        count => {
            let _ = writeln!(text, "Check complete, {count} warnings have been found!");
        }
    }
    for warning in &findings.warnings {
        let name = warning.rule.unwrap_or_default();
        let _ = write!(text, "\nWARNING: {name}");
        if let Some(url) = rules::find(name).and_then(rules::Rule::url) {
            let _ = write!(text, " - {url}");
        }
        let _ = writeln!(text, "\n{}", warning.message);
        lines.excerpt(warning.extent(), &mut text);
    }
    if !findings.warnings.is_empty() {
        text.push('\n');
    }
    Ok(text)
}

fn check_json(findings: &Findings, lines: &Lines<'_>) -> Value {
    let warnings: Vec<Value> = findings
        .warnings
        .iter()
        .map(|warning| {
            let rule = rules::find(warning.rule.unwrap_or_default());
            let fix = warning.hint.as_deref().or(rule.and_then(|rule| rule.fix));
            object([
                ("ruleName", json!(warning.rule)),
                ("description", json!(rule.map(|rule| rule.description))),
                ("url", json!(rule.and_then(rules::Rule::url))),
                ("detail", json!(warning.message)),
                ("location", lines.place(warning)),
                ("fix", json!(fix)),
            ])
        })
        .collect();
    let errors: Vec<Value> = findings
        .errors
        .iter()
        .map(|error| {
            let place = (error.span != Span::default()).then(|| lines.place(error));
            let related = error.related.iter().map(|related| {
                let place = Diagnostic::error(related.span, "");
                json!({ "message": related.message, "location": lines.place(&place) })
            });
            object([
                ("message", json!(error.message)),
                ("location", json!(place)),
                ("related", related.collect()),
                ("hint", json!(error.hint)),
            ])
        })
        .collect();
    let mut answer = json!({
        // Docker has null for an empty list.
        "warnings": if warnings.is_empty() { Value::Null } else { Value::Array(warnings) },
        "sources": [{
            "filename": lines.source.name.rsplit('/').next(),
            "language": "Dockerfile",
            "data": base64(lines.source.bytes),
        }],
    });
    if let Some(first) = findings.errors.first() {
        let location = if first.span == Span::default() {
            json!({})
        } else {
            lines.location(first.extent())
        };
        answer["buildError"] = json!({ "message": first.message, "location": location });
        answer["errors"] = Value::Array(errors);
    }
    answer
}

/// Columns as wide as their widest cell and `padding` more; the last one is not filled up.
fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + padding
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                let _ = write!(text, "{cell:0$}", widths[column]);
            }
        }
        text.push('\n');
    }
    text
}

/// The targets of a file.
pub(super) fn targets(targets: &[Target], source: Source<'_>, json: bool) -> Result<String, Failure> {
    if json {
        let lines = Lines::new(source);
        let targets: Vec<Value> = targets
            .iter()
            .map(|target| {
                object([
                    ("name", json!(target.name)),
                    ("default", json!(target.is_default)),
                    ("description", json!(target.description)),
                    ("base", json!(target.base)),
                    ("platform", json!(target.platform)),
                    ("location", lines.location(target.span)),
                ])
            })
            .collect();
        return to_json(&json!({ "targets": targets, "sources": [base64(source.bytes)] }));
    }
    let names: Vec<String> = targets
        .iter()
        .map(|target| match (&target.name, target.is_default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.clone().unwrap_or_default(),
        })
        .collect();
    let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
    rows.extend(
        names
            .iter()
            .zip(targets)
            .map(|(name, target)| vec![name.as_str(), target.description.as_str()]),
    );
    Ok(table(&rows, 1))
}

/// What a target takes.
pub(super) fn outline(outline: &Outline, source: Source<'_>, json: bool) -> Result<String, Failure> {
    if json {
        return to_json(&outline_json(outline, source));
    }
    let mut text = String::new();
    if outline.name.is_some() || !outline.description.is_empty() {
        let mut rows = vec![vec!["TARGET:", outline.name.as_deref().unwrap_or("(default)")]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:", &outline.description]);
        }
        text.push_str(&table(&rows, 1));
        text.push('\n');
    }
    if !outline.arguments.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(outline.arguments.iter().map(|argument| {
            let value = argument.value.as_deref().unwrap_or_default();
            vec![argument.name.as_str(), value, argument.description.as_str()]
        }));
        text.push_str(&table(&rows, 3));
        text.push('\n');
    }
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if needs.is_empty() {
            continue;
        }
        let mut rows = vec![vec![title, "REQUIRED"]];
        rows.extend(
            needs
                .iter()
                .map(|need| vec![need.id.as_str(), if need.required { "true" } else { "" }]),
        );
        text.push_str(&table(&rows, 3));
        text.push('\n');
    }
    Ok(text)
}

fn outline_json(outline: &Outline, source: Source<'_>) -> Value {
    let lines = Lines::new(source);
    let arguments: Vec<Value> = outline
        .arguments
        .iter()
        .map(|argument| {
            object([
                ("name", json!(argument.name)),
                ("description", json!(argument.description)),
                ("value", json!(argument.value)),
                ("location", lines.location(argument.span)),
                ("default", json!(argument.default)),
            ])
        })
        .collect();
    let needs = |needs: &[OutlineNeed], key: &str| -> Vec<Value> {
        needs
            .iter()
            .map(|need| {
                object([
                    (key, json!(need.id)),
                    ("required", json!(need.required)),
                    ("location", lines.location(need.span)),
                ])
            })
            .collect()
    };
    object([
        ("name", json!(outline.name)),
        ("description", json!(outline.description)),
        ("args", json!(arguments)),
        ("secrets", json!(needs(&outline.secrets, "name"))),
        ("ssh", json!(needs(&outline.ssh, "name"))),
        ("cache", json!(needs(&outline.caches, "ID"))),
        ("sources", json!([base64(source.bytes)])),
    ])
}

/// The calls that there are.
pub(super) fn describe(json: bool) -> Result<String, Failure> {
    const CALLS: [(&str, &str); 4] = [
        ("outline", "List all parameters current build target supports"),
        ("targets", "List all targets current build supports"),
        ("lint", "Lint a Dockerfile"),
        ("subrequests.describe", "List available subrequest types"),
    ];
    if !json {
        let mut rows = vec![vec!["NAME", "VERSION", "DESCRIPTION"]];
        rows.extend(CALLS.map(|(name, description)| vec![name, "1.0.0", description]));
        return Ok(table(&rows, 1));
    }
    let calls = CALLS.map(|(name, description)| {
        let options =
            (name == "outline").then(|| json!([{ "name": "target", "description": "Target build stage" }]));
        json!({
            "name": format!("frontend.{name}"),
            "version": "1.0.0",
            "type": "rpc",
            "description": description,
            "opts": options,
            "inputs": null,
            "metadata": [
                { "name": "result.json", "description": "" },
                { "name": "result.txt", "description": "" },
            ],
            "refs": null,
        })
    });
    to_json(&json!(calls))
}
