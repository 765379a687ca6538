//! What a build found that did not stop it.

use std::fmt::Write as _;
use std::io::Write as _;

use kiln_parser::{Diagnostic, LineIndex};

use super::text::shorten;

/// Warnings that are shown; the rest is counted.
const MOST_WARNINGS: usize = 100;

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
