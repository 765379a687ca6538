//! Shell and exec forms: CMD, ENTRYPOINT, SHELL, and what RUN and HEALTHCHECK share with them.

use super::{Context, Parts};
use crate::ast::{Cmd, CommandLine, Entrypoint, Shell, Word};
use crate::grammar::{self, JsonElement};
use crate::instruction::Keyword;
use crate::span::Spanned;

impl Context<'_> {
    pub(super) fn cmd(&mut self, parts: &Parts) -> Option<Cmd> {
        self.command_line(&parts.arguments).map(|command| Cmd { command })
    }

    pub(super) fn entrypoint(&mut self, parts: &Parts) -> Option<Entrypoint> {
        self.command_line(&parts.arguments)
            .map(|command| Entrypoint { command })
    }

    pub(super) fn shell(&mut self, parts: &Parts) -> Option<Shell> {
        let usage = format!("usage: {}", Keyword::Shell.info().usage);
        match self.json_strings(&parts.arguments) {
            Ok(Some(command)) if command.is_empty() => {
                self.error_hint(parts.span(), "SHELL requires at least one argument", usage);
                None
            }
            Ok(Some(command)) => Some(Shell { command }),
            Ok(None) => {
                let message = "SHELL requires the arguments to be in JSON form";
                self.error_hint(parts.arguments.span, message, usage);
                None
            }
            Err(()) => None,
        }
    }

    /// A command in either form. Text that is no JSON array is a shell command, whatever it starts with.
    pub(super) fn command_line(&mut self, text: &Word) -> Option<CommandLine> {
        match self.json_strings(text) {
            Ok(Some(strings)) => Some(CommandLine::Exec(strings)),
            Ok(None) => Some(CommandLine::Shell(text.clone())),
            Err(()) => None,
        }
    }

    /// The strings of a JSON array, none if the text is not one. An array of anything else is an error.
    pub(super) fn json_strings(&mut self, text: &Word) -> Result<Option<Vec<Spanned<String>>>, ()> {
        let Some(elements) = grammar::json_array(&text.text) else {
            return Ok(None);
        };
        let mut strings = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            match element {
                JsonElement::Text(value, range) => strings.push(Spanned::new(value, text.locate(range))),
                JsonElement::Other(kind, range) => {
                    let message = format!(
                        "only string type is allowed in JSON format arrays: element {} is {kind}",
                        index + 1
                    );
                    self.error_hint(text.locate(range), message, "put it in double quotes");
                    return Err(());
                }
            }
        }
        Ok(Some(strings))
    }

    /// The same as words that are still to be expanded.
    pub(super) fn json_words(&mut self, text: &Word) -> Result<Option<Vec<Word>>, ()> {
        let strings = self.json_strings(text)?;
        Ok(strings.map(|strings| {
            strings
                .into_iter()
                .map(|string| Word::new(string.value, string.span))
                .collect()
        }))
    }
}
