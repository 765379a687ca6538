//! The line stage: physical lines to logical ones.
//!
//! It knows comments, continuations, blank lines, byte order marks and line ends, and it hands out the bodies
//! of here-documents. It knows no instruction. Every logical line keeps the map back to the source.

use std::borrow::Cow;

use crate::ast::Word;
use crate::span::{Span, Spanned};

/// The source as text of the same length: bytes that are no UTF-8 are replaced one by one.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Offsets of replaced bytes, ascending.
    invalid: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Self {
                text: Cow::Borrowed(text),
                invalid: Vec::new(),
            };
        }
        let mut text = String::with_capacity(bytes.len());
        let mut invalid = Vec::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for _ in chunk.invalid() {
                invalid.push(text.len());
                text.push('?');
            }
        }
        Self {
            text: Cow::Owned(text),
            invalid,
        }
    }

    /// The first byte inside `span` that is no UTF-8.
    pub(crate) fn invalid_in(&self, span: Span) -> Option<usize> {
        let first = self.invalid.partition_point(|offset| *offset < span.start);
        self.invalid
            .get(first)
            .copied()
            .filter(|offset| *offset < span.end)
    }
}

/// A physical line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// Without its line end.
    pub(crate) text: &'a str,
    /// Offset of its first byte.
    pub(crate) start: usize,
    /// Offset of the next line.
    pub(crate) next: usize,
}

impl Line<'_> {
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    /// The text after its leading white space, with its offset.
    fn trimmed(&self) -> (&str, usize) {
        let text = self.text.trim_start();
        (text, self.start + self.text.len() - text.len())
    }
}

/// A logical line: continuations joined, comments dropped.
#[derive(Debug)]
pub(crate) struct LogicalLine {
    /// Its text, outer white space trimmed; never empty.
    pub(crate) line: Word,
    /// Comment lines above, since the instruction before or the last bare `#`.
    pub(crate) comments: Vec<Spanned<String>>,
    /// The first blank line inside it.
    pub(crate) blank: Option<Span>,
}

/// What ended the search for the terminator of a here-document.
#[derive(Debug)]
pub(crate) enum Body {
    /// It was found: the body, and the end of the terminator's line.
    Closed(Span, usize),
    /// It was not; `near` is a line that would do without its outer white space.
    Open {
        /// Such a line.
        near: Option<Span>,
    },
}

/// Reads lines from the top to the bottom.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: if text.starts_with('\u{FEFF}') {
                '\u{FEFF}'.len_utf8()
            } else {
                0
            },
        }
    }

    /// The next physical line, not consumed.
    pub(crate) fn peek(&self) -> Option<Line<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let text = rest[..length].trim_end_matches(['\r', '\n']);
        Some(Line {
            text,
            start: self.at,
            next: self.at + length,
        })
    }

    /// Everything that was not taken yet.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes a line that was peeked at.
    pub(crate) fn take(&mut self, line: Line<'_>) {
        self.at = line.next;
    }

    /// Skips everything up to the end of the line that holds `offset`.
    pub(crate) fn skip_past_line(&mut self, offset: usize) {
        self.at = offset;
        if let Some(line) = self.peek() {
            self.take(line);
        }
    }

    /// Skips the rest.
    pub(crate) fn skip_rest(&mut self) {
        self.at = self.text.len();
    }

    /// The next logical line. `comments` are those already seen.
    pub(crate) fn logical_line(
        &mut self,
        escape: char,
        mut comments: Vec<Spanned<String>>,
    ) -> Option<LogicalLine> {
        while let Some(line) = self.peek() {
            self.take(line);
            let (text, start) = line.trimmed();
            if let Some(comment) = text.strip_prefix('#') {
                let comment = comment.trim();
                if comment.is_empty() {
                    comments.clear();
                } else {
                    comments.push(Spanned::new(
                        comment.to_owned(),
                        Span::new(start, start + text.trim_end().len()),
                    ));
                }
                continue;
            }
            // Docker lets blank lines stand between a comment and its instruction; only a bare `#` ends it.
            if text.is_empty() {
                continue;
            }
            let (line, blank) = self.join(text, start, escape);
            if !line.text.is_empty() {
                return Some(LogicalLine {
                    line,
                    comments,
                    blank,
                });
            }
            comments.clear();
        }
        None
    }

    fn join(&mut self, first: &str, start: usize, escape: char) -> (Word, Option<Span>) {
        let mut line = Word::new("", Span::new(start, start));
        let mut blank = None;
        let mut open = append(&mut line, first, start, escape);
        while open && let Some(next) = self.peek() {
            self.take(next);
            let (text, _) = next.trimmed();
            if text.starts_with('#') {
                continue;
            }
            if text.is_empty() {
                blank = blank.or(Some(next.span()));
                continue;
            }
            open = append(&mut line, next.text, next.start, escape);
        }
        let text = line.text.trim_start();
        let skipped = line.text.len() - text.len();
        let end = skipped + text.trim_end().len();
        let trimmed = if skipped == 0 && end == line.text.len() {
            line
        } else {
            line.slice(skipped..end)
        };
        (trimmed, blank)
    }

    /// Reads the body of a here-document. An open one consumes nothing.
    pub(crate) fn body(&mut self, name: &str, chomp: bool) -> Body {
        let start = self.at;
        let mut near = None;
        while let Some(line) = self.peek() {
            self.take(line);
            let text = if chomp {
                line.text.trim_start_matches('\t')
            } else {
                line.text
            };
            if text == name {
                return Body::Closed(Span::new(start, line.start), line.span().end);
            }
            if near.is_none() && text.trim() == name {
                near = Some(line.span());
            }
        }
        self.at = start;
        Body::Open { near }
    }
}

