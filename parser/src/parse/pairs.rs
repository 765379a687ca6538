//! `key=value` instructions: ENV, LABEL, ARG.

use super::{Context, Parts, shorten};
use crate::ast::{Arg, ArgDeclaration, Env, KeyValue, Label, Word};
use crate::grammar;
use crate::instruction::Keyword;

impl Context<'_> {
    pub(super) fn env(&mut self, parts: &Parts) -> Option<Env> {
        self.pairs(parts).map(|(pairs, legacy)| Env { pairs, legacy })
    }

    pub(super) fn label(&mut self, parts: &Parts) -> Option<Label> {
        self.pairs(parts).map(|(pairs, legacy)| Label { pairs, legacy })
    }

    pub(super) fn arg(&mut self, parts: &Parts) -> Option<Arg> {
        let errors = self.diagnostics.len();
        let mut declarations = Vec::new();
        for word in self.quoted_words(&parts.arguments) {
            let (name, default) = match word.text.find('=') {
                Some(0) => {
                    self.blank_name(Keyword::Arg, &word);
                    continue;
                }
                Some(at) => (word.slice(0..at), Some(word.slice(at + 1..word.text.len()))),
                None => (word, None),
            };
            self.check(&name);
            if let Some(default) = &default {
                self.check(default);
            }
            declarations.push(ArgDeclaration { name, default });
        }
        (self.diagnostics.len() == errors).then_some(Arg { declarations })
    }

    /// The pairs, and whether they are in the legacy form, which the first word decides.
    fn pairs(&mut self, parts: &Parts) -> Option<(Vec<KeyValue>, bool)> {
        let words = self.quoted_words(&parts.arguments);
        let keyword = parts.keyword.value;
        if !words.first()?.text.contains('=') {
            return self.legacy(parts).map(|pair| (vec![pair], true));
        }
        let errors = self.diagnostics.len();
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            match word.text.find('=') {
                Some(0) => self.blank_name(keyword, &word),
                Some(at) => {
                    let pair = KeyValue {
                        key: word.slice(0..at),
                        value: word.slice(at + 1..word.text.len()),
                    };
                    self.check(&pair.key);
                    self.check(&pair.value);
                    pairs.push(pair);
                }
                None => self.error_hint(
                    word.span,
                    format!(
                        "can't find = in {:?}: must be of the form name=value",
                        shorten(&word.text)
                    ),
                    "put values with blanks in double quotes",
                ),
            }
        }
        (self.diagnostics.len() == errors).then_some((pairs, false))
    }

    fn legacy(&mut self, parts: &Parts) -> Option<KeyValue> {
        let text = &parts.arguments;
        let blank = |character| matches!(character, ' ' | '\t' | '\r' | '\u{0B}' | '\u{0C}');
        let keyword = parts.keyword.value;
        let Some(end) = text.text.find(blank) else {
            let message = format!(
                "{keyword} must have two arguments: {:?} has no value",
                shorten(&text.text)
            );
            self.error_hint(text.span, message, format!("usage: {}", keyword.info().usage));
            return None;
        };
        let start = text.text.len() - text.text[end..].trim_start_matches(blank).len();
        let pair = KeyValue {
            key: text.slice(0..end),
            value: text.slice(start..text.text.len()),
        };
        let errors = self.diagnostics.len();
        self.check(&pair.key);
        self.check(&pair.value);
        (self.diagnostics.len() == errors).then_some(pair)
    }

    fn blank_name(&mut self, keyword: Keyword, word: &Word) {
        let message = format!("{keyword} names can not be blank: {:?}", shorten(&word.text));
        self.error_hint(word.span, message, "write name=value without blanks around the =");
    }

    fn quoted_words(&self, text: &Word) -> Vec<Word> {
        let ranges = grammar::quoted_words(&text.text, self.escape);
        ranges.into_iter().map(|range| text.slice(range)).collect()
    }
}
