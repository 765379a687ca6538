//! The Dockerfile language: text in, typed tree and diagnostics out.
//!
//! [`parse()`] never fails: it yields a [`ast::Dockerfile`] and every error and warning found. It works in
//! stages: lines (directives, comments, continuations, heredoc bodies), then a grammar for each logical
//! line, then a typed instruction. [`expand`] gives words their values, [`ignore`] decides which files of a
//! context count.

pub mod ast;
pub mod diagnostic;
pub mod directive;
pub mod expand;
mod grammar;
pub mod instruction;
mod line;
pub mod lint;
pub mod mount;
mod parse;
pub mod rules;
pub mod span;
pub mod suggest;
pub mod syntax;
pub mod value;

pub use ast::Dockerfile;
pub use diagnostic::{Diagnostic, Severity, render, render_indexed};
pub use kiln_tree::ignore;
pub use parse::{parse, parse_instruction};
pub use span::{LineIndex, Position, Span, Spanned};

/// What [`parse()`] yields.
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

/// What [`parse_instruction()`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedInstruction {
    /// The instruction, if it could be understood.
    pub statement: Option<ast::Statement>,
    /// Everything that is wrong. Spans refer to the text that was given.
    pub diagnostics: Vec<Diagnostic>,
}
