//! ONBUILD triggers: what a base image, or a stage, asks of the stages that are built from it.

use std::borrow::Cow;

use kiln_parser::ast::{Instruction, Statement};
use kiln_parser::{Diagnostic, Span};

use crate::stage::{Line, Place};

/// The triggers of a base image as lines of the stage whose FROM is at `from`.
pub(crate) fn image_triggers(triggers: &[String], from: Span) -> Result<Vec<Line<'static>>, Vec<Diagnostic>> {
    let mut lines = Vec::with_capacity(triggers.len());
    let mut errors = Vec::new();
    for trigger in triggers {
        match parse(trigger) {
            Ok(statement) => lines.push(Line::new(Cow::Owned(statement), Place::ImageTrigger(from))),
            Err(message) => errors.push(
                Diagnostic::error(from, format!("in the ONBUILD trigger {trigger:?}: {message}"))
                    .hint("the trigger comes with the base image"),
            ),
        }
    }
    if errors.is_empty() { Ok(lines) } else { Err(errors) }
}

/// Reads a trigger. It comes from another file, so the escape character is the default one.
fn parse(trigger: &str) -> Result<Statement, String> {
    let parsed = kiln_parser::parse_instruction(trigger, '\\');
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(error.message.clone());
    }
    let statement = parsed.statement.ok_or("it is empty")?;
    match statement.instruction {
        Instruction::From(_) | Instruction::Onbuild(_) | Instruction::Maintainer(_) => Err(format!(
            "{} is not allowed as a trigger",
            statement.keyword_text.to_uppercase()
        )),
        _ => Ok(statement),
    }
}