/// Appends a physical line; whether it is continued. An odd number of escape characters before the trailing
/// blanks continues it.
fn append(line: &mut Word, text: &str, start: usize, escape: char) -> bool {
    let bare = text.trim_end_matches([' ', '\t']);
    let escapes = bare
        .chars()
        .rev()
        .take_while(|character| *character == escape)
        .count();
    let open = escapes % 2 == 1;
    let text = if open {
        &bare[..bare.len() - escape.len_utf8()]
    } else {
        text
    };
    if !text.is_empty() {
        if line.text.is_empty() {
            line.span.start = start;
        } else {
            line.breaks.push((line.text.len(), start));
        }
        line.text.push_str(text);
        line.span.end = start + text.len();
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, escape: char) -> Vec<String> {
        let mut reader = Reader::new(text);
        std::iter::from_fn(|| reader.logical_line(escape, Vec::new()))
            .map(|line| line.line.text)
            .collect()
    }

    #[test]
    fn continuation_depends_on_parity() {
        for (text, expected) in [
            ("RUN a \\\nb", vec!["RUN a b"]),
            ("RUN a \\  \t\nb", vec!["RUN a b"]),
            ("RUN a \\\\\nb", vec!["RUN a \\\\", "b"]),
            ("RUN a \\\\\\\nb", vec!["RUN a \\\\b"]),
            ("RUN a \\\r\n  b\r\nRUN c", vec!["RUN a   b", "RUN c"]),
            ("RUN a \\\n# gone \\\n  # gone too\n\nb\nc", vec!["RUN a b", "c"]),
            ("  RUN a \\", vec!["RUN a"]),
            ("\\\n\\\nRUN a", vec!["RUN a"]),
            ("\\\n", vec![]),
            ("\u{FEFF}RUN a", vec!["RUN a"]),
            ("RUN a # b", vec!["RUN a # b"]),
        ] {
            assert_eq!(lines(text, '\\'), expected, "{text:?}");
        }
        assert_eq!(lines("RUN a `\nb \\\nc", '`'), ["RUN a b \\", "c"]);
    }

    #[test]
    fn offsets_lead_back_to_the_source() {
        let text = "RUN one \\\n  two \\\n# no\n three";
        let line = Reader::new(text).logical_line('\\', Vec::new()).unwrap().line;
        for word in ["RUN", "one", "two", "three"] {
            let at = line.text.find(word).unwrap();
            let span = line.locate(at..at + word.len());
            assert_eq!(&text[span.start..span.end], word);
            let part = line.slice(at..line.text.len());
            assert_eq!(&text[part.locate(0..word.len()).start..][..word.len()], word);
        }
        assert_eq!(line.span, Span::new(0, text.len()));
    }

    #[test]
    fn foreign_bytes_keep_their_places() {
        let source = Source::new(b"a\xffb\xc3");
        assert_eq!(source.text, "a?b?");
        assert_eq!(source.invalid_in(Span::new(0, 4)), Some(1));
        assert_eq!(source.invalid_in(Span::new(2, 4)), Some(3));
        assert_eq!(source.invalid_in(Span::new(2, 3)), None);
    }
}
