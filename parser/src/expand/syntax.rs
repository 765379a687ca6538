//! Words as parts: text and variables with their operators.

use std::ops::Range;

use super::{ExpandError, ExpandErrorKind};

/// How deeply substitutions may be nested.
pub(super) const MAX_DEPTH: usize = 100;

/// Substitutions in one word. Each takes many times its length in memory.
pub(super) const MAX_SUBSTITUTIONS: usize = 100_000;

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text without its quotes and escapes. `quoted` text is not split at white space.
    Text { text: String, quoted: bool },
    /// A variable.
    Variable(Box<Variable>),
}

impl Part {
    pub(super) fn is_quoted(&self) -> bool {
        match self {
            Self::Text { quoted, .. } => *quoted,
            Self::Variable(variable) => variable.quoted,
        }
    }
}

/// A variable and what is done with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) range: Range<usize>,
    pub(super) quoted: bool,
    pub(super) operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    Plain,
    /// `-`, `+` or `?`, with or without `:`.
    Condition {
        operator: char,
        null_is_unset: bool,
        word: Vec<Part>,
    },
    /// `#`, `##`, `%`, `%%`.
    Trim {
        suffix: bool,
        longest: bool,
        pattern: Vec<Part>,
    },
    /// `/` and `//`.
    Replace {
        all: bool,
        pattern: Vec<Part>,
        replacement: Vec<Part>,
    },
}

/// What a sequence of parts is for, which decides what becomes of escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The escape goes, the next character is literal.
    Value,
    /// The escape becomes a backslash, for the pattern to understand.
    Pattern,
    /// The escape stays.
    Replacement,
}

/// Reads a word. Without `quotes`, quote characters are ordinary.
pub(super) fn parse(word: &str, escape: char, quotes: bool) -> Result<Vec<Part>, ExpandError> {
    let mut parser = Parser {
        word,
        at: 0,
        escape,
        quotes,
        depth: 0,
        substitutions: 0,
    };
    parser.sequence(None, Mode::Value, 0)
}

