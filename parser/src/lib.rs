//! The Dockerfile language: text in, typed tree and diagnostics out.
//!
//! `parse` never fails: it yields a [`ast::Dockerfile`] and every error and warning found. It works in
//! stages: lines (directives, comments, continuations, heredoc bodies), then a grammar for each logical
//! line, then a typed instruction. `expand` gives words their values, `ignore` decides which
//! files of a context count.

pub mod ast;
pub mod diagnostic;
pub mod instruction;
pub mod mount;
pub mod span;

pub use ast::Dockerfile;
pub use diagnostic::{Diagnostic, Severity};
pub use span::{LineIndex, Position, Span, Spanned};

/// What `parse` yields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// Everything that could be understood.
    pub dockerfile: Dockerfile,
    /// Everything that is wrong, in source order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether any diagnostic is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}
