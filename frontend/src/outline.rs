//! What a Dockerfile offers to who builds it: its targets, and the arguments and secrets of one of them.

use std::collections::{BTreeMap, BTreeSet};

use kiln_parser::ast::{Arg, Instruction, MountSpec, Run, Spanned};
use kiln_parser::mount::MountError;
use kiln_parser::{Diagnostic, Dockerfile, Span, expand};

use crate::budget::Budget;
use crate::expansion::Expander;
use crate::options::LowerOptions;
use crate::resolve::ImageResolver;
use crate::scope::GlobalScope;
use crate::stage::{Line, Plan};
use crate::state::StageState;
use crate::survey::{Observer, Scope, survey};

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Whether it is what a build without a target makes.
    pub is_default: bool,
    /// What a comment above it says.
    pub description: String,
    /// What it is built from, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: Option<String>,
    /// Its FROM.
    pub span: Span,
}

/// The stages of a file, in order.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let last = dockerfile.stages.len().saturating_sub(1);
    let stages = dockerfile.stages.iter().enumerate();
    stages
        .filter_map(|(number, stage)| {
            let (statement, from) = dockerfile.from(stage)?;
            Some(Target {
                name: stage.name.clone(),
                is_default: number == last,
                description: describe(&statement.comments, stage.name.as_deref()),
                base: from.image.text.clone(),
                platform: from.platform.as_ref().map(|platform| platform.text.clone()),
                span: statement.span,
            })
        })
        .collect()
}

/// What one target takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, when it has one.
    pub name: Option<String>,
    /// What a comment above it says.
    pub description: String,
    /// The build arguments that change something, in the order of the file.
    pub arguments: Vec<OutlineArgument>,
    /// The secrets.
    pub secrets: Vec<OutlineNeed>,
    /// The SSH agents.
    pub ssh: Vec<OutlineNeed>,
    /// The cache mounts, by identity.
    pub caches: Vec<OutlineNeed>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArgument {
    /// Its name.
    pub name: String,
    /// Its value in this build.
    pub value: Option<String>,
    /// Its default as written.
    pub default: Option<String>,
    /// What a comment above it says.
    pub description: String,
    /// Its ARG.
    pub span: Span,
}

/// Something that a RUN mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineNeed {
    /// Its identity.
    pub id: String,
    /// The build fails without it.
    pub required: bool,
    /// The RUN.
    pub span: Span,
}

/// What the target of `options` takes.
pub fn outline(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
) -> Result<Outline, Vec<Diagnostic>> {
    let mut collector = Collector {
        escape: dockerfile.escape(),
        ..Collector::default()
    };
    let survey = survey(dockerfile, options, resolver, Scope::Target, &mut collector);
    if !survey.errors.is_empty() {
        return Err(survey.errors);
    }
    let target = survey.target.unwrap_or_default();
    let stage = dockerfile.stages.get(target);
    let comments = stage
        .and_then(|stage| dockerfile.from(stage))
        .map_or(&[] as &[_], |(statement, _)| &statement.comments);
    let name = stage.and_then(|stage| stage.name.clone());
    let mut outline = Outline {
        description: describe(comments, name.as_deref()),
        name,
        ..Outline::default()
    };
    collector.gather(target, &mut outline);
    Ok(outline)
}

