//! What the language knows and this release does not carry out: an error at the flag, never silence.

use kiln_parser::ast::{Add, Copy, Instruction, Run};
use kiln_parser::{Diagnostic, Span};

/// One flag: what it is called in the message, and where an instruction uses it.
struct Rule {
    what: &'static str,
    places: fn(&Instruction) -> Vec<Span>,
}

/// All flags that are parsed but not carried out. A flag that becomes supported loses its line here.
const RULES: &[Rule] = &[
    Rule {
        what: "RUN --device",
        places: |i| run(i, |run| run.devices.iter().map(|d| d.span).collect()),
    },
    Rule {
        what: "COPY --link",
        places: |i| copy(i, |copy| enabled(copy.link.as_ref())),
    },
    Rule {
        what: "COPY --parents",
        places: |i| copy(i, |copy| enabled(copy.parents.as_ref())),
    },
    Rule {
        what: "COPY --exclude",
        places: |i| copy(i, |copy| copy.exclude.iter().map(|e| e.span).collect()),
    },
    Rule {
        what: "ADD --link",
        places: |i| add(i, |add| enabled(add.link.as_ref())),
    },
    Rule {
        what: "ADD --exclude",
        places: |i| add(i, |add| add.exclude.iter().map(|e| e.span).collect()),
    },
];

/// The errors of one instruction.
pub(crate) fn check(instruction: &Instruction) -> Vec<Diagnostic> {
    RULES
        .iter()
        .flat_map(|rule| {
            (rule.places)(instruction)
                .into_iter()
                .map(|span| error(span, rule.what))
        })
        .collect()
}

/// The error for `what`.
pub(crate) fn error(span: Span, what: &str) -> Diagnostic {
    Diagnostic::error(span, format!("{what} is not supported yet"))
}

fn run(instruction: &Instruction, places: impl Fn(&Run) -> Vec<Span>) -> Vec<Span> {
    if let Instruction::Run(run) = instruction {
        places(run)
    } else {
        Vec::new()
    }
}

fn copy(instruction: &Instruction, places: impl Fn(&Copy) -> Vec<Span>) -> Vec<Span> {
    if let Instruction::Copy(copy) = instruction {
        places(copy)
    } else {
        Vec::new()
    }
}

fn add(instruction: &Instruction, places: impl Fn(&Add) -> Vec<Span>) -> Vec<Span> {
    if let Instruction::Add(add) = instruction {
        places(add)
    } else {
        Vec::new()
    }
}

/// A boolean flag counts only when it is on: `--link=false` asks for what happens anyway.
fn enabled(flag: Option<&kiln_parser::Spanned<bool>>) -> Vec<Span> {
    flag.filter(|flag| flag.value)
        .map(|flag| flag.span)
        .into_iter()
        .collect()
}
