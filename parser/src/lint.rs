//! Build checks that need nothing but the tree, and the choice of which findings are wanted.
//!
//! Each finding stands at its exact place and carries the instruction as a whole, whose lines Docker names.

use std::collections::HashMap;

use crate::ast::{CheckOptions, Dockerfile, From, Instruction, Statement};
use crate::diagnostic::Diagnostic;
use crate::rules;
use crate::span::{Span, Spanned};

/// Adds the warnings, those of experimental rules too.
pub(crate) fn check(dockerfile: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    let stages = dockerfile.global().len();
    casing(&dockerfile.instructions[stages..], diagnostics);
    for statement in &dockerfile.instructions {
        match &statement.instruction {
            Instruction::From(from) => stage(statement, from, diagnostics),
            Instruction::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                let place = statement.keyword.span;
                diagnostics.push(warn("MaintainerDeprecated", statement, place, message));
            }
            Instruction::Arg(arg) => {
                let names = arg
                    .declarations
                    .iter()
                    .map(|declaration| declaration.name.as_str());
                description(statement, "ARG", &names.collect::<Vec<_>>(), diagnostics);
            }
            _ => {}
        }
    }
    stage_names(dockerfile, diagnostics);
}

/// Leaves only what is wanted: errors; warnings that neither the file's options nor a comment above their
/// instruction silence; and those of experimental rules that are turned on. `options` stand for the directive of
/// the file when given.
pub fn select(dockerfile: &Dockerfile, options: Option<&CheckOptions>, diagnostics: &mut Vec<Diagnostic>) {
    let directive = dockerfile.directives.check.as_ref().map(|check| &check.value);
    let everywhere = options.or(directive);
    diagnostics.retain(|diagnostic| {
        let Some(rule) = diagnostic.rule else { return true };
        let here = at(dockerfile, diagnostic.span)
            .and_then(|statement| statement.check.as_ref().map(|check| &check.value));
        let mut wanted = everywhere.into_iter().chain(here);
        if rules::find(rule).is_some_and(|rule| rule.experimental) {
            wanted.any(|options| options.experimental_all || holds(&options.experimental, rule))
        } else {
            !wanted.any(|options| options.skip_all || holds(&options.skip, rule))
        }
    });
}

/// Tells each diagnostic which instruction it stands in.
pub fn locate(dockerfile: &Dockerfile, diagnostics: &mut [Diagnostic]) {
    for diagnostic in diagnostics.iter_mut().filter(|one| one.within.is_none()) {
        let statement = at(dockerfile, diagnostic.span).filter(|one| diagnostic.span.end <= one.span.end);
        diagnostic.within = statement
            .map(|statement| Box::new(statement.span))
            .filter(|_| diagnostic.span != Span::default());
    }
}

/// The last instruction that begins before the end of a place.
fn at(dockerfile: &Dockerfile, place: Span) -> Option<&Statement> {
    let after = dockerfile
        .instructions
        .partition_point(|statement| statement.span.start <= place.start);
    dockerfile.instructions.get(after.checked_sub(1)?)
}

/// The error of a file with `error=true`: the names of the rules that found something.
pub fn violation(warnings: &[Diagnostic]) -> Option<Diagnostic> {
    let mut rules: Vec<&str> = warnings.iter().filter_map(|warning| warning.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let message = format!("lint violation found for rules: {}", rules.join(", "));
    (!rules.is_empty()).then(|| Diagnostic::error(Span::default(), message))
}

fn holds(rules: &[String], name: &str) -> bool {
    rules.iter().any(|rule| rule.eq_ignore_ascii_case(name))
}

/// A finding at a place inside an instruction.
fn warn(rule: &'static str, statement: &Statement, place: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::warning(rule, place, message).within(statement.span)
}

/// An empty line in the middle of an instruction. Docker names the instruction's last line.
pub(crate) fn empty_continuation(blank: Span, line: Span) -> Diagnostic {
    let last = Span::new(line.end.saturating_sub(1).max(line.start), line.end);
    Diagnostic::warning("NoEmptyContinuation", blank, "Empty continuation line").within(last)
}

fn casing(instructions: &[Statement], diagnostics: &mut Vec<Diagnostic>) {
    let upper = |byte: u8| byte.is_ascii_uppercase();
    let lower = |byte: u8| byte.is_ascii_lowercase();
    let is_lower = |statement: &Statement| !statement.keyword_text.bytes().any(upper);
    let is_upper = |statement: &Statement| !statement.keyword_text.bytes().any(lower);
    let count = |fits: &dyn Fn(&Statement) -> bool| instructions.iter().filter(|one| fits(one)).count();
    let (majority, fits): (_, &dyn Fn(&Statement) -> bool) = if count(&is_lower) > count(&is_upper) {
        ("lowercase", &is_lower)
    } else {
        ("uppercase", &is_upper)
    };
    for statement in instructions.iter().filter(|statement| !fits(statement)) {
        let text = &statement.keyword_text;
        let message = format!("Command '{text}' should match the case of the command majority ({majority})");
        let place = statement.keyword.span;
        diagnostics.push(warn("ConsistentInstructionCasing", statement, place, message));
    }
}

fn stage(statement: &Statement, from: &From, diagnostics: &mut Vec<Diagnostic>) {
    let (Some(name), Some(text), Some(keyword)) = (&from.name, &from.name_text, &from.as_keyword) else {
        return;
    };
    if *text != name.value {
        let message = format!("Stage name '{text}' should be lowercase");
        diagnostics.push(warn("StageNameCasing", statement, name.span, message));
    }
    as_casing(statement, keyword, diagnostics);
    description(statement, "FROM", &[&name.value], diagnostics);
}

fn as_casing(statement: &Statement, keyword: &Spanned<String>, diagnostics: &mut Vec<Diagnostic>) {
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
        diagnostics.push(warn("FromAsCasing", statement, keyword.span, message));
    }
}

/// The comment directly above says what a stage or an argument is for, and begins with its name.
fn description(statement: &Statement, keyword: &str, names: &[&str], diagnostics: &mut Vec<Diagnostic>) {
    let (Some(comment), Some(first)) = (statement.comments.last(), names.first()) else {
        return;
    };
    let word = comment.value.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    // The instruction is what has to be found when findings are chosen, not the comment above it.
    let warning = warn(
        "InvalidDefinitionDescription",
        statement,
        statement.keyword.span,
        message,
    );
    diagnostics.push(warning.related(comment.span, "this is the comment"));
}

fn stage_names(dockerfile: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for (statement, from) in dockerfile
        .stages
        .iter()
        .filter_map(|stage| dockerfile.from(stage))
    {
        let Some(name) = &from.name else { continue };
        let text = &name.value;
        if matches!(text.as_str(), "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage {text:?}");
            diagnostics.push(warn("ReservedStageName", statement, name.span, message));
        }
        if let Some(first) = seen.insert(text, name.span) {
            let message = format!("Duplicate stage name {text:?}, stage names should be unique");
            let warning = warn("DuplicateStageName", statement, name.span, message);
            diagnostics.push(warning.related(first, "the name is given here before"));
        }
    }
}
