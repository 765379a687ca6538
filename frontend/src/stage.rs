//! The stage table: what each stage starts from, what its COPYs name, and which stages the target needs.
//!
//! A [`Plan`] is one stage with its [`Line`]s. `origin` finds what a `from` names; `order` tells why a stage cannot come
//! before another.

mod order;
mod origin;
mod plan;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use kiln_parser::ast::{self, From, Instruction, Keyword, Statement};
use kiln_parser::{Diagnostic, Dockerfile, Span, suggest};

use crate::instruction::{Context, from};
use crate::options::LowerOptions;

pub(crate) use self::plan::{Files, Line, Origin, Place, Plan};

/// All stages of a Dockerfile.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// The stages in order.
    pub(crate) plans: Vec<Plan<'a>>,
    /// The numbers of the stages of a name, in order.
    numbers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Table<'a> {
    /// Makes the table.
    pub(crate) fn new(dockerfile: &'a Dockerfile, context: Context<'_>) -> Self {
        let mut table = Self {
            plans: Vec::with_capacity(dockerfile.stages.len()),
            numbers: HashMap::with_capacity(dockerfile.stages.len()),
        };
        for (number, stage) in dockerfile.stages.iter().enumerate() {
            let Some((statement, from)) = dockerfile.from(stage) else {
                continue;
            };
            let mut plan = table.plan(number, statement, from, context);
            let lines = dockerfile.body(stage).iter().filter(|_| !plan.replaced);
            plan.lines = lines
                .map(|statement| Line::new(Cow::Borrowed(statement), Place::Stage))
                .collect();
            if let Some(name) = plan.name {
                table.numbers.entry(name).or_default().push(number);
            }
            table.plans.push(plan);
        }
        table
    }

    fn plan(
        &self,
        number: usize,
        statement: &'a Statement,
        from: &'a From,
        context: Context<'_>,
    ) -> Plan<'a> {
        let platform = from::platform(from, context);
        let replacement = platform
            .as_ref()
            .ok()
            .and_then(|platform| from::replacement(from, platform.as_ref(), context));
        let replaced = replacement.is_some();
        let base = replacement.map_or_else(
            || {
                let earlier = |name: &str| self.earlier(name, number);
                platform.and_then(|platform| from::base(from, platform.as_ref(), context, earlier))
            },
            Ok,
        );
        Plan {
            number,
            name: from.name.as_ref().map(|name| name.value.as_str()),
            span: statement.span,
            base: base.map_err(Box::new),
            lines: Vec::new(),
            // Neither do the triggers of what replaces a stage.
            triggered: replaced,
            replaced,
        }
    }

    /// The last stage before `number` that is called exactly `name`.
    fn earlier(&self, name: &str, number: usize) -> Option<usize> {
        let numbers = self.numbers.get(name)?;
        let earlier = numbers.partition_point(|other| *other < number);
        numbers[..earlier].last().copied()
    }

    /// The first stage from `number` on that is called exactly `name`.
    fn later(&self, name: &str, number: usize) -> Option<usize> {
        let numbers = self.numbers.get(name)?;
        numbers.iter().copied().find(|other| *other >= number)
    }

    /// The names of all stages.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.plans.iter().filter_map(|plan| plan.name).collect()
    }

    /// What to call a stage in messages.
    pub(crate) fn describe(&self, number: usize) -> String {
        match self.plans.get(number).and_then(|plan| plan.name) {
            Some(name) => format!("stage {name:?}"),
            None => format!("stage {number}"),
        }
    }

    /// The stage that `--target` names: by name in any case (the last of several), or by number.
    pub(crate) fn target(&self, options: &LowerOptions) -> Result<usize, Diagnostic> {
        let Some(target) = &options.target else {
            return match self.plans.len() {
                0 => Err(Diagnostic::error(
                    Span::default(),
                    "the Dockerfile has no stage: FROM is missing",
                )),
                count => Ok(count - 1),
            };
        };
        let named = |plan: &Plan<'_>| plan.name.is_some_and(|name| name.eq_ignore_ascii_case(target));
        if let Some(number) = self.plans.iter().rposition(named) {
            return Ok(number);
        }
        if let Some(number) = target.parse().ok().filter(|number| *number < self.plans.len()) {
            return Ok(number);
        }
        let names = self.names();
        let error = Diagnostic::error(
            Span::default(),
            format!("target stage {target:?} could not be found"),
        );
        Err(match suggest::hint(target, names.iter().copied()) {
            Some(hint) => error.hint(hint),
            None if names.is_empty() => error.hint("no stage of this file has a name"),
            None => error.hint(format!("the stages are: {}", names.join(", "))),
        })
    }

    /// The stages that `targets` need, themselves included, in order.
    pub(crate) fn reachable(&self, targets: &[usize]) -> BTreeSet<usize> {
        let mut reachable = BTreeSet::new();
        let mut waiting = targets.to_vec();
        while let Some(number) = waiting.pop() {
            let Some(plan) = self.plans.get(number) else {
                continue;
            };
            if !reachable.insert(number) {
                continue;
            }
            waiting.extend(plan.stages());
        }
        reachable
    }

    /// The ONBUILD statements of a stage, as lines of a stage that is built from it.
    pub(crate) fn stage_triggers(&self, number: usize) -> Vec<Line<'a>> {
        let onbuilds = self.plans[number]
            .lines
            .iter()
            .filter(|line| line.place == Place::Stage);
        onbuilds
            .filter_map(|line| match &line.statement {
                Cow::Borrowed(statement) => Some(*statement),
                Cow::Owned(_) => None,
            })
            .filter(|statement| statement.keyword.value == Keyword::Onbuild)
            .filter_map(|statement| match &statement.instruction {
                Instruction::Onbuild(onbuild) => Some(onbuild.statement.as_ref()),
                _ => None,
            })
            .map(|statement| Line::new(Cow::Borrowed(statement), Place::StageTrigger))
            .collect()
    }

    /// Whether step names say which stage they belong to: when there is more than one thing to tell apart.
    pub(crate) fn has_labels(&self) -> bool {
        let is_stage = |from: &str| {
            let names = self.names();
            names.iter().any(|name| name.eq_ignore_ascii_case(from)) || from.parse::<usize>().is_ok()
        };
        let takes_from_image = |line: &Line<'_>| match &line.statement.instruction {
            Instruction::Copy(copy) => copy.from.as_ref().is_some_and(|from| !is_stage(&from.value)),
            Instruction::Run(run) => {
                let mut froms = run.mounts.iter().filter_map(ast::Mount::from);
                froms.any(|from| !is_stage(from.value))
            }
            _ => false,
        };
        self.plans.len() > 1
            || self
                .plans
                .iter()
                .any(|plan| plan.lines.iter().any(takes_from_image))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{FakeImage, FakeResolver, lower_with, lowered, messages, names, options};

    #[test]
    fn step_names_tell_stages_apart_when_there_is_more_than_one_source() {
        for (text, last) in [
            ("FROM busybox\nRUN x\n", "[2/2] RUN x"),
            ("FROM busybox AS a\nRUN x\n", "[2/2] RUN x"),
            (
                "FROM busybox\nCOPY --from=0x / /\n",
                "[stage-0 2/2] COPY --from=0x / /",
            ),
            ("FROM busybox AS a\nFROM busybox\nRUN x\n", "[stage-1 2/2] RUN x"),
            ("FROM busybox AS a\nFROM a AS b\nRUN x\n", "[b 1/1] RUN x"),
        ] {
            let resolver = FakeResolver::new([(
                "0x".to_owned(),
                FakeImage {
                    layers: 1,
                    ..FakeImage::default()
                },
            )]);
            let lowered = lower_with(text, &options(), &resolver).unwrap();
            assert_eq!(names(&lowered).last().unwrap(), last, "{text}");
        }
    }

    #[test]
    fn the_target_is_found_by_name_in_any_case_or_by_number() {
        let text = "FROM busybox AS a\nRUN first\nFROM busybox AS a\nRUN second\nFROM busybox\nRUN third\n";
        for (target, last) in [
            ("A", "[a 2/2] RUN second"),
            ("0", "[a 2/2] RUN first"),
            ("2", "[stage-2 2/2] RUN third"),
        ] {
            let mut options = options();
            options.target = Some(target.to_owned());
            let lowered = lower_with(text, &options, &FakeResolver::new([])).unwrap();
            assert_eq!(names(&lowered).last().unwrap(), last);
        }
    }

    #[test]
    fn what_the_target_does_not_need_may_be_wrong() {
        lowered("FROM $NOTHING AS a\nFROM Bad AS b\nCOPY --from=9 / /\nFROM busybox\nRUN x\n");
        let text = "FROM $NOTHING AS a\nFROM a\nRUN x\n";
        assert_eq!(messages(text), ["base image name $NOTHING expands to nothing"]);
    }
}
