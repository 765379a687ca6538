//! Word expansion: quotes, escapes and variables of a raw word become its value.
//!
//! A word is first read into parts (its syntax errors do not depend on any value), then evaluated. Nesting and
//! the length of results are bounded, so that no input can exhaust stack or memory.

mod pattern;
mod syntax;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use pattern::Pattern;
use syntax::{Operator, Part, Variable};

/// The longest value that an expansion may have. No program can be given a variable of more than 128 KiB; here-documents
/// are files.
pub const MAX_LENGTH: usize = 16 << 20;

/// Bytes of all values together that the evaluation of a word may look up or make. Nested substitutions hold many
/// at a time, and what a pattern throws away was made too.
const MAX_WORK: usize = 4 * MAX_LENGTH;

/// Gives variables their values.
pub trait Lookup {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl<S: std::hash::BuildHasher> Lookup for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        HashMap::get(self, name).map(Cow::from)
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        BTreeMap::get(self, name).map(Cow::from)
    }
}

/// Later entries win, as in a list of environment variables.
impl Lookup for [(String, String)] {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| Cow::from(value))
    }
}

impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self(name).map(Cow::from)
    }
}

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The value.
    pub value: String,
    /// Variables that were looked up and are set.
    pub used: BTreeSet<String>,
    /// Variables that were looked up, are not set, and for which no operator provides.
    pub undefined: BTreeSet<String>,
}

/// A word that was expanded and then split at white space outside of quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WordsExpansion {
    /// The words. None of them is empty.
    pub words: Vec<String>,
    /// Variables that were looked up and are set.
    pub used: BTreeSet<String>,
    /// Variables that were looked up, are not set, and for which no operator provides.
    pub undefined: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// The offending bytes of the word.
    pub range: Range<usize>,
    /// What is wrong.
    pub kind: ExpandErrorKind,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote without its partner.
    #[error("unterminated {0} quote")]
    UnterminatedQuote(&'static str),
    /// `${x` without `}`.
    #[error("missing }} in variable substitution")]
    MissingBrace,
    /// `${x/a` without the second slash.
    #[error("missing / between pattern and replacement in variable substitution")]
    MissingSlash,
    /// `${}`, `${:}`, `${{`.
    #[error("bad substitution: a variable name is missing")]
    BadSubstitution,
    /// An operator that does not exist.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// Substitutions nested too deeply.
    #[error("substitutions are nested more than {} deep", syntax::MAX_DEPTH)]
    TooDeep,
    /// Too many substitutions in one word.
    #[error("a word has more than {} substitutions", syntax::MAX_SUBSTITUTIONS)]
    TooMany,
    /// A pattern with an escape of something that needs none.
    #[error("invalid escape \\{0} in pattern")]
    InvalidEscape(char),
    /// `${x?message}` of an unset variable, or `${x:?message}` of an unset or empty one.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message of the word, or a standard one.
        message: String,
    },
    /// The value would be longer than [`MAX_LENGTH`].
    #[error("the value is longer than {} MiB", MAX_LENGTH >> 20)]
    TooLong,
    /// Matching would take too long.
    #[error("the pattern takes too long to match")]
    TooExpensive,
}

/// Expands a word.
pub fn expand(word: &str, lookup: &(impl Lookup + ?Sized), escape: char) -> Result<Expansion, ExpandError> {
    evaluate(&syntax::parse(word, escape, true)?, lookup)
}

/// Expands the body of a here-document: quote characters stay, and the escape character is always a backslash.
pub fn expand_heredoc(body: &str, lookup: &(impl Lookup + ?Sized)) -> Result<Expansion, ExpandError> {
    evaluate(&syntax::parse(body, '\\', false)?, lookup)
}

/// Expands a word and splits the result at white space outside of quotes (EXPOSE).
pub fn expand_words(
    word: &str,
    lookup: &(impl Lookup + ?Sized),
    escape: char,
) -> Result<WordsExpansion, ExpandError> {
    let parts = syntax::parse(word, escape, true)?;
    let mut evaluation = Evaluation::new(lookup);
    let mut words = Vec::new();
    let mut current = String::new();
    for part in &parts {
        let text = evaluation.text(std::slice::from_ref(part))?;
        if part.is_quoted() {
            current.push_str(&text);
            continue;
        }
        for character in text.chars() {
            if !character.is_whitespace() {
                current.push(character);
            } else if !current.is_empty() {
                words.push(std::mem::take(&mut current));
            }
        }
    }
    if !current.is_empty() {
        words.push(current);
    }
    Ok(WordsExpansion {
        words,
        used: evaluation.used,
        undefined: evaluation.undefined,
    })
}

/// Checks the syntax of a word, which does not depend on the values of variables.
pub fn check(word: &str, escape: char) -> Result<(), ExpandError> {
    syntax::parse(word, escape, true).map(drop)
}

/// Checks the syntax of a here-document's body.
pub(crate) fn check_heredoc(body: &str) -> Result<(), ExpandError> {
    syntax::parse(body, '\\', false).map(drop)
}

/// The variables that a word may look at, in order, each once.
pub fn variables(word: &str, escape: char) -> Result<Vec<String>, ExpandError> {
    Ok(mentions(word, escape)?
        .into_iter()
        .map(|(name, _)| name)
        .collect())
}

/// The same, each with the place of its first use in the word.
pub fn mentions(word: &str, escape: char) -> Result<Vec<(String, Range<usize>)>, ExpandError> {
    Ok(mentioned(&syntax::parse(word, escape, true)?))
}

