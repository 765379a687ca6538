//! Errors and warnings with their places, and their plain-text form.

use crate::span::{LineIndex, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file cannot be built.
    Error,
    /// A check that found something.
    Warning,
}

/// A further place that has to do with a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub span: Span,
    /// What is there.
    pub message: String,
}

/// One finding about a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the build check (`NoEmptyContinuation`, …). Warnings always have one, errors never.
    pub rule: Option<&'static str>,
    /// What is wrong: one lowercase fragment.
    pub message: String,
    /// Where.
    pub span: Span,
    /// The whole of the instruction, when `span` is a part of it. Boxed, since diagnostics are returned as errors.
    pub within: Option<Box<Span>>,
    /// Other places that matter.
    pub related: Vec<Related>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            span,
            within: None,
            related: Vec::new(),
            hint: None,
        }
    }

    /// A finding of the check `rule` at `span`.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            rule: Some(rule),
            ..Self::error(span, message)
        }
    }

    /// Names the instruction that it stands in.
    #[must_use]
    pub fn within(mut self, instruction: Span) -> Self {
        self.within = Some(Box::new(instruction));
        self
    }

    /// The place whose lines are shown where no columns are: the whole instruction if it is known.
    pub fn extent(&self) -> Span {
        self.within.as_deref().copied().unwrap_or(self.span)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push(Related {
            span,
            message: message.into(),
        });
        self
    }

    /// Whether the file cannot be built because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Lines shown above and below the failing ones.
const CONTEXT: usize = 2;
/// Failing lines shown of one place; the middle of more is left out.
const LONGEST: usize = 8;
/// Characters shown of one line.
const WIDEST: usize = 160;

/// The diagnostic as plain text: message, `file:line`, the lines around with `>>>` in front of the failing ones
/// and the place underlined, then the hint.
///
/// It is a pure function of its arguments and uses no colour.
pub fn render(diagnostic: &Diagnostic, source: &[u8], file: &str) -> String {
    render_indexed(diagnostic, source, &LineIndex::new(source), file)
}

/// The same with the index of the source's lines, for who shows several.
pub fn render_indexed(diagnostic: &Diagnostic, source: &[u8], index: &LineIndex, file: &str) -> String {
    let mut text = String::new();
    let kind = match (diagnostic.severity, diagnostic.rule) {
        (Severity::Error, _) => "error".to_owned(),
        (Severity::Warning, rule) => format!("warning: {}", rule.unwrap_or("check")),
    };
    append(&mut text, format_args!("{kind}: {}\n", diagnostic.message));
    excerpt(&mut text, diagnostic.span, source, index, file);
    for related in &diagnostic.related {
        append(&mut text, format_args!("note: {}\n", related.message));
        excerpt(&mut text, related.span, source, index, file);
    }
    if let Some(hint) = &diagnostic.hint {
        append(&mut text, format_args!("hint: {hint}\n"));
    }
    text
}

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = std::fmt::Write::write_fmt(text, line);
}

fn excerpt(text: &mut String, span: Span, source: &[u8], index: &LineIndex, file: &str) {
    let (first, last) = index.lines(span);
    let rule = "-".repeat(20);
    append(text, format_args!("{file}:{first}\n{rule}\n"));
    let total = index.count() - usize::from(source.is_empty() || source.ends_with(b"\n"));
    let shown = first.saturating_sub(CONTEXT).max(1)..=(last + CONTEXT).min(total.max(last));
    let mut skipped = false;
    for number in shown {
        let failing = (first..=last).contains(&number);
        if failing && last - first >= LONGEST && (first + LONGEST / 2..=last - LONGEST / 2).contains(&number)
        {
            if !skipped {
                text.push_str("     | >>> …\n");
            }
            skipped = true;
            continue;
        }
        let line = index.text(source, number);
        let marker = if failing { ">>>" } else { "   " };
        let view = View::new(line, index.start(number), span);
        let shown = format!("{number:4} | {marker} {}", view.text);
        text.push_str(shown.trim_end());
        text.push('\n');
        if failing && let Some((column, width)) = view.mark {
            append(
                text,
                format_args!("     | {:3} {}{}\n", "", " ".repeat(column), "^".repeat(width)),
            );
        }
    }
    text.push_str(&rule);
    text.push('\n');
}

/// What is shown of a line, and which columns of it are marked.
struct View {
    text: String,
    mark: Option<(usize, usize)>,
}

impl View {
    fn new(line: &[u8], start: usize, span: Span) -> Self {
        let from = span.start.saturating_sub(start).min(line.len());
        let to = span.end.saturating_sub(start).min(line.len()).max(from);
        // Leading blanks of later lines are not part of what is wrong.
        let blanks = line[from..to]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let from = if span.start < start { from + blanks } else { from };
        // Only a window around the start is decoded: a line may be of any length.
        let window = from.saturating_sub(WIDEST / 2)..(from + WIDEST).min(line.len());
        let cut = from > WIDEST;
        let window = if cut { window } else { 0..window.end };
        let columns = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&line[range])
                .chars()
                .map(|character| if character.is_control() { ' ' } else { character })
                .collect::<String>()
        };
        let before = columns(window.start..from);
        let marked = columns(from..to.clamp(from, window.end));
        let after = columns(to.clamp(from, window.end)..window.end);
        let lead = if cut { "…" } else { "" };
        let tail = if window.end < line.len() { "…" } else { "" };
        let column = before.chars().count() + lead.chars().count();
        let width = marked.chars().count().max(1);
        let mark = (span.start >= start || to > from).then_some((column, width));
        Self {
            text: format!("{lead}{before}{marked}{after}{tail}"),
            mark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_marked_and_underlined() {
        let source = b"FROM a\nRUN x\nCOPYY . .\nRUN y\nRUN z\nRUN w\n";
        let diagnostic =
            Diagnostic::error(Span::new(13, 18), "unknown instruction COPYY").hint("did you mean COPY?");
        let expected = "\
error: unknown instruction COPYY
Dockerfile:3
--------------------
   1 |     FROM a
   2 |     RUN x
   3 | >>> COPYY . .
     |     ^^^^^
   4 |     RUN y
   5 |     RUN z
--------------------
hint: did you mean COPY?
";
        assert_eq!(render(&diagnostic, source, "Dockerfile"), expected);
    }

    #[test]
    fn any_span_of_any_source_can_be_shown() {
        for source in [
            b"".as_slice(),
            b"\n",
            b"a\xffb\r\n\tc",
            "é".repeat(5000).as_bytes(),
        ] {
            for start in (0..=source.len()).step_by(1 + source.len() / 40) {
                for end in [start, start + 1, source.len(), source.len() + 7] {
                    let text = render(&Diagnostic::error(Span::new(start, end), "x"), source, "f");
                    assert!(text.starts_with("error: x\nf:"));
                    assert!(text.len() < 4000);
                }
            }
        }
        let long = Diagnostic::error(Span::new(0, 2000), "x");
        assert!(render(&long, &b"a\n".repeat(1000), "f").lines().count() < 40);
    }
}
