//! The entry point: a Dockerfile and options in, a build graph and an image config out.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::{ImageConfig, Platform};
use kiln_parser::ast::Instruction;
use kiln_parser::ignore::IgnoreFile;
use kiln_parser::{Diagnostic, Dockerfile, suggest};
use kiln_solver::graph::{Graph, VertexId};

use crate::budget::Budget;
use crate::config;
use crate::expansion::Expander;
use crate::images::{ImageRequest, Images};
use crate::instruction::{self, Context};
use crate::lint::Linter;
use crate::options::LowerOptions;
use crate::remote::Remotes;
use crate::resolve::Resolver;
use crate::scope::GlobalScope;
use crate::settle::settle;
use crate::stage::{Origin, Plan, Table};
use crate::state::StageState;
use crate::step::{Emitter, Ground, Input, Layout, Naming};

/// What a Dockerfile lowers to.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The vertices of the target and of all that it needs.
    pub graph: Graph,
    /// The vertex whose snapshot is the image's root file system.
    pub target: VertexId,
    /// The image's configuration, complete but for the DiffIDs and the creation times. Its history is that of
    /// the base image and one entry for each instruction since.
    pub config: ImageConfig,
    /// The target stage's name, when it has one.
    pub target_stage: Option<String>,
    /// The names of the local contexts that the graph reads.
    pub contexts: BTreeSet<String>,
    /// Build arguments that no ARG declares.
    pub unused_build_args: Vec<UnusedBuildArg>,
    /// Findings that do not stop the build.
    pub warnings: Vec<Diagnostic>,
}

/// A `--build-arg` that no ARG declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedBuildArg {
    /// Its name.
    pub name: String,
    /// An ARG of the file with a similar name.
    pub suggestion: Option<String>,
}

/// Lowers a parsed Dockerfile. Errors come all at once where possible. An error that has no place in the file,
/// such as an unknown target stage, has an empty span. The warnings are those of all build checks that need more
/// than the parser knows; [`kiln_parser::lint::select`] leaves those that the file wants to hear.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    ignore: Option<&IgnoreFile>,
    resolver: &dyn Resolver,
) -> Result<Lowered, Vec<Diagnostic>> {
    lower_with(dockerfile, options, Checks::All(ignore), resolver)
}

/// Which build checks look on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Checks<'a> {
    /// All; the main context has this ignore file.
    All(Option<&'a IgnoreFile>),
    /// None: they have looked on already, for another platform.
    None,
}

/// The same, with more or less of the build checks.
pub(crate) fn lower_with(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    checks: Checks<'_>,
    resolver: &dyn Resolver,
) -> Result<Lowered, Vec<Diagnostic>> {
    let budget = Budget::default();
    let expander = Expander::new(dockerfile.escape(), &budget);
    let globals = GlobalScope::evaluate(dockerfile, options, expander)?;
    let context = Context {
        options,
        globals: &globals,
        expander,
    };
    let mut table = Table::new(dockerfile, context);
    let target = table.target(options).map_err(|error| vec![error])?;
    let mut images = Images::default();
    let needed = settle(&mut table, &[target], &mut images, options, resolver)?;

    // What the checks expand is no part of what is built.
    let patience = Budget::default();
    let mut linter = match checks {
        Checks::None => None,
        Checks::All(ignore) => {
            let escape = dockerfile.escape();
            let mut linter = Linter::new(Expander::new(escape, &patience), escape, ignore);
            linter.stage_lines(dockerfile, options, &globals);
            Some(linter)
        }
    };
    let mut built = lower_stages(&table, &needed, &images, linter.as_mut(), context)?;
    let mut remotes = Remotes::default();
    for input in built
        .values()
        .flat_map(|stage| &stage.state.steps)
        .flat_map(|step| &step.inputs)
    {
        if let Input::Remote(request, span) = input {
            remotes.request(request, *span);
        }
    }
    remotes.resolve(resolver)?;
    let mut emitter = Emitter::new(&images, &remotes, &options.build_platform);
    emit(&table, &built, &mut emitter, context);
    let vertex = emitter.stage_vertex(target);
    let (graph, contexts) = emitter.finish();
    let (Some(Built { state, .. }), Some(vertex)) = (built.remove(&target), vertex) else {
        // Stages are lowered in file order, and each needs earlier ones only.
        let span = table.plans[target].span;
        return Err(vec![Diagnostic::error(
            span,
            "the target needs a stage that was not built",
        )]);
    };
    let mut config = state.config;
    config::finish(&mut config, options);
    Ok(Lowered {
        graph,
        target: vertex,
        config,
        target_stage: table.plans[target].name.map(str::to_owned),
        contexts,
        unused_build_args: unused_build_args(dockerfile, &table, context),
        warnings: linter
            .map(Linter::finish)
            .unwrap_or_default()
            .into_iter()
            .chain(platform_warnings(&images))
            .collect(),
    })
}

/// Errors that are told of one file.
pub(crate) const MOST_ERRORS: usize = 100;

/// A stage whose instructions are lowered.
struct Built {
    ground: Ground,
    state: StageState,
    platforms: StagePlatforms,
}

/// The platforms of a stage.
#[derive(Debug, Clone)]
struct StagePlatforms {
    /// What its steps run on.
    actual: Platform,
    /// What its base was asked for: it shows in names.
    requested: Platform,
}