/// The same for the body of a here-document.
pub fn mentions_in_heredoc(body: &str) -> Result<Vec<(String, Range<usize>)>, ExpandError> {
    Ok(mentioned(&syntax::parse(body, '\\', false)?))
}

fn mentioned(parts: &[Part]) -> Vec<(String, Range<usize>)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    collect(parts, &mut |variable| {
        if seen.insert(variable.name.clone()) {
            found.push((variable.name.clone(), variable.range.clone()));
        }
    });
    found
}

/// Whether a word refers to any variable.
pub(crate) fn has_variables(word: &str, escape: char) -> bool {
    word.contains('$') && variables(word, escape).is_ok_and(|names| !names.is_empty())
}

fn collect(parts: &[Part], found: &mut impl FnMut(&Variable)) {
    // Depth is bounded by the parser, so that recursion is too. A trait object keeps the type finite.
    fn walk(parts: &[Part], found: &mut dyn FnMut(&Variable)) {
        for part in parts {
            if let Part::Variable(variable) = part {
                found(variable);
                match &variable.operator {
                    Operator::Plain => {}
                    Operator::Condition { word, .. } => walk(word, found),
                    Operator::Trim { pattern, .. } => walk(pattern, found),
                    Operator::Replace {
                        pattern, replacement, ..
                    } => {
                        walk(pattern, found);
                        walk(replacement, found);
                    }
                }
            }
        }
    }
    walk(parts, found);
}

fn evaluate(parts: &[Part], lookup: &(impl Lookup + ?Sized)) -> Result<Expansion, ExpandError> {
    let mut evaluation = Evaluation::new(lookup);
    let value = evaluation.text(parts)?;
    Ok(Expansion {
        value,
        used: evaluation.used,
        undefined: evaluation.undefined,
    })
}

struct Evaluation<'a, L: ?Sized> {
    lookup: &'a L,
    used: BTreeSet<String>,
    undefined: BTreeSet<String>,
    /// Comparisons left for all patterns of the word.
    budget: u64,
    /// Bytes left of [`MAX_WORK`].
    work: usize,
}

impl<'a, L: Lookup + ?Sized> Evaluation<'a, L> {
    fn new(lookup: &'a L) -> Self {
        Self {
            lookup,
            used: BTreeSet::new(),
            undefined: BTreeSet::new(),
            budget: 1 << 26,
            work: MAX_WORK,
        }
    }

    fn text(&mut self, parts: &[Part]) -> Result<String, ExpandError> {
        let mut result = String::new();
        for part in parts {
            match part {
                Part::Text { text, .. } => result.push_str(text),
                Part::Variable(variable) => {
                    let value = self.variable(variable)?;
                    self.charge(value.len(), variable)?;
                    if result.len() + value.len() > MAX_LENGTH {
                        return Err(too_long(variable));
                    }
                    result.push_str(&value);
                }
            }
        }
        Ok(result)
    }

    fn charge(&mut self, bytes: usize, variable: &Variable) -> Result<(), ExpandError> {
        self.work = self.work.checked_sub(bytes).ok_or_else(|| too_long(variable))?;
        Ok(())
    }

    fn variable(&mut self, variable: &Variable) -> Result<Cow<'a, str>, ExpandError> {
        let value = self.lookup.get(&variable.name);
        self.charge(value.as_ref().map_or(0, |value| value.len()), variable)?;
        if value.is_some() {
            self.used.insert(variable.name.clone());
        } else if !matches!(variable.operator, Operator::Condition { .. }) {
            self.undefined.insert(variable.name.clone());
        }
        let fail = |kind| ExpandError {
            range: variable.range.clone(),
            kind,
        };
        match &variable.operator {
            Operator::Plain => Ok(value.unwrap_or_default()),
            Operator::Condition {
                operator,
                null_is_unset,
                word,
            } => {
                let present = value.filter(|value| !(*null_is_unset && value.is_empty()));
                match (operator, present) {
                    ('+', Some(_)) | ('-', None) => self.text(word).map(Cow::from),
                    ('+', None) => Ok(Cow::Borrowed("")),
                    (_, Some(value)) => Ok(value),
                    (_, None) => {
                        let standard = if self.lookup.get(&variable.name).is_some() {
                            "empty"
                        } else {
                            "unset"
                        };
                        let message = Some(self.text(word)?).filter(|message| !message.is_empty());
                        let message = message.unwrap_or_else(|| format!("is not allowed to be {standard}"));
                        Err(fail(ExpandErrorKind::Required {
                            name: variable.name.clone(),
                            message,
                        }))
                    }
                }
            }
            Operator::Trim {
                suffix,
                longest,
                pattern,
            } => {
                let pattern = Pattern::parse(&self.text(pattern)?).map_err(fail)?;
                let value = value.unwrap_or_default();
                let trimmed = pattern
                    .trim(&value, *suffix, *longest, &mut self.budget)
                    .map_err(fail)?;
                Ok(Cow::Owned(trimmed))
            }
            Operator::Replace {
                all,
                pattern,
                replacement,
            } => {
                let pattern = Pattern::parse(&self.text(pattern)?).map_err(fail)?;
                let replacement = self.text(replacement)?;
                let value = value.unwrap_or_default();
                let replaced = pattern
                    .replace(&value, &replacement, *all, &mut self.budget)
                    .map_err(fail)?;
                Ok(Cow::Owned(replaced))
            }
        }
    }
}

fn too_long(variable: &Variable) -> ExpandError {
    ExpandError {
        range: variable.range.clone(),
        kind: ExpandErrorKind::TooLong,
    }
}

#[cfg(test)]
mod tests;
