//! `kiln build`.

mod answers;
mod cache;
mod call;
#[cfg(test)]
mod catalogue;
mod context;
mod dockerfile;
mod export;
mod fields;
mod limits;
mod outputs;
mod secrets;
mod trust;
mod values;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kiln_cache::BuildId;
use kiln_frontend::{BuildError, BuildRequest, Fetch, LowerOptions, build};
use kiln_image::{Platform, Reference};
use kiln_solver::image::PullPolicy;
use kiln_solver::limits::Limits;
use kiln_solver::remote_cache::CacheOptions;
use kiln_solver::ssh::SshAgents;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Secrets, SolveError, StepFailure};

use self::context::Context;
use self::dockerfile::Dockerfile;
use self::export::Export;
use self::outputs::Outputs;
use self::trust::Verify;
use crate::arguments::{Build, Progress};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::{self, Failure};
use crate::signal::Interrupts;

/// What the arguments say on their own.
struct Options {
    tags: Vec<Reference>,
    outputs: Outputs,
    lower: LowerOptions,
    platforms: Vec<Platform>,
    secrets: Arc<Secrets>,
    ssh: SshAgents,
    limits: Limits,
    cache: CacheOptions,
    cache_ttl: Option<Duration>,
    verify: Option<Verify>,
}

/// What is told of a build that failed.
fn failure(machine: &Machine, request: &BuildRequest, error: &BuildError) -> Failure {
    let failure = Failure::build(error, &request.dockerfile, &request.dockerfile_name);
    let of_process = matches!(error, BuildError::Solve(SolveError::Step(step))
        if matches!(step.cause, StepFailure::Process { .. }));
    match &machine.entered.note {
        // What changes owners or becomes another user fails then, and says nothing that helps.
        Some(note) if of_process => failure.hint(format!("steps have one user id only: {note}")),
        _ => failure,
    }
}

