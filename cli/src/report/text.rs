//! Errors in words: with their causes, short enough to be read, and harmless to a terminal.

use std::error::Error;
use std::fmt::Write as _;

use crate::progress::visible;

/// Bytes of a message that are shown: one may quote what is wrong, of any length.
const LONGEST: usize = 4096;

/// The start of a text, as much of it as a reader can use.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    match text.floor_char_boundary(LONGEST) {
        end if end < text.len() => format!("{}…", &text[..end]).into(),
        _ => text.into(),
    }
}

/// Text of several lines that leaves the terminal as it is: parts of it may come from anywhere.
pub(super) fn visible_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| visible(line.as_bytes())).collect();
    lines.join("\n")
}

/// An error with its causes, in one line, without saying anything twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = reason(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = reason(&source.to_string());
        if !text.to_lowercase().contains(&source_text.to_lowercase()) {
            let _ = write!(text, ": {source_text}");
        }
        next = source.source();
    }
    text
}

/// A message without what only programmers read: the number of a system error, the class of an HTTP error.
pub(super) fn reason(message: &str) -> String {
    let message = message.trim_end();
    let message = message
        .strip_prefix("io: ")
        .or(message.strip_prefix("other: "))
        .unwrap_or(message);
    let Some((before, rest)) = message.split_once(" (os error ") else {
        return message.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}