struct Parser<'a> {
    word: &'a str,
    at: usize,
    escape: char,
    quotes: bool,
    depth: usize,
    substitutions: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.word[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn fail<T>(&self, start: usize, kind: ExpandErrorKind) -> Result<T, ExpandError> {
        Err(ExpandError {
            range: start..self.at,
            kind,
        })
    }

    /// Parts up to `stop`, which is consumed. `start` is where the surrounding substitution began.
    fn sequence(&mut self, stop: Option<char>, mode: Mode, start: usize) -> Result<Vec<Part>, ExpandError> {
        let mut parts = Vec::new();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.next();
                return Ok(parts);
            }
            match character {
                '$' => self.dollar(&mut parts, false)?,
                '\'' if self.quotes => self.single_quoted(&mut parts)?,
                '"' if self.quotes => self.double_quoted(&mut parts, mode)?,
                _ if character == self.escape => {
                    self.next();
                    self.keep_escape(&mut parts, mode);
                    if let Some(escaped) = self.next() {
                        push(&mut parts, escaped, true);
                    }
                }
                _ => {
                    self.next();
                    // With a backtick as escape, a backslash in a pattern is an ordinary character.
                    if mode == Mode::Pattern && character == '\\' {
                        push(&mut parts, '\\', true);
                    }
                    push(&mut parts, character, false);
                }
            }
        }
        match stop {
            None => Ok(parts),
            Some('/') => self.fail(start, ExpandErrorKind::MissingSlash),
            Some(_) => self.fail(start, ExpandErrorKind::MissingBrace),
        }
    }

    fn keep_escape(&self, parts: &mut Vec<Part>, mode: Mode) {
        match mode {
            Mode::Value => {}
            Mode::Pattern => push(parts, '\\', true),
            Mode::Replacement => push(parts, self.escape, true),
        }
    }

    fn single_quoted(&mut self, parts: &mut Vec<Part>) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        while let Some(character) = self.next() {
            if character == '\'' {
                return Ok(());
            }
            push(parts, character, true);
        }
        self.fail(start, ExpandErrorKind::UnterminatedQuote("single"))
    }

    fn double_quoted(&mut self, parts: &mut Vec<Part>, mode: Mode) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        while let Some(character) = self.peek() {
            if character == '$' {
                self.dollar(parts, true)?;
                continue;
            }
            self.next();
            if character == '"' {
                return Ok(());
            }
            if character == self.escape {
                self.keep_escape(parts, mode);
                let next = self.peek();
                if let Some(escaped) = next.filter(|next| matches!(next, '"' | '$') || *next == self.escape) {
                    self.next();
                    push(parts, escaped, true);
                    continue;
                }
            }
            push(parts, character, true);
        }
        self.fail(start, ExpandErrorKind::UnterminatedQuote("double"))
    }

    fn dollar(&mut self, parts: &mut Vec<Part>, quoted: bool) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        self.substitutions += 1;
        if self.substitutions > MAX_SUBSTITUTIONS {
            return self.fail(start, ExpandErrorKind::TooMany);
        }
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                push(parts, '$', quoted);
                return Ok(());
            }
            let variable = Variable {
                name,
                range: start..self.at,
                quoted,
                operator: Operator::Plain,
            };
            parts.push(Part::Variable(Box::new(variable)));
            return Ok(());
        }
        self.next();
        if self.depth == MAX_DEPTH {
            return self.fail(start, ExpandErrorKind::TooDeep);
        }
        self.depth += 1;
        let (name, operator) = self.substitution(start)?;
        self.depth -= 1;
        parts.push(Part::Variable(Box::new(Variable {
            name,
            range: start..self.at,
            quoted,
            operator,
        })));
        Ok(())
    }

    /// The inside of `${…}`, its closing brace included.
    fn substitution(&mut self, start: usize) -> Result<(String, Operator), ExpandError> {
        match self.peek() {
            None => return self.fail(start, ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => {
                self.next();
                return self.fail(start, ExpandErrorKind::BadSubstitution);
            }
            Some(_) => {}
        }
        let name = self.name();
        let Some(character) = self.next() else {
            return self.fail(start, ExpandErrorKind::MissingBrace);
        };
        if name.is_empty() {
            return self.fail(start, modifier("", character));
        }
        let operator = match character {
            '}' => Operator::Plain,
            '-' | '+' | '?' => self.condition(character, false, start)?,
            ':' => match self.next() {
                Some(character @ ('-' | '+' | '?')) => self.condition(character, true, start)?,
                Some(character) => {
                    return self.fail(start, modifier(":", character));
                }
                None => return self.fail(start, ExpandErrorKind::MissingBrace),
            },
            '#' | '%' => {
                let longest = self.peek() == Some(character);
                if longest {
                    self.next();
                }
                let pattern = self.sequence(Some('}'), Mode::Pattern, start)?;
                Operator::Trim {
                    suffix: character == '%',
                    longest,
                    pattern,
                }
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let pattern = self.sequence(Some('/'), Mode::Pattern, start)?;
                let replacement = self.sequence(Some('}'), Mode::Replacement, start)?;
                Operator::Replace {
                    all,
                    pattern,
                    replacement,
                }
            }
            _ => return self.fail(start, modifier("", character)),
        };
        Ok((name, operator))
    }

    fn condition(
        &mut self,
        operator: char,
        null_is_unset: bool,
        start: usize,
    ) -> Result<Operator, ExpandError> {
        let word = self.sequence(Some('}'), Mode::Value, start)?;
        Ok(Operator::Condition {
            operator,
            null_is_unset,
            word,
        })
    }

    /// A variable's name: a number, one special character, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let rest = &self.word[self.at..];
        let Some(first) = rest.chars().next() else {
            return String::new();
        };
        let length = if first.is_numeric() {
            rest.find(|character: char| !character.is_numeric())
                .unwrap_or(rest.len())
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            1
        } else {
            rest.find(|character: char| !character.is_alphanumeric() && character != '_')
                .unwrap_or(rest.len())
        };
        self.at += length;
        rest[..length].to_owned()
    }
}

fn push(parts: &mut Vec<Part>, character: char, is_quoted: bool) {
    match parts.last_mut() {
        Some(Part::Text { text, quoted }) if *quoted == is_quoted => text.push(character),
        _ => parts.push(Part::Text {
            text: character.to_string(),
            quoted: is_quoted,
        }),
    }
}

fn modifier(colon: &str, character: char) -> ExpandErrorKind {
    let shown = if character.is_control() {
        character.escape_default().to_string()
    } else {
        character.to_string()
    };
    ExpandErrorKind::Modifier(format!("{colon}{shown}"))
}
