//! Words get their values: the parser's expansion with an [`Environment`] and errors at their places.

use std::borrow::Cow;

use kiln_parser::ast::{Heredoc, Word};
use kiln_parser::expand::{ExpandError, ExpandErrorKind, Lookup, expand, expand_heredoc, expand_words};
use kiln_parser::{Diagnostic, Span};

use crate::budget::Budget;
use crate::environment::Environment;

impl Lookup for Environment {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Environment::get(self, name).map(Cow::Borrowed)
    }
}

/// Expands words with the escape character of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expander<'a> {
    escape: char,
    budget: &'a Budget,
}

impl<'a> Expander<'a> {
    /// An expander for a file with this escape character. What it makes is charged to the budget.
    pub(crate) fn new(escape: char, budget: &'a Budget) -> Self {
        Self { escape, budget }
    }

    /// What the whole file may come to.
    pub(crate) fn budget(self) -> &'a Budget {
        self.budget
    }

    /// The value of a word.
    pub(crate) fn word(self, word: &Word, environment: &Environment) -> Result<String, Diagnostic> {
        let value = expand(word.as_str(), environment, self.escape)
            .map(|expansion| expansion.value)
            .map_err(|error| diagnostic(word, error))?;
        self.budget.charge(value.len(), word.span)?;
        Ok(value)
    }

    /// The value of a word, split at white space.
    pub(crate) fn words(self, word: &Word, environment: &Environment) -> Result<Vec<String>, Diagnostic> {
        let words = expand_words(word.as_str(), environment, self.escape)
            .map(|expansion| expansion.words)
            .map_err(|error| diagnostic(word, error))?;
        self.budget
            .charge(words.iter().map(String::len).sum(), word.span)?;
        Ok(words)
    }

    /// The variables of a word that have no value.
    pub(crate) fn undefined(self, word: &Word, environment: &Environment) -> Vec<String> {
        expand(word.as_str(), environment, self.escape)
            .map(|expansion| expansion.undefined.into_iter().collect())
            .unwrap_or_default()
    }

    /// A line of text for people, with its variables expanded. Text that cannot be expanded stays as it is.
    pub(crate) fn text(self, text: &str, environment: &Environment) -> String {
        let expansion = expand(text, environment, self.escape).ok();
        expansion
            .filter(|expansion| self.budget.charge(expansion.value.len(), Span::default()).is_ok())
            .map_or_else(|| text.to_owned(), |expansion| expansion.value)
    }
}

/// The text of a here-document that becomes a file. Its escape character never changes.
pub(crate) fn heredoc(
    heredoc: &Heredoc,
    environment: &Environment,
    budget: &Budget,
) -> Result<String, Diagnostic> {
    let content = heredoc.content();
    if !heredoc.expand {
        return Ok(content);
    }
    let value = expand_heredoc(&content, environment)
        .map(|expansion| expansion.value)
        .map_err(|error| {
            Diagnostic::error(
                heredoc.body.span,
                format!("in the here-document {}: {error}", heredoc.name),
            )
        })?;
    budget.charge(value.len(), heredoc.body.span)?;
    Ok(value)
}

fn diagnostic(word: &Word, error: ExpandError) -> Diagnostic {
    let message = match &error.kind {
        ExpandErrorKind::Required { .. } => error.to_string(),
        _ => format!("failed to expand {}: {error}", word.as_str()),
    };
    Diagnostic::error(word.locate(error.range), message)
}
