//! A look at a whole Dockerfile that builds nothing: every stage is gone through, whatever errors there are.

use std::collections::{BTreeMap, BTreeSet};

use kiln_parser::{Diagnostic, Dockerfile};

use crate::budget::Budget;
use crate::config;
use crate::expansion::Expander;
use crate::images::Images;
use crate::instruction::{self, Context};
use crate::lint::Linter;
use crate::lower::{MOST_ERRORS, platform_warnings};
use crate::options::LowerOptions;
use crate::resolve::ImageResolver;
use crate::scope::GlobalScope;
use crate::settle;
use crate::stage::{Line, Origin, Plan, Table};
use crate::state::StageState;

/// Is shown what the survey comes by.
pub(crate) trait Observer {
    /// The global ARGs have their values.
    fn globals(&mut self, _dockerfile: &Dockerfile, _options: &LowerOptions, _globals: &GlobalScope) {}

    /// A stage begins. `is_blind`: nothing is known of what it is built from.
    fn begin(&mut self, _plan: &Plan<'_>, _is_blind: bool) {}

    /// An instruction is about to change `state`.
    fn before(&mut self, _plan: &Plan<'_>, _line: &Line<'_>, _state: &StageState) {}

    /// An instruction has changed `state`.
    fn after(&mut self, _plan: &Plan<'_>, _line: &Line<'_>, _state: &StageState) {}
}

/// Looks at nothing.
pub(crate) struct Unobserved;

impl Observer for Unobserved {}

impl Observer for Linter<'_> {
    fn globals(&mut self, dockerfile: &Dockerfile, options: &LowerOptions, globals: &GlobalScope) {
        self.stage_lines(dockerfile, options, globals);
    }

    fn begin(&mut self, plan: &Plan<'_>, is_blind: bool) {
        Linter::begin(self, plan.number, plan.base_stage(), is_blind);
    }

    fn before(&mut self, plan: &Plan<'_>, line: &Line<'_>, state: &StageState) {
        self.line(plan, line, state);
    }
}

/// What a survey found by itself.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Everything that is wrong.
    pub(crate) errors: Vec<Diagnostic>,
    /// Images of another platform.
    pub(crate) warnings: Vec<Diagnostic>,
    /// The stage that is the target.
    pub(crate) target: Option<usize>,
}

/// Which stages are looked at when no target is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    File,
    /// What the last one needs.
    Target,
}

/// Looks at the stages that the target needs, or at all.
pub(crate) fn survey(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
    scope: Scope,
    observer: &mut dyn Observer,
) -> Survey {
    let mut survey = Survey::default();
    let budget = Budget::default();
    let expander = Expander::new(dockerfile.escape(), &budget);
    let globals = match GlobalScope::evaluate(dockerfile, options, expander) {
        Ok(globals) => globals,
        Err(errors) => {
            survey.errors = errors;
            return survey;
        }
    };
    let context = Context {
        options,
        globals: &globals,
        expander,
    };
    observer.globals(dockerfile, options, &globals);
    let mut table = Table::new(dockerfile, context);
    let target = match table.target(options) {
        Ok(target) => target,
        Err(error) => {
            survey.errors.push(error);
            return survey;
        }
    };
    survey.target = Some(target);
    let targets: Vec<usize> = if scope == Scope::File && options.target.is_none() {
        (0..table.plans.len()).collect()
    } else {
        vec![target]
    };
    let mut images = Images::default();
    let errors = &mut survey.errors;
    let needed = settle::survey(&mut table, &targets, &mut images, options, resolver, errors);
    stages(&table, &needed, &images, context, observer, errors);
    survey.warnings = platform_warnings(&images);
    survey
}

/// Carries all instructions out as far as the stages' states go. A stage whose base is not known begins empty.
fn stages(
    table: &Table<'_>,
    needed: &BTreeSet<usize>,
    images: &Images,
    context: Context<'_>,
    observer: &mut dyn Observer,
    errors: &mut Vec<Diagnostic>,
) {
    let empty = || StageState::from_image(config::scratch(&context.options.target_platform));
    let mut states: BTreeMap<usize, StageState> = BTreeMap::new();
    for plan in needed.iter().filter_map(|number| table.plans.get(*number)) {
        let known = match plan.base.as_ref() {
            Ok(Origin::Scratch) => Some(empty()),
            Ok(Origin::Stage(base)) => states.get(base).map(StageState::child),
            Ok(Origin::Image(request)) => images
                .get(&request.key())
                .map(|image| StageState::from_image(config::inherit_image(&image.config))),
            Ok(Origin::Files(files)) => Some(StageState::from_image(config::files(
                &files.name,
                &files.platform,
            ))),
            Err(_) => None,
        };
        observer.begin(plan, known.is_none());
        let mut state = known.unwrap_or_else(empty);
        let budget = context.expander.budget();
        if let Err(error) = budget.charge(state.weight(), plan.span) {
            errors.push(error);
            return;
        }
        for line in &plan.lines {
            observer.before(plan, line, &state);
            let lowered = instruction::lower(line, &mut state, context);
            match lowered.and_then(|()| budget.charge(state.last_weight(), line.span())) {
                Ok(()) => observer.after(plan, line, &state),
                Err(error) => {
                    errors.push(line.relocate(error));
                    // Thousands of the same error help nobody.
                    if errors.len() >= MOST_ERRORS {
                        return;
                    }
                }
            }
        }
        (state.steps, state.targets) = (Vec::new(), Vec::new());
        states.insert(plan.number, state);
    }
}
