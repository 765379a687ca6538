//! Places in the source text: byte spans, and their lines and columns.

use serde::{Deserialize, Serialize};

/// A half-open range of byte offsets into the original source, as it was read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// The span from `start` up to but without `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self::new(self.start.min(other.start), self.end.max(other.end))
    }

    /// Number of bytes.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether the span covers no byte.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A value and the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the source.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Puts a value and its place together.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A line and a column, both counted from one. Columns count characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// The starts of all lines of a source, to turn byte offsets into lines.
#[derive(Debug, Clone)]
pub struct LineIndex {
    starts: Vec<usize>,
}

impl LineIndex {
    /// Indexes the lines of `source`.
    pub fn new(source: &[u8]) -> Self {
        let ends = source.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        Self {
            starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect(),
        }
    }

    /// The line (from 1) that holds the byte at `offset`; offsets after the end give the last line.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    /// Line and column of `offset` in the `source` that this index was made from.
    pub fn position(&self, source: &[u8], offset: usize) -> Position {
        let offset = offset.min(source.len());
        let line = self.line(offset);
        let start = self.start(line);
        // Continuation bytes of a UTF-8 sequence do not start a character.
        let column = source[start..offset]
            .iter()
            .filter(|byte| **byte & 0xC0 != 0x80)
            .count();
        Position {
            line,
            column: column + 1,
        }
    }

    /// The first and the last line (from 1) that `span` touches.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let first = self.line(span.start);
        let last = if span.is_empty() {
            first
        } else {
            self.line(span.end - 1)
        };
        (first, last.max(first))
    }

    /// Offset of the first byte of a line (from 1).
    pub fn start(&self, line: usize) -> usize {
        self.starts
            .get(line.saturating_sub(1))
            .or(self.starts.last())
            .copied()
            .unwrap_or(0)
    }

    /// Number of lines; a final newline starts no further line unless text follows.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The bytes of a line (from 1) without its line end.
    pub fn text<'a>(&self, source: &'a [u8], line: usize) -> &'a [u8] {
        let start = self.start(line).min(source.len());
        let rest = &source[start..];
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let text = &rest[..end];
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}
