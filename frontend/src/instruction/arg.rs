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

#[cfg(test)]
mod tests {
    use crate::testing::{FakeResolver, history, lower_with, lowered, options};

    #[test]
    fn each_declaration_sees_those_before_it() {
        // Docker prints "ARG A=1 B=1" for it.
        let lowered = lowered("FROM busybox\nARG A=1 B=$A\nARG C\nARG D=\nRUN x\n");
        let expected = [
            "- ARG A=1 B=1",
            "- ARG C",
            "- ARG D=",
            "RUN |4 A=1 B=1 C= D= /bin/sh -c x # buildkit",
        ];
        assert_eq!(history(&lowered), expected);
    }

    #[test]
    fn supplied_values_win_and_are_not_expanded() {
        let mut options = options();
        options.build_args.insert("A".to_owned(), Some("$B".to_owned()));
        options.build_args.insert("G".to_owned(), Some(String::new()));
        options.build_args.insert("N".to_owned(), None);
        let text = "ARG G=global\nARG H=h$G\nFROM busybox\nARG A=default\nARG G=x H N=n\n";
        let lowered = lower_with(text, &options, &FakeResolver::new([])).unwrap();
        assert_eq!(history(&lowered), ["- ARG A=$B", "- ARG G= H=h N=n"]);
        assert!(lowered.unused_build_args.is_empty());
    }

    #[test]
    fn a_stage_default_wins_over_the_global_value() {
        let lowered = lowered("ARG A=global\nFROM busybox\nARG A=stage\nARG A\n");
        assert_eq!(history(&lowered), ["- ARG A=stage", "- ARG A=global"]);
    }
}
