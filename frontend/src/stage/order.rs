//! Stages that take from each other in a circle or from a later one, and how that is told.

use std::collections::BTreeMap;

use kiln_parser::ast::{self, Instruction};
use kiln_parser::{Diagnostic, Span, Spanned};

use super::Table;

impl Table<'_> {
    /// How stage `from` comes to need stage `to`: the places in between, with the stages that they join. Only looked
    /// for in files of a usual size.
    fn way(&self, from: usize, to: usize) -> Option<Vec<(Span, usize, usize)>> {
        const STAGES: usize = 256;
        const LINES: usize = 4096;
        let lines = || self.plans.iter().map(|plan| plan.lines.len()).sum::<usize>();
        if self.plans.len() > STAGES || lines() > LINES {
            return None;
        }
        let mut came: BTreeMap<usize, (Span, usize)> = BTreeMap::new();
        let mut waiting = vec![from];
        while let Some(number) = waiting.pop() {
            for (place, next) in self.named_stages(number) {
                if next != from && !came.contains_key(&next) {
                    came.insert(next, (place, number));
                    waiting.push(next);
                }
            }
        }
        let mut way = Vec::new();
        let mut at = to;
        while at != from {
            let (place, before) = *came.get(&at)?;
            way.push((place, before, at));
            at = before;
        }
        way.reverse();
        Some(way)
    }

    /// The stages that a stage names, earlier or later, and where.
    fn named_stages(&self, number: usize) -> Vec<(Span, usize)> {
        let Some(plan) = self.plans.get(number) else {
            return Vec::new();
        };
        let base = plan.base_stage().map(|base| (plan.span, base));
        let froms = plan.lines.iter().flat_map(|line| {
            let froms: Vec<Spanned<&str>> = match &line.statement.instruction {
                Instruction::Copy(copy) => {
                    let from = copy.from.iter();
                    from.map(|from| Spanned::new(from.value.as_str(), from.span))
                        .collect()
                }
                Instruction::Run(run) => run.mounts.iter().filter_map(ast::Mount::from).collect(),
                _ => Vec::new(),
            };
            froms.into_iter().map(|from| (line.locate(from.span), from.value))
        });
        let stages = froms.filter_map(|(place, name)| {
            let lower = name.to_ascii_lowercase();
            let stage = name
                .parse()
                .ok()
                .or_else(|| self.earlier(&lower, number))
                .or_else(|| self.later(&lower, number))?;
            (stage < self.plans.len()).then_some((place, stage))
        });
        base.into_iter().chain(stages).collect()
    }

    /// The error of a COPY or a mount that names its own stage or a later one.
    pub(super) fn not_before(&self, span: Span, verb: &str, wanted: usize, number: usize) -> Diagnostic {
        let (wanted_name, current) = (self.describe(wanted), self.describe(number));
        let wanted_span = self.plans[wanted].span;
        if wanted == number {
            let from = if verb == "copy" { "--from" } else { "from" };
            return Diagnostic::error(span, format!("{current} cannot {verb} from itself"))
                .related(wanted_span, format!("{current} starts here"))
                .hint(format!("{from} names another stage, or an image"));
        }
        if let Some(way) = self.way(wanted, number) {
            let message = format!(
                "cannot {verb} from {wanted_name}: it needs {current}, so that neither can be built first"
            );
            let mut error = Diagnostic::error(span, message);
            for (place, from, to) in way {
                let (from, to) = (self.describe(from), self.describe(to));
                error = error.related(place, format!("here {from} needs {to}"));
            }
            return error.hint("put what both need into a stage of its own");
        }
        Diagnostic::error(
            span,
            format!("cannot {verb} from {wanted_name}: it comes after {current}"),
        )
        .related(wanted_span, format!("{wanted_name} starts here"))
        .related(self.plans[number].span, format!("{current} starts here"))
        .hint(format!("move {wanted_name} before {current}"))
    }
}
