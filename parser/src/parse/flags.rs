//! Flags: names against the instruction's table, values without their quotes.

use super::{Context, shorten};
use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::grammar::RawFlag;
use crate::instruction::{FlagKind, INSTRUCTIONS, InstructionInfo};
use crate::span::{Span, Spanned};
use crate::suggest;

/// The flags of an instruction.
#[derive(Debug, Default)]
pub(super) struct Flags {
    values: Vec<Flag>,
}

#[derive(Debug)]
struct Flag {
    name: &'static str,
    span: Span,
    /// None for a bare boolean.
    value: Option<Word>,
}

impl Flags {
    pub(super) fn parse(
        context: &mut Context<'_>,
        info: &InstructionInfo,
        line: &Word,
        raw: &[RawFlag],
    ) -> Self {
        let mut flags = Self::default();
        for flag in raw {
            let name = &line.text[flag.name.clone()];
            let span = line.locate(flag.whole.clone());
            let written = line.locate(flag.whole.start..flag.name.end);
            let Some(known) = info.flags.iter().find(|known| known.name == name) else {
                let error = Diagnostic::error(written, format!("unknown flag: --{}", shorten(name)));
                context.diagnostics.push(Diagnostic {
                    hint: Some(unknown_hint(info, name)),
                    ..error
                });
                continue;
            };
            let first = flags.values.iter().find(|other| other.name == known.name);
            if let (Some(first), true) = (first, known.kind != FlagKind::List) {
                let error = Diagnostic::error(span, format!("duplicate flag specified: --{name}"));
                context
                    .diagnostics
                    .push(error.related(first.span, "the first one is here"));
                continue;
            }
            let value = flag
                .value
                .clone()
                .map(|range| decode(context, &line.slice(range)));
            let empty = value.as_ref().is_some_and(|value| value.text.is_empty());
            if (value.is_none() && known.kind != FlagKind::Bool) || (empty && known.kind == FlagKind::Bool) {
                let message = format!("missing a value on flag: --{name}");
                context.error_hint(
                    span,
                    message,
                    format!("write --{name}=<value>, with no blank around the ="),
                );
                continue;
            }
            if known.kind == FlagKind::Bool
                && value.as_ref().is_some_and(|value| boolean(&value.text).is_none())
            {
                let text = value.map(|value| shorten(&value.text)).unwrap_or_default();
                context.error_hint(
                    span,
                    format!("expecting boolean value for flag --{name}, not: {text}"),
                    format!("write --{name}, --{name}=true or --{name}=false"),
                );
                continue;
            }
            flags.values.push(Flag {
                name: known.name,
                span,
                value,
            });
        }
        flags
    }

    /// The flags that were written, with their places.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'static str, Span)> + '_ {
        self.values.iter().map(|flag| (flag.name, flag.span))
    }

    /// The value of a text flag. An empty value is as good as none.
    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        let flag = self.values.iter_mut().find(|flag| flag.name == name)?;
        flag.value.take().filter(|value| !value.text.is_empty())
    }

    /// All values of a list flag.
    pub(super) fn list(&mut self, name: &str) -> Vec<Word> {
        self.values
            .iter_mut()
            .filter(|flag| flag.name == name)
            .filter_map(|flag| flag.value.take())
            .collect()
    }

    /// The value of a boolean flag.
    pub(super) fn boolean(&self, name: &str) -> Option<Spanned<bool>> {
        let flag = self.values.iter().find(|flag| flag.name == name)?;
        let value = flag
            .value
            .as_ref()
            .is_none_or(|value| boolean(&value.text) == Some(true));
        Some(Spanned::new(value, flag.span))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn unknown_hint(info: &InstructionInfo, name: &str) -> String {
    let elsewhere = INSTRUCTIONS
        .iter()
        .find(|other| other.flags.iter().any(|flag| flag.name == name));
    if let Some(other) = elsewhere {
        return format!("--{name} is a flag of {}", other.name);
    }
    if let Some(near) = suggest::nearest(name, info.flags.iter().map(|flag| flag.name)) {
        return format!("did you mean --{near}?");
    }
    if info.flags.is_empty() {
        return format!(
            "{} takes no flags; write -- in front of arguments that start with --",
            info.name
        );
    }
    let names: Vec<String> = info.flags.iter().map(|flag| format!("--{}", flag.name)).collect();
    format!("{} takes {}", info.name, names.join(", "))
}

/// The value without its quotes and escapes; the map to the source stays exact.
fn decode(context: &mut Context<'_>, raw: &Word) -> Word {
    if !raw.text.contains(['\'', '"', context.escape]) {
        return raw.clone();
    }
    let mut value = Word {
        text: String::with_capacity(raw.text.len()),
        span: raw.span,
        breaks: Vec::new(),
    };
    let mut quote: Option<(char, usize)> = None;
    let mut expected = raw.span.start;
    let mut characters = raw.text.char_indices();
    while let Some((mut at, mut character)) = characters.next() {
        match quote {
            Some((open, _)) if open == character => {
                quote = None;
                continue;
            }
            None if matches!(character, '\'' | '"') => {
                quote = Some((character, at));
                continue;
            }
            _ => {}
        }
        if character == context.escape {
            let Some(next) = characters.next() else { break };
            (at, character) = next;
        }
        let offset = raw.offset(at);
        if offset != expected {
            value.breaks.push((value.text.len(), offset));
        }
        value.text.push(character);
        expected = offset + character.len_utf8();
    }
    if let Some((_, at)) = quote {
        context.error(raw.locate(at..raw.text.len()), "unterminated quote in flag");
    }
    value
}
