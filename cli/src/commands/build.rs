//! `kiln build`.

mod answers;
mod call;
#[cfg(test)]
mod catalogue;
mod context;
mod dockerfile;
mod values;

use std::path::Path;
use std::process::ExitCode;

use kiln_cache::BuildId;
use kiln_frontend::{BuildRequest, LowerOptions, build};
use kiln_image::Platform;
use kiln_solver::Cancel;
use kiln_solver::image::PullPolicy;
use kiln_solver::task::Reporter;

use crate::arguments::{Build, Progress};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::{self, Failure};
use crate::signal::Interrupts;

/// Runs `kiln build`.
pub(crate) fn run(machine: &Machine, arguments: &Build) -> Result<ExitCode, Failure> {
    let quiet = arguments.quiet || arguments.progress == Progress::Quiet;
    let call = call::Call::of(arguments)?;
    let request = request(machine, arguments)?;
    if let Some(call) = call {
        return call::run(machine, arguments, &request, call);
    }
    let engine = machine.engine()?;
    if let Some(path) = &arguments.iidfile {
        remove_stale(path)?;
    }
    let cancel = Cancel::new();
    let view = View::new(progress(arguments), "Building");
    let interrupts = Interrupts::cancel(&cancel, &view)?;
    let _upkeep = Upkeep::begin(engine.store());
    let reporter = Reporter::new(view.sink());
    let result = build(&engine, &request, &BuildId::new(), &reporter, &cancel);
    view.finish();
    drop(interrupts);
    for note in engine.take_notes() {
        report::warning(&note);
    }
    let built = result.map_err(|error| match error {
        // Whatever a canceled build stumbled over is not what the user wants to know.
        _ if crate::signal::came() => Failure::canceled(),
        error => Failure::build(&error, &request.dockerfile, &request.dockerfile_name),
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
    if let Some(path) = &arguments.iidfile {
        std::fs::write(path, built.id.to_string()).map_err(|error| Failure::io("write", path, error))?;
    }
    if quiet {
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

/// Turns what was typed into what it means.
fn request(machine: &Machine, arguments: &Build) -> Result<BuildRequest, Failure> {
    let context = context::context(&arguments.context)?;
    let (dockerfile, dockerfile_name, dockerfile_path) = dockerfile::dockerfile(arguments, &context)?;
    let names = arguments
        .tags
        .iter()
        .map(|tag| values::name(tag))
        .collect::<Result<Vec<_>, _>>()?;
    let (target_platform, platform_requested) = super::platform(arguments.platform.as_deref())?;
    let mut options = LowerOptions::new(Platform::host());
    options.target_platform = target_platform;
    options.platform_requested = platform_requested;
    options.build_args = values::build_args(machine, &arguments.variables);
    options.target.clone_from(&arguments.target);
    options.no_cache = arguments.no_cache;
    options.no_cache_filter.clone_from(&arguments.no_cache_filter);
    options.labels = values::labels(&arguments.labels)?;
    options.network = values::network(&arguments.network)?;
    Ok(BuildRequest {
        dockerfile,
        ignore: dockerfile::ignore_file(dockerfile_path.as_deref(), &context)?,
        dockerfile_name,
        context,
        options,
        names,
        pull: if arguments.pull {
            PullPolicy::Always
        } else {
            PullPolicy::Missing
        },
        jobs: arguments.jobs.max(1),
    })
}
