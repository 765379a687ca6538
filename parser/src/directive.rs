//! Parser directives (`# key=value` at the very top) and the options of the build checks.

use crate::ast::{CheckOptions, Directives};
use crate::diagnostic::Diagnostic;
use crate::line::Reader;
use crate::span::{Span, Spanned};
use crate::suggest;

/// Reads the directives at the top; stops in front of the first line that is none.
pub(crate) fn read(reader: &mut Reader<'_>, diagnostics: &mut Vec<Diagnostic>) -> Directives {
    let mut directives = Directives::default();
    if let Some(line) = reader.peek().filter(|line| line.text.starts_with("#!")) {
        reader.take(line);
    }
    while let Some(line) = reader.peek() {
        let text = line.text.trim_start();
        let start = line.start + line.text.len() - text.len();
        let Some((key, value, at)) = text.strip_prefix('#').and_then(split) else {
            break;
        };
        let span = Span::new(start + 1 + at, start + 1 + at + value.len());
        let whole = Span::new(start, start + text.trim_end().len());
        match key.to_ascii_lowercase().as_str() {
            "syntax" => once(&mut directives.syntax, "syntax", whole, span, diagnostics, |_| {
                Some(value.to_owned())
            }),
            "escape" => once(
                &mut directives.escape,
                "escape",
                whole,
                span,
                diagnostics,
                |diagnostics| parse_escape(value, span, diagnostics),
            ),
            "check" => once(
                &mut directives.check,
                "check",
                whole,
                span,
                diagnostics,
                |diagnostics| match check_options(value) {
                    Ok(options) => Some(options),
                    Err(error) => {
                        diagnostics.push(error.at(span));
                        None
                    }
                },
            ),
            _ => break,
        }
        reader.take(line);
    }
    if directives.syntax.is_none() {
        directives.syntax = other_syntax(reader);
    }
    directives
}

/// The head of a file in another language, as JSON.
#[derive(serde::Deserialize)]
struct Header {
    syntax: String,
}

/// A frontend named in the comments of another language (`// syntax=…`) or in JSON (`{"syntax": …}`).
fn other_syntax(reader: &Reader<'_>) -> Option<Spanned<String>> {
    let first = reader.peek()?;
    if first.text.starts_with("//") {
        return slash_syntax(reader);
    }
    // A Dockerfile never begins so, which spares it the look at the whole file.
    if !first.text.trim_start().starts_with('{') {
        return None;
    }
    let header: Header = serde_json::from_str(reader.rest()).ok()?;
    Some(Spanned::new(header.syntax, first.span()))
}

fn slash_syntax(reader: &Reader<'_>) -> Option<Spanned<String>> {
    let mut reader = reader.clone();
    while let Some(line) = reader.peek() {
        let (key, value, at) = line.text.strip_prefix("//").and_then(split)?;
        match key.to_ascii_lowercase().as_str() {
            "syntax" => {
                let start = line.start + 2 + at;
                return Some(Spanned::new(
                    value.to_owned(),
                    Span::new(start, start + value.len()),
                ));
            }
            "escape" | "check" => reader.take(line),
            _ => return None,
        }
    }
    None
}

fn once<T>(
    slot: &mut Option<Spanned<T>>,
    name: &str,
    whole: Span,
    span: Span,
    diagnostics: &mut Vec<Diagnostic>,
    value: impl FnOnce(&mut Vec<Diagnostic>) -> Option<T>,
) {
    if let Some(first) = slot {
        let message = format!("only one {name} parser directive can be used");
        diagnostics.push(Diagnostic::error(whole, message).related(first.span, "the first one is here"));
    } else if let Some(value) = value(diagnostics) {
        *slot = Some(Spanned::new(value, span));
    }
}

fn parse_escape(value: &str, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Option<char> {
    match value {
        "\\" => Some('\\'),
        "`" => Some('`'),
        _ => {
            let error = Diagnostic::error(span, format!("invalid escape character {value:?}"));
            diagnostics.push(error.hint("the escape directive takes a backslash (\\) or a backtick (`)"));
            None
        }
    }
}

/// Splits the text after `#` into key, value and the value's offset.
fn split(text: &str) -> Option<(&str, &str, usize)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let letters = key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !letters || !key.bytes().next()?.is_ascii_alphabetic() {
        return None;
    }
    let offset = text.len() - value.trim_start().len();
    let value = value.trim();
    (!value.is_empty()).then_some((key, value, offset))
}

