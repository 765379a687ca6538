//! A whole build: Dockerfile text in, named image out.
//!
//! This is the one place where parsing, lowering, solving and exporting meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_cache::BuildId;
use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_parser::ast::Stage;
use kiln_parser::{Diagnostic, Dockerfile, LineIndex, Parsed, lint};
use kiln_remote::Credentials;
use kiln_solver::graph::VertexId;
use kiln_solver::image::PullPolicy;
use kiln_solver::limits::Limits;
use kiln_solver::remote_cache::{CacheError, CacheOptions};
use kiln_solver::ssh::SshAgents;
use kiln_solver::task::Reporter;
use kiln_solver::verify::Percent;
use kiln_solver::{
    Cancel, Engine, LayerCompression, LazyImage, LocalKind, Needs, Secrets, SolveError, SolveRequest,
    StepFailure, StepReport, chain,
};

use crate::cache;
use crate::checks::{self, Findings};
use crate::export;
use crate::fetch::FetchError;
use crate::local;
use crate::lower::{Checks, UnusedBuildArg};
use crate::options::LowerOptions;
use crate::outline::{Outline, outline};
use crate::platforms::{LoweredAll, lower_all, variants};
use crate::record::{self, Announced};
use crate::resolver::EngineResolver;
use crate::step::source_span;

/// What a build is asked to do. Files are read already: the engine gets bytes, not paths, but for the context.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The Dockerfile's bytes.
    pub dockerfile: Vec<u8>,
    /// What the user calls it.
    pub dockerfile_name: String,
    /// The build context.
    pub context: MainContext,
    /// The name and bytes of the build context's ignore file, when there is one.
    pub ignore: Option<(String, Vec<u8>)>,
    /// What decides about lowering.
    pub options: LowerOptions,
    /// The platforms that were asked for. Each replaces the target platform of `options` in turn; without any, the
    /// image is for that one. More than one give an index.
    pub platforms: Vec<Platform>,
    /// The image's names.
    pub names: Vec<Reference>,
    /// When registries are asked for base images.
    pub pull: PullPolicy,
    /// As many steps may run at a time.
    pub jobs: usize,
    /// Secrets that steps may ask for.
    pub secrets: Arc<Secrets>,
    /// SSH agents that steps may ask for.
    pub ssh: Arc<SshAgents>,
    /// Limits of each step's process.
    pub limits: Limits,
    /// What proves to servers of remote sources who asks.
    pub credentials: Arc<dyn Credentials + Send>,
    /// How new layers are compressed as soon as they exist, for an image that is going to leave the store.
    pub compress: Option<LayerCompression>,
    /// Where a push will begin that wants layers in this form.
    pub upload_to: Option<Reference>,
    /// Caches from elsewhere, and caches to write.
    pub cache: CacheOptions,
    /// Results of RUN steps count only so long.
    pub cache_ttl: Option<Duration>,
    /// So many of each hundred cached steps are run once more, and the results compared.
    pub verify_cache: Option<Percent>,
    /// What is needed of the image here: layers that are only in a cache elsewhere are fetched when it takes that.
    pub needs: Needs,
}

/// Where the files of the main build context are.
#[derive(Debug, Clone)]
pub enum MainContext {
    /// A directory of the user's.
    Directory(PathBuf),
    /// What was unpacked or fetched before the build.
    Fetched {
        /// Where it is now.
        directory: PathBuf,
        /// Whose the directory is.
        kind: LocalKind,
        /// Where it came from: an address without secrets, or `-`.
        name: String,
    },
}

impl MainContext {
    /// What the build's record calls it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.to_string_lossy().into_owned(),
            Self::Fetched { name, .. } => name.clone(),
        }
    }
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// The id of the image or of the index.
    pub id: Digest,
    /// The images; several when there is an index.
    pub images: Vec<BuiltImage>,
    /// The image or the index itself, if the store does not keep it: layers of it are only in registries.
    pub lazy: Option<LazyImage>,
    /// What became of each step.
    pub steps: Vec<StepReport>,
    /// Findings that did not stop the build.
    pub warnings: Vec<Diagnostic>,
    /// Build arguments that nothing declares.
    pub unused_build_args: Vec<UnusedBuildArg>,
}

