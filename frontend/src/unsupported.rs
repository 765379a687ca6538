//! What the language knows and this release does not carry out: an error at the flag, never silence.

use kiln_parser::ast::{Instruction, Run};
use kiln_parser::{Diagnostic, Span};

/// One flag: what it is called in the message, and where an instruction uses it.
struct Rule {
    what: &'static str,
    places: fn(&Instruction) -> Vec<Span>,
}

/// All flags that are parsed but not carried out. A flag that becomes supported loses its line here.
const RULES: &[Rule] = &[Rule {
    what: "RUN --device",
    places: |i| run(i, |run| run.devices.iter().map(|d| d.span).collect()),
}];

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