/// Lowers the needed stages in file order; all their errors come together. A stage whose base failed is left
/// out: its own errors would only be consequences.
fn lower_stages(
    table: &Table<'_>,
    needed: &BTreeSet<usize>,
    images: &Images,
    mut linter: Option<&mut Linter<'_>>,
    context: Context<'_>,
) -> Result<BTreeMap<usize, Built>, Vec<Diagnostic>> {
    let mut built = BTreeMap::new();
    let mut errors = Vec::new();
    for plan in needed.iter().filter_map(|number| table.plans.get(*number)) {
        let Some((ground, mut state, platforms)) = begin(plan, &built, images, context.options) else {
            continue;
        };
        let before = errors.len();
        if let Some(linter) = &mut linter {
            linter.begin(plan.number, plan.base_stage(), false);
        }
        let budget = context.expander.budget();
        if let Err(error) = budget.charge(state.weight(), plan.span) {
            errors.push(error);
            continue;
        }
        for line in &plan.lines {
            if let Some(linter) = &mut linter {
                linter.line(plan, line, &state);
            }
            let lowered = instruction::lower(line, &mut state, context);
            if let Err(error) = lowered.and_then(|()| budget.charge(state.last_weight(), line.span())) {
                errors.push(line.relocate(error));
                // Thousands of the same error help nobody.
                if errors.len() >= MOST_ERRORS {
                    return Err(errors);
                }
            }
        }
        if errors.len() == before {
            built.insert(
                plan.number,
                Built {
                    ground,
                    state,
                    platforms,
                },
            );
        }
    }
    if errors.is_empty() { Ok(built) } else { Err(errors) }
}

/// Puts the stages into the graph, in file order.
fn emit(table: &Table<'_>, built: &BTreeMap<usize, Built>, emitter: &mut Emitter<'_>, context: Context<'_>) {
    let has_labels = table.has_labels();
    for (number, stage) in built {
        let plan = &table.plans[*number];
        let label = if has_labels { plan.label() } else { String::new() };
        let layout = Layout {
            number: plan.number,
            label: &label,
            ground: stage.ground.clone(),
            from: plan.span,
            platform: &stage.platforms.actual,
            ignore_cache: context.options.ignores_cache(plan.number, plan.name),
            naming: context.options.multi_platform.then_some(Naming {
                platform: &stage.platforms.requested,
                targets: &stage.state.targets,
            }),
        };
        emitter.stage(&layout, &stage.state.steps);
    }
}

/// What a stage begins with; `None` when its base failed.
fn begin(
    plan: &Plan<'_>,
    built: &BTreeMap<usize, Built>,
    images: &Images,
    options: &LowerOptions,
) -> Option<(Ground, StageState, StagePlatforms)> {
    match plan.base.as_ref().ok()? {
        Origin::Scratch => {
            // Docker gives scratch the target's platform whatever FROM says.
            let platform = options.target_platform.clone();
            Some((
                Ground::Scratch,
                StageState::from_image(config::scratch(&platform)),
                StagePlatforms {
                    actual: platform.clone(),
                    requested: platform,
                },
            ))
        }
        Origin::Stage(base) => {
            let parent = built.get(base)?;
            Some((
                Ground::Stage(*base),
                parent.state.child(),
                parent.platforms.clone(),
            ))
        }
        Origin::Files(files) => Some((
            Ground::Files(files.name.clone()),
            StageState::from_image(config::files(&files.name, &files.platform)),
            StagePlatforms {
                actual: files.platform.clone(),
                requested: files.platform.clone(),
            },
        )),
        Origin::Image(request) => {
            let key = request.key();
            let image = images.get(&key)?;
            let state = StageState::from_image(config::inherit_image(&image.config));
            let ground = if images.is_empty_image(&key) {
                Ground::Scratch
            } else {
                Ground::Image(key)
            };
            let platforms = StagePlatforms {
                actual: image.platform.clone(),
                requested: request.platform.clone(),
            };
            Some((ground, state, platforms))
        }
    }
}

/// The images that exist only for another platform.
pub(crate) fn platform_warnings(images: &Images) -> Vec<Diagnostic> {
    let warning = |(request, actual): (&ImageRequest, &Platform)| {
        let ImageRequest {
            written,
            platform,
            span,
            ..
        } = request;
        let message = format!(
            "Base image {written} was pulled with platform \"{actual}\", expected \"{platform}\" for current build"
        );
        Diagnostic::warning("InvalidBaseImagePlatform", *span, message)
    };
    let mut warnings: Vec<Diagnostic> = images.platform_mismatches().map(warning).collect();
    warnings.sort_by_key(|warning| warning.span.start);
    warnings
}

/// The build arguments that no ARG of the file, nor of a trigger, declares.
fn unused_build_args(
    dockerfile: &Dockerfile,
    table: &Table<'_>,
    context: Context<'_>,
) -> Vec<UnusedBuildArg> {
    let lines = table
        .plans
        .iter()
        .flat_map(|plan| &plan.lines)
        .map(|line| line.statement.as_ref());
    let declared: BTreeSet<&str> = dockerfile
        .global()
        .iter()
        .chain(lines)
        .filter_map(|statement| match &statement.instruction {
            Instruction::Arg(arg) => Some(&arg.declarations),
            _ => None,
        })
        .flatten()
        .map(|declaration| declaration.name.as_str())
        .collect();
    let given = context.options.build_args.keys();
    given
        .filter(|name| !declared.contains(name.as_str()) && !context.globals.is_predefined(name))
        .map(|name| UnusedBuildArg {
            name: name.clone(),
            suggestion: suggest::nearest(name, declared.iter().copied()).map(str::to_owned),
        })
        .collect()
}