/// A finished image for one platform.
#[derive(Debug)]
pub struct BuiltImage {
    /// The platform.
    pub platform: Platform,
    /// The image's id.
    pub id: Digest,
    /// Its configuration.
    pub config: ImageConfig,
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
    /// A named context could not be fetched.
    #[error("failed to load the context {name:?}")]
    Context {
        /// The context.
        name: String,
        /// The cause.
        #[source]
        source: FetchError,
    },
    /// A step failed, or the build was cancelled.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// The image could not be stored.
    #[error("failed to store the image")]
    Export(#[source] StepFailure),
    /// A cache could not be written.
    #[error("failed to export the cache to {target}")]
    CacheExport {
        /// Where it was to go.
        target: String,
        /// The cause.
        #[source]
        source: Box<CacheError>,
    },
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
    let announced = Announced::default();
    let result = build_image(engine, request, id, reporter, cancel, &announced, &mut steps);
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
    announced: &Announced,
    steps: &mut Vec<StepReport>,
) -> Result<Built, BuildError> {
    let parsed = load(request, reporter)?;
    warn_of_unknown_stages(&parsed.dockerfile, &request.options, reporter);
    let ignore = local::ignore_file(request, reporter)?;
    let resolver = EngineResolver::new(engine, request, reporter, cancel).map_err(one)?;
    let checks = Checks::All(ignore.as_deref());
    let lowered = lower_all(
        &parsed.dockerfile,
        &request.options,
        &request.platforms,
        checks,
        &resolver,
    )
    .map_err(|errors| canceled_or(cancel, BuildError::Dockerfile(errors)))?;
    let warnings = warnings(parsed, lowered.warnings, request, reporter)?;
    // Kept until the build has ended: directories that were made for it go then.
    let main = local::main(request, ignore);
    let locals = local::all(engine, main, &lowered.contexts, request, reporter, cancel)?;
    let solve = SolveRequest {
        jobs: request.jobs,
        build: id.clone(),
        contexts: locals.contexts,
        network: request.options.network,
        secrets: Arc::clone(&request.secrets),
        ssh: Arc::clone(&request.ssh),
        limits: request.limits.clone(),
        credentials: Arc::clone(&request.credentials),
        compress: request.compress,
        upload_to: request.upload_to.clone(),
        cache_imports: request.cache.imports.clone(),
        cache_exports: request.cache.exports_any(),
        cache_ttl: request.cache_ttl,
        verify: request.verify_cache,
        needs: request.needs,
        on_work: announced.hook(engine, request, id),
    };
    let targets: Vec<VertexId> = lowered.images.iter().map(|image| image.target).collect();
    let solved = engine.solve_all(&lowered.graph, &targets, &solve, reporter, cancel);
    steps.clone_from(&solved.steps);
    let solutions = solved.result?;
    let LoweredAll {
        mut images,
        is_index,
        unused_build_args,
        ..
    } = lowered;
    cache::inline(engine, request, &solved.cache, &solutions, &mut images)?;
    let mut task = reporter.announce("exporting to image", Vec::new(), None);
    task.start();
    let (id, images, lazy) =
        export::store(engine, &solutions, images, is_index, request).map_err(|error| {
            task.failed(chain(&error));
            canceled_or(cancel, BuildError::Export(error))
        })?;
    export::tell(&task, &id, &images, is_index, lazy.as_ref(), &request.names);
    task.done();
    cache::export(engine, request, &solved.cache, &solutions, reporter, cancel)?;
    Ok(Built {
        id,
        images,
        lazy,
        steps: solved.steps,
        warnings,
        unused_build_args,
    })
}

/// A stage that is to ignore the cache and does not exist is no error, as with Docker, but most likely a slip.
fn warn_of_unknown_stages(dockerfile: &Dockerfile, options: &LowerOptions, reporter: &Reporter) {
    let is_known = |filter: &String| {
        let named = |stage: &Stage| {
            let name = stage.name.as_ref();
            name.is_some_and(|name| name.eq_ignore_ascii_case(filter))
        };
        let number = filter.parse::<usize>();
        dockerfile.stages.iter().any(named) || number.is_ok_and(|number| number < dockerfile.stages.len())
    };
    for filter in options.no_cache_filter.iter().filter(|filter| !is_known(filter)) {
        reporter.warn(
            format!("--no-cache-filter {filter}: no stage is called that"),
            None,
        );
    }
}

/// The user stopped a build while its sources were looked up or its image was written: that is no failure of these.
fn canceled_or(cancel: &Cancel, error: BuildError) -> BuildError {
    if cancel.is_raised() {
        BuildError::Solve(SolveError::Canceled)
    } else {
        error
    }
}

/// How many warnings are told while the build runs: a file may have one a line.
const MOST_WARNINGS: usize = 100;

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
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let line = index.line(warning.extent().start);
        let rule = warning.rule.unwrap_or_default();
        reporter.warn(
            format!("{rule}: {} (line {line})", warning.message),
            Some(source_span(warning.span)),
        );
    }
    if let Some(more) = warnings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        reporter.warn(format!("{more} more warnings: --check shows all of them"), None);
    }
    match lint::violation(&warnings) {
        Some(error) if checks::is_strict(&dockerfile, settings.as_ref()) => Err(one(error)),
        _ => Ok(warnings),
    }
}

fn one(error: Diagnostic) -> BuildError {
    BuildError::Dockerfile(vec![error])
}

/// What a build would find in its Dockerfile, at once and without running any step. Several platforms give one answer.
pub fn check_build(
    engine: &Engine,
    request: &BuildRequest,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Findings, BuildError> {
    let ignore = local::ignore_file(request, reporter)?;
    let resolver = EngineResolver::new(engine, request, reporter, cancel).map_err(one)?;
    let variants = variants(&request.options, &request.platforms).map_err(one)?;
    Ok(checks::check_all(
        &request.dockerfile,
        &variants,
        ignore.as_deref(),
        &resolver,
    ))
}

/// What a build's target takes; of several platforms, that of the first one.
pub fn outline_build(
    engine: &Engine,
    request: &BuildRequest,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Outline, BuildError> {
    let parsed = load(request, reporter)?;
    let resolver = EngineResolver::new(engine, request, reporter, cancel).map_err(one)?;
    let variants = variants(&request.options, &request.platforms).map_err(one)?;
    let options = variants.first().unwrap_or(&request.options);
    outline(&parsed.dockerfile, options, &resolver)
        .map_err(|errors| canceled_or(cancel, BuildError::Dockerfile(errors)))
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
