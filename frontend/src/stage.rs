//! The stage table: what each stage starts from, what its COPYs name, and which stages the target needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_image::{Platform, Reference};
use kiln_parser::ast::{self, From, Instruction, Keyword, Statement};
use kiln_parser::{Diagnostic, Dockerfile, Span, Spanned, suggest};

use crate::contexts;
use crate::images::ImageRequest;
use crate::instruction::{Context, from};
use crate::options::LowerOptions;

/// What something is taken from: the base of a FROM, or the `--from` of a COPY.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// `scratch`: nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image.
    Image(Box<ImageRequest>),
    /// The files of a named context.
    Files(Box<Files>),
}

/// What a named context gives that is no image.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The context's name.
    pub(crate) name: String,
    /// What a stage on these files is built for.
    pub(crate) platform: Platform,
}

/// One stage, before anything is resolved.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Position among the stages, from 0.
    pub(crate) number: usize,
    /// Its name in lower case.
    pub(crate) name: Option<&'a str>,
    /// The place of its FROM.
    pub(crate) span: Span,
    /// What it starts from. Its error counts only if the stage is needed.
    pub(crate) base: Result<Origin, Box<Diagnostic>>,
    /// Its instructions after FROM; ONBUILD triggers come to stand before them.
    pub(crate) lines: Vec<Line<'a>>,
    /// Whether the triggers of its base are among the lines.
    pub(crate) triggered: bool,
    /// Whether a named context stands for the whole stage: none of its instructions counts.
    pub(crate) replaced: bool,
}

impl Plan<'_> {
    /// The stage as something to copy from: what replaces it is read where it is, not made a root first.
    fn as_source(&self) -> Origin {
        match &self.base {
            Ok(base) if self.replaced => base.clone(),
            _ => Origin::Stage(self.number),
        }
    }

    /// The stages that it takes from, as far as is known by now.
    pub(crate) fn stages(&self) -> impl Iterator<Item = usize> {
        let origins = self.base.iter().chain(self.lines.iter().flat_map(Line::origins));
        origins.filter_map(|origin| match origin {
            Origin::Stage(number) => Some(*number),
            Origin::Scratch | Origin::Image(_) | Origin::Files(_) => None,
        })
    }

    /// The stage that it is built from, when it is one of the file.
    pub(crate) fn base_stage(&self) -> Option<usize> {
        match self.base.as_ref() {
            Ok(Origin::Stage(number)) => Some(*number),
            _ => None,
        }
    }

    /// What the stage is called in step names.
    pub(crate) fn label(&self) -> String {
        self.name
            .map_or_else(|| format!("stage-{}", self.number), str::to_owned)
    }
}

/// An instruction of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    /// The instruction.
    pub(crate) statement: Cow<'a, Statement>,
    /// Where it comes from.
    pub(crate) place: Place,
    /// What its `--from` names.
    pub(crate) from: Option<Origin>,
    /// What the `from`s of its mounts name, by the mount's position; empty until they are bound.
    pub(crate) mounts: Vec<Option<Origin>>,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The stage itself.
    Stage,
    /// An ONBUILD of a stage in the same file that this stage is built from.
    StageTrigger,
    /// An ONBUILD of the base image: its own spans mean nothing in this file, so the FROM stands for it.
    ImageTrigger(Span),
}

impl<'a> Line<'a> {
    /// An instruction whose origins are not known yet.
    pub(crate) fn new(statement: Cow<'a, Statement>, place: Place) -> Self {
        Self {
            statement,
            place,
            from: None,
            mounts: Vec::new(),
        }
    }

