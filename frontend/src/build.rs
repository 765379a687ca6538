//! A whole build: Dockerfile text in, named image out.
//!
//! This is the one place where parsing, lowering, solving and exporting meet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_cache::BuildId;
use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_parser::ignore::IgnoreFile;
use kiln_parser::{Diagnostic, LineIndex, Parsed, lint};
use kiln_solver::graph::SourceSpan;
use kiln_solver::image::{PullError, PullPolicy};
use kiln_solver::task::Reporter;
use kiln_solver::{
    Cancel, ContextPolicy, Engine, LocalContext, SolveError, SolveRequest, StepFailure, StepReport, chain,
};
use kiln_tree::TreePath;
use kiln_tree::walk::{Decision, WalkPolicy};

use crate::checks::{self, Findings};
use crate::lower::{UnusedBuildArg, lower};
use crate::options::LowerOptions;
use crate::outline::{Outline, outline};
use crate::record;
use crate::resolve::{ImageResolver, ResolveError, ResolveErrorKind, ResolvedImage};
use crate::step::source_span;

/// What a build is asked to do. Files are read already: the engine gets bytes, not paths, but for the context.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The Dockerfile's bytes.
    pub dockerfile: Vec<u8>,
    /// What the user calls it.
    pub dockerfile_name: String,
    /// The build context.
    pub context: PathBuf,
    /// The ignore file's name and bytes, when there is one.
    pub ignore: Option<(String, Vec<u8>)>,
    /// What decides about lowering.
    pub options: LowerOptions,
    /// The image's names.
    pub names: Vec<Reference>,
    /// When registries are asked for base images.
    pub pull: PullPolicy,
    /// As many steps may run at a time.
    pub jobs: usize,
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// The image's id.
    pub id: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// What became of each step.
    pub steps: Vec<StepReport>,
    /// Findings that did not stop the build.
    pub warnings: Vec<Diagnostic>,
    /// Build arguments that nothing declares.
    pub unused_build_args: Vec<UnusedBuildArg>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is wrong, or asks for what cannot be had.
    #[error("the Dockerfile has {} error(s)", .0.len())]
    Dockerfile(Vec<Diagnostic>),
    /// The ignore file is wrong.
    #[error("{name}: {message}")]
    Ignore {
        /// The ignore file.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A step failed, or the build was cancelled.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// The image could not be stored.
    #[error("failed to store the image")]
    Export(#[source] StepFailure),
}

/// Builds an image. `id` names the build in the store: its logs are kept under it, and in the end, good or bad, a
/// [`BuildRecord`](crate::BuildRecord).
pub fn build(
    engine: &Engine,
    request: &BuildRequest,
    id: &BuildId,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Built, BuildError> {
    let mut steps = Vec::new();
    let result = build_image(engine, request, id, reporter, cancel, &mut steps);
    record::keep(engine, request, id, reporter, steps, &result);
    result
}

/// Builds an image; `steps` tells in any case what became of each step.
fn build_image(
    engine: &Engine,
    request: &BuildRequest,
    id: &BuildId,
    reporter: &Reporter,
    cancel: &Cancel,
    steps: &mut Vec<StepReport>,
) -> Result<Built, BuildError> {
    let parsed = load(request, reporter)?;
    let ignore = ignore_file(request, reporter)?;
    let resolver = EngineResolver {
        engine,
        request,
        reporter,
    };
    let lowered = lower(&parsed.dockerfile, &request.options, ignore.as_deref(), &resolver)
        .map_err(BuildError::Dockerfile)?;
    let context = context(request, ignore);
    let warnings = warnings(parsed, lowered.warnings, request, reporter)?;
    let solve = SolveRequest {
        jobs: request.jobs,
        build: id.clone(),
        contexts: BTreeMap::from([(crate::MAIN_CONTEXT.to_owned(), context)]),
        network: request.options.network,
    };
    let solved = engine.solve(&lowered.graph, lowered.target, &solve, reporter, cancel);
    steps.clone_from(&solved.steps);
    let solution = solved.result?;
    let (config, unused_build_args) = (lowered.config, lowered.unused_build_args);
    let mut task = reporter.announce("exporting to image", Vec::new(), None);
    task.start();
    let exported = engine
        .export(&solution, config, &request.names)
        .map_err(|error| {
            task.failed(chain(&error));
            canceled_or(cancel, BuildError::Export(error))
        })?;
    task.progress(format!("writing image {}", exported.id), 0, None, true);
    for name in &request.names {
        task.progress(format!("naming to {name}"), 0, None, true);
    }
    task.done();
    Ok(Built {
        id: exported.id,
        config: exported.config,
        steps: solved.steps,
        warnings,
        unused_build_args,
    })
}

/// The user stopped a build while its image was written: that is no failure of the export.
fn canceled_or(cancel: &Cancel, error: BuildError) -> BuildError {
    if cancel.is_raised() {
        BuildError::Solve(SolveError::Canceled)
    } else {
        error
    }
}

/// Everything that the checks found and that is wanted. An error when that is as bad as one.
fn warnings(
    parsed: Parsed,
    evaluated: Vec<Diagnostic>,
    request: &BuildRequest,
    reporter: &Reporter,
) -> Result<Vec<Diagnostic>, BuildError> {
    let Parsed {
        dockerfile,
        diagnostics: mut warnings,
    } = parsed;
    warnings.extend(evaluated);
    if warnings.is_empty() {
        return Ok(warnings);
    }
    let settings = checks::settings(&request.options).map_err(one)?;
    checks::complete(&dockerfile, settings.as_ref(), &mut warnings);
    let index = LineIndex::new(&request.dockerfile);
    for warning in &warnings {
        let line = index.line(warning.extent().start);
        let rule = warning.rule.unwrap_or_default();
        reporter.warn(
            format!("{rule}: {} (line {line})", warning.message),
            Some(source_span(warning.span)),
        );
    }
    match lint::violation(&warnings) {
        Some(error) if checks::is_strict(&dockerfile, settings.as_ref()) => Err(one(error)),
        _ => Ok(warnings),
    }
}

fn one(error: Diagnostic) -> BuildError {
    BuildError::Dockerfile(vec![error])
}

/// What a build would find in its Dockerfile, at once and without running any step.
pub fn check_build(
    engine: &Engine,
    request: &BuildRequest,
    reporter: &Reporter,
) -> Result<Findings, BuildError> {
    let ignore = ignore_file(request, reporter)?;
    let resolver = EngineResolver {
        engine,
        request,
        reporter,
    };
    Ok(checks::check(
        &request.dockerfile,
        &request.options,
        ignore.as_deref(),
        &resolver,
    ))
}

/// What a build's target takes.
pub fn outline_build(
    engine: &Engine,
    request: &BuildRequest,
    reporter: &Reporter,
) -> Result<Outline, BuildError> {
    let parsed = load(request, reporter)?;
    let resolver = EngineResolver {
        engine,
        request,
        reporter,
    };
    outline(&parsed.dockerfile, &request.options, &resolver).map_err(BuildError::Dockerfile)
}

fn load(request: &BuildRequest, reporter: &Reporter) -> Result<Parsed, BuildError> {
    let name = format!(
        "[internal] load build definition from {}",
        request.dockerfile_name
    );
    let mut task = reporter.announce(name, Vec::new(), None);
    task.start();
    let parsed = kiln_parser::parse(&request.dockerfile);
    checks::language(&parsed.dockerfile, &request.options).map_err(|error| {
        task.failed(error.message.clone());
        one(error)
    })?;
    if parsed.has_errors() {
        task.failed("the Dockerfile is not valid");
        let errors = parsed
            .diagnostics
            .into_iter()
            .filter(Diagnostic::is_error)
            .collect();
        return Err(BuildError::Dockerfile(errors));
    }
    let size = request.dockerfile.len() as u64;
    task.progress("transferring dockerfile", size, Some(size), true);
    task.done();
    Ok(parsed)
}

fn ignore_file(request: &BuildRequest, reporter: &Reporter) -> Result<Option<Arc<IgnoreFile>>, BuildError> {
    let Some((name, bytes)) = &request.ignore else {
        return Ok(None);
    };
    let mut task = reporter.announce("[internal] load .dockerignore", Vec::new(), None);
    task.start();
    let file = IgnoreFile::parse(bytes, name).map_err(|error| {
        task.failed(error.to_string());
        BuildError::Ignore {
            name: name.clone(),
            message: error.to_string(),
        }
    })?;
    let size = bytes.len() as u64;
    task.progress("transferring context", size, Some(size), true);
    task.done();
    Ok(Some(Arc::new(file)))
}

fn context(request: &BuildRequest, ignore: Option<Arc<IgnoreFile>>) -> LocalContext {
    let policy: Arc<dyn ContextPolicy> = match ignore {
        None => Arc::new(Everything),
        Some(file) => Arc::new(Ignoring { file }),
    };
    LocalContext {
        directory: request.context.clone(),
        policy,
    }
}

/// A context without an ignore file.
#[derive(Debug)]
struct Everything;

impl WalkPolicy for Everything {
    fn decide(&self, _path: &TreePath, _is_dir: bool) -> Decision {
        Decision::Include
    }
}

impl ContextPolicy for Everything {
    fn why_excluded(&self, _path: &TreePath) -> Option<String> {
        None
    }
}

/// A context less what an ignore file names.
#[derive(Debug)]
struct Ignoring {
    file: Arc<IgnoreFile>,
}

impl WalkPolicy for Ignoring {
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision {
        if !self.file.matches(path.as_bytes()).excluded {
            Decision::Include
        } else if is_dir && self.file.could_reinclude_below(path.as_bytes()) {
            Decision::ExcludeButDescend
        } else {
            Decision::Prune
        }
    }
}

impl ContextPolicy for Ignoring {
    fn why_excluded(&self, path: &TreePath) -> Option<String> {
        let verdict = self.file.matches(path.as_bytes());
        let (line, pattern) = verdict.pattern.filter(|_| verdict.excluded)?;
        Some(format!("{}:{line} ({pattern})", self.file.name()))
    }
}

/// Resolves images through the engine, as a task of the build.
struct EngineResolver<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    reporter: &'a Reporter,
}

impl ImageResolver for EngineResolver<'_> {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let name = format!("[internal] load metadata for {reference}");
        let mut task = self.reporter.announce(name, Vec::new(), span);
        task.start();
        let requested =
            self.request.options.platform_requested || *platform != self.request.options.build_platform;
        match self
            .engine
            .images()
            .resolve(reference, platform, requested, self.request.pull)
        {
            Ok(resolved) => {
                task.done();
                self.engine.images().expect(&resolved, reference);
                Ok(ResolvedImage {
                    source: resolved.source,
                    config: resolved.config,
                    platform: resolved.platform,
                })
            }
            Err(error) => {
                task.failed(error.to_string());
                Err(ResolveError::new(kind(&error), error))
            }
        }
    }
}

fn kind(error: &PullError) -> ResolveErrorKind {
    use kiln_registry::ErrorKind;
    match error {
        PullError::NotLocal(_) => ResolveErrorKind::NotFound,
        PullError::NoPlatform { source, .. } => ResolveErrorKind::NoPlatform {
            available: source.available.clone(),
        },
        PullError::Registry(error) => match error.kind() {
            ErrorKind::NotFound => ResolveErrorKind::NotFound,
            ErrorKind::Unauthorized | ErrorKind::Denied => ResolveErrorKind::Unauthorized,
            ErrorKind::Unreachable(_) | ErrorKind::TlsUntrusted => ResolveErrorKind::Unreachable,
            _ => ResolveErrorKind::Other,
        },
        _ => ResolveErrorKind::Other,
    }
}
