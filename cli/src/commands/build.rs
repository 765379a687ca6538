//! `kiln build`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln_cache::BuildId;
use kiln_frontend::{BuildRequest, LowerOptions, build};
use kiln_image::{Platform, Reference};
use kiln_solver::Cancel;
use kiln_solver::graph::NetworkMode;
use kiln_solver::image::PullPolicy;
use kiln_solver::task::Reporter;

use crate::arguments::{Build, Progress};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::{self, Failure};
use crate::signal::Interrupts;

/// A Dockerfile larger than this is a mistake, such as `-f` on an archive.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// Runs `kiln build`.
pub(crate) fn run(machine: &Machine, arguments: &Build) -> Result<ExitCode, Failure> {
    let quiet = arguments.quiet || arguments.progress == Progress::Quiet;
    let request = request(machine, arguments)?;
    let engine = machine.engine()?;
    if let Some(path) = &arguments.iidfile {
        remove_stale(path)?;
    }
    let cancel = Cancel::new();
    let view = View::new(
        if quiet {
            Progress::Quiet
        } else {
            arguments.progress
        },
        "Building",
    );
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
        report::build_warnings(&built.warnings, &request.dockerfile, &request.dockerfile_name);
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

/// An old id must not be taken for that of a build that fails.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Turns what was typed into what it means.
fn request(machine: &Machine, arguments: &Build) -> Result<BuildRequest, Failure> {
    let context = context(&arguments.context)?;
    let (dockerfile, dockerfile_name, dockerfile_path) = dockerfile(arguments, &context)?;
    let names = arguments
        .tags
        .iter()
        .map(|tag| name(tag))
        .collect::<Result<Vec<_>, _>>()?;
    let (target_platform, platform_requested) = super::platform(arguments.platform.as_deref())?;
    let mut options = LowerOptions::new(Platform::host());
    options.target_platform = target_platform;
    options.platform_requested = platform_requested;
    options.build_args = build_args(machine, &arguments.variables);
    options.target.clone_from(&arguments.target);
    options.no_cache = arguments.no_cache;
    options.no_cache_filter.clone_from(&arguments.no_cache_filter);
    options.labels = labels(&arguments.labels)?;
    options.network = network(&arguments.network)?;
    Ok(BuildRequest {
        dockerfile,
        ignore: ignore_file(dockerfile_path.as_deref(), &context)?,
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

fn context(path: &Path) -> Result<PathBuf, Failure> {
    let text = path.to_string_lossy();
    if text == "-" || text.contains("://") || text.starts_with("git@") {
        return Err(Failure::usage(format!(
            "context {text}: only folders are supported as build context yet"
        )));
    }
    let absolute =
        std::fs::canonicalize(path).map_err(|error| Failure::io("open the build context", path, error))?;
    if absolute.is_dir() {
        Ok(absolute)
    } else {
        Err(Failure::message(format!(
            "the build context {} is not a folder",
            path.display()
        )))
    }
}

/// The Dockerfile's bytes, its name in messages, and its path when it is a file.
fn dockerfile(arguments: &Build, context: &Path) -> Result<(Vec<u8>, String, Option<PathBuf>), Failure> {
    let path = match &arguments.file {
        Some(path) if path.as_os_str() == "-" => {
            let bytes = read(&mut std::io::stdin().lock(), Path::new("standard input"))?;
            return Ok((bytes, "Dockerfile".to_owned(), None));
        }
        Some(path) => path.clone(),
        None => {
            let usual = context.join("Dockerfile");
            // Docker takes the name in small letters, too.
            let small = context.join("dockerfile");
            if !usual.exists() && small.exists() {
                small
            } else {
                usual
            }
        }
    };
    let mut file = std::fs::File::open(&path).map_err(|error| not_found(&path, error))?;
    let bytes = read(&mut file, &path)?;
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    Ok((bytes, name, Some(path)))
}

fn read(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read the Dockerfile", path, error))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(Failure::message(format!(
            "{} is larger than any Dockerfile",
            path.display()
        )));
    }
    Ok(bytes)
}

/// A missing Dockerfile: which names would come near.
fn not_found(path: &Path, error: std::io::Error) -> Failure {
    if error.kind() != std::io::ErrorKind::NotFound {
        return Failure::io("read the Dockerfile", path, error);
    }
    let failure = Failure::message(format!(
        "failed to read the Dockerfile: {} does not exist",
        path.display()
    ));
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return failure;
    };
    let mut near: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .ok()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
        })
        .filter(|name| {
            name.to_lowercase().contains("dockerfile") || name.to_lowercase().contains("containerfile")
        })
        .filter(|name| !name.ends_with(".dockerignore"))
        .collect();
    near.sort();
    if near.is_empty() {
        failure
    } else {
        failure.hint(format!("there is {}; name it with -f", near.join(", ")))
    }
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` of the context.
fn ignore_file(dockerfile: Option<&Path>, context: &Path) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let specific = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in specific.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                return Ok(Some((name, bytes)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io("read", &path, error)),
        }
    }
    Ok(None)
}

fn name(text: &str) -> Result<Reference, Failure> {
    let reference: Reference = text
        .parse()
        .map_err(|error| Failure::usage(format!("invalid tag {text:?}: {error}")))?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!(
            "invalid tag {text:?}: a digest cannot be given to an image"
        )));
    }
    Ok(reference)
}

/// `NAME=VALUE`; `NAME` alone takes the value from the environment, and counts as not given when it has none.
/// Proxy settings of the environment are passed on as Docker's client does when it is configured so: not here.
fn build_args(machine: &Machine, arguments: &[String]) -> BTreeMap<String, Option<String>> {
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (
                argument.clone(),
                machine.environment.get_raw(argument).map(str::to_owned),
            ),
        })
        .collect()
}

fn labels(labels: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    labels
        .iter()
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() {
                return Err(Failure::usage(format!("--label {label}: the name is missing")));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn network(text: &str) -> Result<NetworkMode, Failure> {
    match text {
        // Until networks of Kiln's own exist, the default is the host's.
        "default" | "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(Failure::usage(format!(
            "--network {other}: expected default, host or none"
        ))),
    }
}