    /// Everything that the instruction takes files from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.from.iter().chain(self.mounts.iter().flatten())
    }

    /// Where a place in the instruction is in this file.
    pub(crate) fn locate(&self, span: Span) -> Span {
        match self.place {
            Place::ImageTrigger(from) => from,
            Place::Stage | Place::StageTrigger => span,
        }
    }

    /// The instruction's own place.
    pub(crate) fn span(&self) -> Span {
        self.locate(self.statement.span)
    }

    /// A diagnostic about the instruction, put in its place in this file.
    pub(crate) fn relocate(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Place::ImageTrigger(from) = self.place {
            diagnostic.message = format!(
                "in the ONBUILD trigger {:?}: {}",
                self.statement.text.as_str(),
                diagnostic.message
            );
            diagnostic.span = from;
            diagnostic.related.clear();
        }
        diagnostic
    }
}

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

    /// What the `from` of a COPY or a mount in stage `number` names: an earlier stage by name or number, or an
    /// image. The parser has refused variables in it.
    pub(crate) fn origin(
        &self,
        from: &Spanned<&str>,
        verb: &str,
        number: usize,
        options: &LowerOptions,
    ) -> Result<Origin, Diagnostic> {
        let (name, platform) = (from.value, &options.target_platform);
        if let Ok(index) = name.parse::<usize>() {
            return self.numbered(from.span, verb, index, number);
        }
        // Names of stages are kept in lower case.
        let lower = name.to_ascii_lowercase();
        if let Some(plan) = self
            .earlier(&lower, number)
            .and_then(|stage| self.plans.get(stage))
        {
            return Ok(plan.as_source());
        }
        if let Some(plan) = self.later(&lower, number).and_then(|stage| self.plans.get(stage)) {
            if plan.replaced {
                return Ok(plan.as_source());
            }
            return Err(self.not_before(from.span, verb, plan.number, number));
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(Origin::Scratch);
        }
        if let Some(origin) = contexts::origin(name, platform, from.span, options) {
            return Ok(origin);
        }
        let reference = Reference::parse(name).map_err(|error| {
            let diagnostic = Diagnostic::error(
                from.span,
                format!("{name:?} is neither a stage nor an image name: {error}"),
            );
            match suggest::hint(name, self.names()) {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        })?;
        let written = name.to_owned();
        Ok(Origin::Image(Box::new(ImageRequest {
            reference,
            platform: platform.clone(),
            written,
            span: from.span,
            context: None,
        })))
    }

    fn numbered(&self, span: Span, verb: &str, index: usize, number: usize) -> Result<Origin, Diagnostic> {
        if let Some(plan) = self
            .plans
            .get(index)
            .filter(|plan| index < number || plan.replaced)
        {
            return Ok(plan.as_source());
        }
        if index < self.plans.len() {
            return Err(self.not_before(span, verb, index, number));
        }
        let last = self.plans.len().saturating_sub(1);
        let error = Diagnostic::error(span, format!("there is no stage {index}"));
        Err(error.hint(format!("stages are counted from 0; the last one is {last}")))
    }

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
    fn not_before(&self, span: Span, verb: &str, wanted: usize, number: usize) -> Diagnostic {
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

    /// Finds out what the `from`s of a stage's instructions name. Those done already stay as they are.
    pub(crate) fn bind(&mut self, number: usize, options: &LowerOptions) -> Result<(), Vec<Diagnostic>> {
        let mut origins = Vec::new();
        let mut errors = Vec::new();
        for (position, line) in self.plans[number].lines.iter().enumerate() {
            if line.from.is_some() || !line.mounts.is_empty() {
                continue;
            }
            let find = |from: Option<Spanned<&str>>, verb| {
                let mut origin = from
                    .map(|from| self.origin(&from, verb, number, options))
                    .transpose();
                if let Ok(Some(Origin::Image(request))) = &mut origin {
                    request.span = line.locate(request.span);
                }
                origin.map_err(|error| line.relocate(error))
            };
            let (from, mounts) = match &line.statement.instruction {
                Instruction::Copy(copy) => {
                    let from = copy
                        .from
                        .as_ref()
                        .map(|from| Spanned::new(from.value.as_str(), from.span));
                    (find(from, "copy"), Vec::new())
                }
                Instruction::Run(run) => {
                    let mounts = run.mounts.iter().map(|mount| find(mount.from(), "mount"));
                    (Ok(None), mounts.collect())
                }
                _ => continue,
            };
            let mut keep = |found: Result<Option<Origin>, Diagnostic>| {
                found.unwrap_or_else(|error| {
                    errors.push(error);
                    None
                })
            };
            let from = keep(from);
            let mounts: Vec<Option<Origin>> = mounts.into_iter().map(&mut keep).collect();
            origins.push((position, from, mounts));
        }
        for (position, from, mounts) in origins {
            let line = &mut self.plans[number].lines[position];
            (line.from, line.mounts) = (from, mounts);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
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