/// Runs `kiln build`.
pub(crate) fn run(machine: &Machine, arguments: &Build) -> Result<ExitCode, Failure> {
    let quiet = arguments.quiet || arguments.progress == Progress::Quiet;
    let call = call::Call::of(arguments)?;
    let origin = context::origin(arguments)?;
    let options = options(machine, arguments)?;
    let engine = machine.engine()?;
    let written = arguments.iidfile.iter().chain(&arguments.metadata_file);
    for path in written.filter(|_| call.is_none()) {
        remove_stale(path)?;
    }
    if let Some(path) = arguments.metadata_file.as_ref().filter(|_| call.is_none()) {
        export::check_file(path)?;
    }
    let cancel = Cancel::new();
    let title = if call.is_some() { "Checking" } else { "Building" };
    let view = View::new(progress(arguments), title);
    let interrupts = Interrupts::cancel(&cancel, &view)?;
    let _upkeep = Upkeep::begin(engine.store(), machine.config.cache.limits());
    let reporter = Reporter::new(view.sink());
    let secrets = Arc::clone(&options.secrets);
    let fetch = Fetch {
        whose: "[internal]",
        keep_git_dir: false,
        commit_time: false,
        credentials: &*secrets,
        reporter: &reporter,
        cancel: &cancel,
    };
    let has_file = arguments.file.is_some();
    let (tags, outputs, verify) = (options.tags.clone(), options.outputs.clone(), options.verify);
    let prepared = context::open(origin, has_file, &options.lower, &engine, &fetch).and_then(|context| {
        let dockerfile = dockerfile::find(arguments, &context, &engine, &fetch)?;
        Ok((request(arguments, options, dockerfile, &context)?, context))
    });
    // The context is kept until the build has ended: files that were made for it go then.
    let (request, _context) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            view.finish();
            return Err(if crate::signal::came() {
                Failure::canceled()
            } else {
                failure
            });
        }
    };
    if let Some(call) = call {
        let answer = call::answer(&engine, &request, call, &reporter, &cancel);
        view.finish();
        drop(interrupts);
        return call::tell(answer, arguments, &request, call);
    }
    let id = BuildId::new();
    let result = build(&engine, &request, &id, &reporter, &cancel);
    let distrusted = result
        .as_ref()
        .ok()
        .and_then(|built| trust::failure(verify, &built.steps));
    let exported = result
        .as_ref()
        .ok()
        .filter(|_| distrusted.is_none())
        .map(|built| {
            let export = Export {
                engine: &engine,
                built,
                tags: &tags,
                reporter: &reporter,
                cancel: &cancel,
            };
            export.run(&outputs)
        });
    view.finish();
    if arguments.explain && !quiet {
        super::why::explain(engine.store(), &id, arguments.progress)?;
    }
    drop(interrupts);
    for note in engine.take_notes() {
        report::warning(&note);
    }
    for warning in engine.store().take_warnings() {
        report::warning(&warning.to_string());
    }
    let built = result.map_err(|error| match error {
        // Whatever a canceled build stumbled over is not what the user wants to know.
        _ if crate::signal::came() => Failure::canceled(),
        error => failure(machine, &request, &error),
    })?;
    if !quiet {
        report::build_warnings(&built.warnings, &request.dockerfile);
    }
    for argument in &built.unused_build_args {
        let suggestion = argument
            .suggestion
            .as_ref()
            .map(|name| format!("; did you mean {name}?"));
        let suggestion = suggestion.unwrap_or_default();
        report::warning(&format!(
            "--build-arg {}: no ARG declares it{suggestion}",
            argument.name
        ));
    }
    if let Some(failure) = distrusted {
        return Err(failure);
    }
    let root = exported.transpose().map_err(|failure| {
        if crate::signal::came() {
            Failure::canceled()
        } else {
            failure
        }
    })?;
    if let Some(path) = &arguments.metadata_file {
        let root = root.flatten();
        export::metadata(path, id.as_str(), &built, &request.names, root.as_ref())?;
    }
    if let Some(path) = &arguments.iidfile {
        std::fs::write(path, built.id.to_string()).map_err(|error| Failure::io("write", path, error))?;
    }
    if quiet && !outputs.use_stdout() {
        super::print(&format!("{}\n", built.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How progress is shown.
fn progress(arguments: &Build) -> Progress {
    if arguments.quiet {
        Progress::Quiet
    } else {
        arguments.progress
    }
}

/// An old id must not be taken for that of a build that fails.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Turns what was typed into what it means, as far as that goes without any file.
fn options(machine: &Machine, arguments: &Build) -> Result<Options, Failure> {
    let tags = arguments
        .tags
        .iter()
        .map(|tag| values::name(tag))
        .collect::<Result<Vec<_>, _>>()?;
    let mut options = LowerOptions::new(Platform::host());
    options.build_args = values::build_args(machine, &arguments.variables);
    options.target.clone_from(&arguments.target);
    options.no_cache = arguments.no_cache;
    options.no_cache_filter.clone_from(&arguments.no_cache_filter);
    options.labels = values::labels(&arguments.labels)?;
    options.network = values::network(&arguments.network)?;
    let surroundings = &arguments.surroundings;
    limits::without_meaning(surroundings)?;
    options.entitlements = limits::entitlements(&surroundings.allow, &arguments.network)?;
    options.extra_hosts = limits::hosts(&surroundings.hosts)?;
    options.ulimits = limits::ulimits(&surroundings.ulimits)?;
    options.contexts = context::named(&arguments.named_contexts)?;
    Ok(Options {
        outputs: Outputs::new(arguments, &tags)?,
        tags,
        lower: options,
        platforms: super::platforms(&arguments.platforms)?,
        secrets: Arc::new(secrets::secrets(&machine.environment, &surroundings.secrets)?),
        ssh: secrets::ssh(&machine.environment, &surroundings.ssh)?,
        limits: limits::limits(surroundings)?,
        cache: cache::options(&arguments.cache_from, &arguments.cache_to)?,
        cache_ttl: trust::ttl(arguments.cache_ttl.as_deref())?,
        verify: trust::verify(arguments.verify_cache.as_deref())?,
    })
}

/// The request, once the context is there.
fn request(
    arguments: &Build,
    options: Options,
    dockerfile: Dockerfile,
    context: &Context,
) -> Result<BuildRequest, Failure> {
    Ok(BuildRequest {
        ignore: dockerfile::ignore_file(dockerfile.path.as_deref(), context)?,
        dockerfile: dockerfile.bytes,
        dockerfile_name: dockerfile.name,
        context: context.main(),
        options: options.lower,
        names: options.outputs.names(&options.tags),
        compress: (options.outputs.early_compression()).or_else(|| options.cache.early_compression()),
        upload_to: options.outputs.early_upload(&options.tags),
        needs: options.outputs.needs(),
        platforms: options.platforms,
        pull: if arguments.pull {
            PullPolicy::Always
        } else {
            PullPolicy::Missing
        },
        jobs: arguments.jobs.max(1),
        credentials: Arc::<Secrets>::clone(&options.secrets),
        secrets: options.secrets,
        ssh: Arc::new(options.ssh),
        limits: options.limits,
        cache: options.cache,
        cache_ttl: options.cache_ttl,
        verify_cache: options.verify.map(|verify| verify.percent),
    })
}