/// What a comment line `# name what it is for` says.
fn describe(comments: &[Spanned<String>], name: Option<&str>) -> String {
    let Some(name) = name else { return String::new() };
    comments
        .iter()
        .find_map(|comment| comment.value.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_default()
        .to_owned()
}

/// An argument, and the arguments that its default mentions.
#[derive(Debug, Clone)]
struct Declared {
    argument: OutlineArgument,
    mentions: Vec<String>,
}

/// What is known of a stage.
#[derive(Debug, Default)]
struct StageNotes {
    /// Stages that it needs, its base first.
    needs: Vec<usize>,
    declared: BTreeMap<String, Declared>,
    /// Arguments that it looks at.
    used: BTreeSet<String>,
    secrets: Vec<OutlineNeed>,
    ssh: Vec<OutlineNeed>,
    caches: Vec<OutlineNeed>,
}

#[derive(Debug, Default)]
struct Collector {
    escape: char,
    budget: Budget,
    globals: BTreeMap<String, Declared>,
    /// Build arguments of the request.
    given: BTreeSet<String>,
    /// What each FROM mentions, by stage.
    bases: Vec<Vec<String>>,
    stages: BTreeMap<usize, StageNotes>,
}

impl Observer for Collector {
    fn globals(&mut self, dockerfile: &Dockerfile, options: &LowerOptions, globals: &GlobalScope) {
        let given = options.build_args.keys();
        self.given = given
            .filter(|name| options.build_arg(name).is_some())
            .cloned()
            .collect();
        for statement in dockerfile.global() {
            if let Instruction::Arg(arg) = &statement.instruction {
                let value = |name: &str| globals.values.get(name).map(str::to_owned);
                let found = self.declarations(arg, statement.span, &statement.comments, value);
                self.globals.extend(found);
            }
        }
        let froms = dockerfile
            .stages
            .iter()
            .filter_map(|stage| dockerfile.from(stage));
        self.bases = froms
            .map(|(_, from)| {
                let words = std::iter::once(&from.image).chain(&from.platform);
                words.flat_map(|word| self.mentions(&word.text)).collect()
            })
            .collect();
    }

    fn begin(&mut self, plan: &Plan<'_>, _is_blind: bool) {
        let notes = StageNotes {
            needs: plan.stages().collect(),
            used: self
                .bases
                .get(plan.number)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            ..StageNotes::default()
        };
        self.stages.insert(plan.number, notes);
    }

    fn before(&mut self, plan: &Plan<'_>, line: &Line<'_>, state: &StageState) {
        if let Instruction::Run(run) = &line.statement.instruction
            && let Some(notes) = self.stages.get_mut(&plan.number)
        {
            notes.mounts(run, line.span(), Expander::new(self.escape, &self.budget), state);
        }
    }

    fn after(&mut self, plan: &Plan<'_>, line: &Line<'_>, state: &StageState) {
        let Instruction::Arg(arg) = &line.statement.instruction else {
            return;
        };
        let value = |name: &str| state.environment.get(name).map(str::to_owned);
        let span = line.span();
        let found = self.declarations(arg, span, &line.statement.comments, value);
        let (globals, given) = (&self.globals, &self.given);
        let Some(notes) = self.stages.get_mut(&plan.number) else {
            return;
        };
        for (name, declared) in found {
            notes.used.insert(name.clone());
            // What a bare ARG takes from the global one is described there.
            let is_bare = declared.argument.default.is_none() && !given.contains(&name);
            let is_inherited = is_bare && globals.contains_key(&name);
            if !is_inherited {
                notes.declared.insert(name, declared);
            }
        }
    }
}

impl Collector {
    fn mentions(&self, text: &str) -> Vec<String> {
        if text.contains('$') {
            expand::variables(text, self.escape).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    fn declarations(
        &self,
        arg: &Arg,
        span: Span,
        comments: &[Spanned<String>],
        value: impl Fn(&str) -> Option<String>,
    ) -> Vec<(String, Declared)> {
        let declare = |declaration: &kiln_parser::ast::ArgDeclaration| {
            let name = declaration.name.text.clone();
            let default = declaration.default.as_ref().map(|default| default.text.clone());
            let declared = Declared {
                mentions: default
                    .as_deref()
                    .map_or_else(Vec::new, |text| self.mentions(text)),
                argument: OutlineArgument {
                    value: value(&name),
                    default,
                    description: describe(comments, Some(&name)),
                    name: name.clone(),
                    span,
                },
            };
            (name, declared)
        };
        arg.declarations.iter().map(declare).collect()
    }

    /// Puts together what the target and all that it needs take.
    fn gather(&self, target: usize, outline: &mut Outline) {
        let mut seen = Seen::default();
        let mut visited = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(number) = waiting.pop() {
            let Some(notes) = self.stages.get(&number).filter(|_| visited.insert(number)) else {
                continue;
            };
            self.arguments(notes, &mut seen.arguments, outline);
            for (from, into, seen) in [
                (&notes.secrets, &mut outline.secrets, &mut seen.secrets),
                (&notes.ssh, &mut outline.ssh, &mut seen.ssh),
                (&notes.caches, &mut outline.caches, &mut seen.caches),
            ] {
                into.extend(from.iter().filter(|need| seen.insert(need.id.clone())).cloned());
            }
            // The base comes next, so it goes on top.
            waiting.extend(notes.needs.iter().rev());
        }
        outline.arguments.sort_by_key(|argument| argument.span.start);
        for needs in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
            needs.sort_by_key(|need| need.span.start);
        }
    }

    /// The arguments that a stage looks at, and those that their defaults look at in turn.
    fn arguments(&self, notes: &StageNotes, seen: &mut BTreeSet<String>, outline: &mut Outline) {
        let mut waiting: Vec<&String> = notes.used.iter().collect();
        let mut visited = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            if !visited.insert(name) {
                continue;
            }
            let local = notes.declared.get(name);
            let global = self.globals.get(name);
            let Some(declared) = local.or(global) else {
                continue;
            };
            waiting.extend(&declared.mentions);
            if seen.insert(name.clone()) {
                outline.arguments.push(declared.argument.clone());
            }
        }
    }
}

/// What was told already.
#[derive(Debug, Default)]
struct Seen {
    arguments: BTreeSet<String>,
    secrets: BTreeSet<String>,
    ssh: BTreeSet<String>,
    caches: BTreeSet<String>,
}

/// A wrong mount: an error elsewhere.
struct UnusableMount;

impl From<MountError> for UnusableMount {
    fn from(_: MountError) -> Self {
        Self
    }
}

impl StageNotes {
    fn mounts(&mut self, run: &Run, span: Span, expander: Expander<'_>, state: &StageState) {
        for mount in &run.mounts {
            let expanded =
                mount.resolve(|word| expander.word(word, &state.environment).map_err(|_| UnusableMount));
            let Ok(spec) = expanded else { continue };
            let need = |id: String, required| OutlineNeed { id, required, span };
            match spec {
                MountSpec::Secret { id, required, .. } => self.secrets.push(need(id, required)),
                MountSpec::Ssh { id, required, .. } => {
                    let id = id.unwrap_or_else(|| "default".to_owned());
                    self.ssh.push(need(id, required));
                }
                MountSpec::Cache { id, target, .. } => self.caches.push(need(id.unwrap_or(target), false)),
                MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => {}
            }
        }
    }
}