/// Options in a comment line directly above an instruction.
pub(crate) fn check_comment(comments: &[Spanned<String>]) -> Option<Spanned<CheckOptions>> {
    comments.iter().find_map(|comment| {
        let (key, value, _) = split(&comment.value)?;
        let value = value.split_once(' ').map_or(value, |(value, _)| value);
        let options = key
            .eq_ignore_ascii_case("check")
            .then(|| check_options(value).ok())
            .flatten()?;
        Some(Spanned::new(options, comment.span))
    })
}

/// A bad option of the build checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse check options: invalid check option {option:?}")]
pub struct CheckOptionError {
    option: String,
    hint: Option<String>,
}

impl CheckOptionError {
    /// The error of options that stand at `span`.
    pub fn at(self, span: Span) -> Diagnostic {
        let error = Diagnostic::error(span, self.to_string());
        error.hint(
            self.hint.unwrap_or_else(|| {
                "use skip=<rules>, error=<bool>, experimental=<rules>, joined by ;".into()
            }),
        )
    }
}

/// Parses `skip=…;error=…;experimental=…`, as in the directive and in `BUILDKIT_DOCKERFILE_CHECK`.
pub fn check_options(text: &str) -> Result<CheckOptions, CheckOptionError> {
    let mut options = CheckOptions::default();
    if text.trim().is_empty() {
        return Ok(options);
    }
    for part in text.splitn(3, ';') {
        let error = |hint| CheckOptionError {
            option: part.to_owned(),
            hint,
        };
        let (key, value) = part.split_once('=').ok_or_else(|| error(None))?;
        let value = value.trim();
        let list = || value.split(',').map(|rule| rule.trim().to_owned()).collect();
        match key.trim() {
            "skip" if value == "all" => options.skip_all = true,
            "skip" => options.skip = list(),
            "experimental" if value == "all" => options.experimental_all = true,
            "experimental" => options.experimental = list(),
            "error" => options.error = crate::value::parse_bool(value).ok_or_else(|| error(None))?,
            other => {
                return Err(CheckOptionError {
                    option: other.to_owned(),
                    hint: suggest::hint(other, ["skip", "error", "experimental"]),
                });
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_checks() {
        let options = check_options("skip=A, B;error=true;experimental=all").unwrap();
        assert_eq!(options.skip, ["A", "B"]);
        assert!(options.error && options.experimental_all && !options.skip_all);
        assert!(check_options("skip").is_err());
        assert!(check_options("error=maybe").is_err());
        assert_eq!(
            check_options("skipp=all").unwrap_err().hint.as_deref(),
            Some("did you mean skip?")
        );
        assert_eq!(check_options(" ").unwrap(), CheckOptions::default());
    }

    #[test]
    fn only_known_keys_at_the_top() {
        for (text, syntax, escape) in [
            ("# syntax=a/b:1\n# escape=`\nRUN", Some("a/b:1"), Some('`')),
            ("#SYNTAX = x \nRUN", Some("x"), None),
            ("#!/usr/bin/env kiln\n# escape=`", None, Some('`')),
            ("\u{FEFF}# escape=`", None, Some('`')),
            ("# note\n# escape=`", None, None),
            ("\n# escape=`", None, None),
            ("# other=1\n# escape=`", None, None),
            ("// syntax=a/b\nx", Some("a/b"), None),
            ("// check=skip=all\n//Syntax = a/b x=y \nx", Some("a/b x=y"), None),
            ("// note\n// syntax=a", None, None),
            ("\n// syntax=a", None, None),
            (
                "#!/bin/x\n {\n\"a\": [1], \"syntax\": \"a/b\"}\n",
                Some("a/b"),
                None,
            ),
            ("{\"syntax\": 1}", None, None),
            ("{\"syntax\": \"a\"", None, None),
        ] {
            let mut diagnostics = Vec::new();
            let read = read(&mut Reader::new(text), &mut diagnostics);
            assert_eq!(
                read.syntax.map(|value| value.value).as_deref(),
                syntax,
                "{text:?}"
            );
            assert_eq!(read.escape.map(|value| value.value), escape, "{text:?}");
            assert_eq!(diagnostics, []);
        }
    }
}
