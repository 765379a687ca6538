//! Build checks that need nothing but the tree.

use std::collections::{HashMap, HashSet};

use crate::ast::{CheckOptions, CommandLine, Dockerfile, From, Instruction, Statement};
use crate::diagnostic::Diagnostic;
use crate::instruction::Keyword;

/// Adds the warnings, then removes those that the file asks not to hear.
pub(crate) fn check(dockerfile: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    casing(&dockerfile.instructions, diagnostics);
    for statement in &dockerfile.instructions {
        instruction(statement, diagnostics);
    }
    stage_names(dockerfile, diagnostics);
    for stage in &dockerfile.stages {
        last_one_wins(dockerfile.body(stage), diagnostics);
        json_recommended(dockerfile.body(stage), diagnostics);
    }
    silence(dockerfile, diagnostics);
}

fn silence(dockerfile: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    let skips = |options: &CheckOptions, rule: &str| {
        options.skip_all
            || options
                .skip
                .iter()
                .any(|skipped| skipped.eq_ignore_ascii_case(rule))
    };
    let everywhere = dockerfile.directives.check.as_ref();
    diagnostics.retain(|diagnostic| {
        let Some(rule) = diagnostic.rule else { return true };
        if everywhere.is_some_and(|options| skips(&options.value, rule)) {
            return false;
        }
        let at = dockerfile
            .instructions
            .partition_point(|statement| statement.span.start <= diagnostic.span.start);
        let statement = at
            .checked_sub(1)
            .and_then(|index| dockerfile.instructions.get(index));
        let options = statement.and_then(|statement| statement.check.as_ref());
        !options.is_some_and(|options| skips(&options.value, rule))
    });
}

fn casing(instructions: &[Statement], diagnostics: &mut Vec<Diagnostic>) {
    let is_lower = |statement: &Statement| {
        !statement
            .keyword_text
            .bytes()
            .any(|byte| byte.is_ascii_uppercase())
    };
    let is_upper = |statement: &Statement| {
        !statement
            .keyword_text
            .bytes()
            .any(|byte| byte.is_ascii_lowercase())
    };
    let lower = instructions
        .iter()
        .filter(|statement| is_lower(statement))
        .count();
    let upper = instructions
        .iter()
        .filter(|statement| is_upper(statement))
        .count();
    let (majority, fits): (_, &dyn Fn(&Statement) -> bool) = if lower > upper {
        ("lowercase", &is_lower)
    } else {
        ("uppercase", &is_upper)
    };
    for statement in instructions.iter().filter(|statement| !fits(statement)) {
        let text = &statement.keyword_text;
        let message = format!("command '{text}' should match the case of the command majority ({majority})");
        diagnostics.push(Diagnostic::warning(
            "ConsistentInstructionCasing",
            statement.keyword.span,
            message,
        ));
    }
}

fn instruction(statement: &Statement, diagnostics: &mut Vec<Diagnostic>) {
    match &statement.instruction {
        Instruction::From(from) => stage(statement, from, diagnostics),
        Instruction::Maintainer(_) => diagnostics.push(
            Diagnostic::warning(
                "MaintainerDeprecated",
                statement.span,
                "MAINTAINER is deprecated in favor of a label",
            )
            .hint("write LABEL org.opencontainers.image.authors=\"…\""),
        ),
        Instruction::Env(env) if env.legacy => legacy(statement, diagnostics),
        Instruction::Label(label) if label.legacy => legacy(statement, diagnostics),
        _ => {}
    }
}

fn legacy(statement: &Statement, diagnostics: &mut Vec<Diagnostic>) {
    let keyword = statement.keyword.value;
    let message =
        format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
    diagnostics.push(Diagnostic::warning(
        "LegacyKeyValueFormat",
        statement.text.span,
        message,
    ));
}

fn stage(statement: &Statement, from: &From, diagnostics: &mut Vec<Diagnostic>) {
    let (Some(name), Some(text), Some(keyword)) = (&from.name, &from.name_text, &from.as_keyword) else {
        return;
    };
    if *text != name.value {
        let message = format!("stage name '{text}' should be lowercase");
        diagnostics.push(Diagnostic::warning("StageNameCasing", name.span, message));
    }
    if matches!(name.value.as_str(), "scratch" | "context") {
        let message = format!(
            "stage name should not use the same name as reserved stage {:?}",
            name.value
        );
        diagnostics.push(Diagnostic::warning("ReservedStageName", name.span, message));
    }
    let written = &statement.keyword_text;
    let expected = match written.as_str() {
        text if text == text.to_lowercase() => keyword.value.to_lowercase(),
        text if text == text.to_uppercase() => keyword.value.to_uppercase(),
        _ => return,
    };
    if keyword.value != expected {
        let message = format!(
            "'{}' and '{written}' keywords' casing do not match",
            keyword.value
        );
        diagnostics.push(Diagnostic::warning("FromAsCasing", keyword.span, message));
    }
}

fn stage_names(dockerfile: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for (_, from) in dockerfile
        .stages
        .iter()
        .filter_map(|stage| dockerfile.from(stage))
    {
        let Some(name) = &from.name else { continue };
        if let Some(first) = seen.insert(&name.value, name.span) {
            let message = format!(
                "duplicate stage name {:?}, stage names should be unique",
                name.value
            );
            let warning = Diagnostic::warning("DuplicateStageName", name.span, message);
            diagnostics.push(warning.related(first, "the name is given here before"));
        }
    }
}

fn last_one_wins(body: &[Statement], diagnostics: &mut Vec<Diagnostic>) {
    let mut seen = HashSet::new();
    for statement in body.iter().rev() {
        let keyword = statement.keyword.value;
        let single = matches!(keyword, Keyword::Cmd | Keyword::Entrypoint | Keyword::Healthcheck);
        if single && !seen.insert(keyword) {
            let message = format!("multiple {keyword} instructions in one stage: only the last one is used");
            diagnostics.push(Diagnostic::warning(
                "MultipleInstructionsDisallowed",
                statement.span,
                message,
            ));
        }
    }
}

fn json_recommended(body: &[Statement], diagnostics: &mut Vec<Diagnostic>) {
    if body
        .iter()
        .any(|statement| statement.keyword.value == Keyword::Shell)
    {
        return;
    }
    for statement in body {
        let command = match &statement.instruction {
            Instruction::Cmd(cmd) => &cmd.command,
            Instruction::Entrypoint(entrypoint) => &entrypoint.command,
            _ => continue,
        };
        if let CommandLine::Shell(text) = command {
            let keyword = statement.keyword.value;
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            let warning = Diagnostic::warning("JSONArgsRecommended", statement.span, message);
            let broken = text.text.starts_with('[');
            diagnostics.push(if broken {
                warning.hint("this starts like a JSON array but is none, so the shell gets it as it is")
            } else {
                warning
            });
        }
    }
}
