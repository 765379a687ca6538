//! `ARG name[=default] …`: declares build arguments for the rest of the stage and the stages built from it.
//!
//! A supplied value wins over the default and is never expanded; a default may use what stands before it, in
//! the same instruction too. Without a default, a global ARG of the same name gives the value. An ARG without
//! any value is declared, but not in the environment.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Arg;

use super::Context;
use crate::state::StageState;

pub(super) fn lower(arg: &Arg, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let mut words = vec!["ARG".to_owned()];
    for declaration in &arg.declarations {
        let name = context.expander.word(&declaration.name, &stage.environment)?;
        let value = match (context.options.build_arg(&name), &declaration.default) {
            (Some(supplied), _) => Some(supplied.to_owned()),
            (None, Some(default)) => Some(context.expander.word(default, &stage.environment)?),
            (None, None) => context.globals.values.get(&name).map(str::to_owned),
        };
        if let Some(value) = &value {
            stage.environment.set(&name, value.clone());
        }
        stage.args.declare(&name, value.as_deref());
        words.push(match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        });
    }
    stage.record(words.join(" "));
    Ok(())
}
