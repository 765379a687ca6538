//! What arguments are made of: words with their places, command lines, here-documents.

use std::ops::Range;

use crate::span::{Span, Spanned};

/// Text that is still to be expanded, or that wants exact places inside it.
///
/// `text` has its continuations removed, so that it may be shorter than its span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The raw text: quotes, escapes and `$` are still in it.
    pub text: String,
    /// Where it stands in the source.
    pub span: Span,
    /// Where text and source part: from `text` offset `.0` on, the source offset is `.1`. Empty when the
    /// text stands in the source unbroken, from `span.start` on.
    pub(crate) breaks: Vec<(usize, usize)>,
}

impl Word {
    /// A word that stands unbroken at `span`, or one (such as a decoded JSON string) that only has its whole
    /// place.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self {
            text: text.into(),
            span,
            breaks: Vec::new(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The place in the source of a byte range of `text`. Never leaves the word's own span.
    pub fn locate(&self, range: Range<usize>) -> Span {
        let start = self.offset(range.start);
        let end = if range.end > range.start {
            self.offset(range.end - 1) + 1
        } else {
            start
        };
        Span::new(start, end.clamp(start, self.span.end.max(start)))
    }

    /// A part of the word, with its own place.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let first = self.breaks.partition_point(|(text, _)| *text <= range.start);
        let last = self
            .breaks
            .partition_point(|(text, _)| *text < range.end)
            .max(first);
        let breaks = self.breaks[first..last]
            .iter()
            .map(|(text, source)| (text - range.start, *source))
            .collect();
        Self {
            span: self.locate(range.clone()),
            text: self.text[range].to_owned(),
            breaks,
        }
    }

    /// The offset in the source of a byte of `text`.
    pub(crate) fn offset(&self, at: usize) -> usize {
        let index = self.breaks.partition_point(|(text, _)| *text <= at);
        let (text, source) = match index.checked_sub(1) {
            Some(index) => self.breaks[index],
            None => (0, self.span.start),
        };
        (source + (at - text)).min(self.span.end)
    }
}

/// What a shell-or-exec instruction runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Shell form: the whole text goes to the shell. Never expanded by the build.
    Shell(Word),
    /// Exec form: a JSON array of strings.
    Exec(Vec<Spanned<String>>),
}

impl CommandLine {
    /// The strings of an exec form.
    pub fn exec(&self) -> Option<Vec<String>> {
        match self {
            Self::Exec(strings) => Some(strings.iter().map(|string| string.value.clone()).collect()),
            Self::Shell(_) => None,
        }
    }
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter word without quotes. Names the file of a COPY.
    pub name: String,
    /// The token (`<<-"EOF"`).
    pub span: Span,
    /// File descriptor written before `<<`; 0 when none is.
    pub fd: u32,
    /// `<<-`: leading tabs are removed.
    pub chomp: bool,
    /// Whether variables are expanded in the body: no part of the delimiter is quoted.
    pub expand: bool,
    /// The body as written, every byte, final newline included. See [`Heredoc::content`].
    pub body: Spanned<String>,
}

impl Heredoc {
    /// The body with leading tabs removed where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.body.value.clone();
        }
        self.body
            .value
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}
