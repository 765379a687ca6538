//! `kiln run`.

use std::process::ExitCode;

use kiln_container::{Container, Containers, RunOptions, Volume};
use kiln_executor::{ExitStatus, Running, Stdio, Stream};
use kiln_image::{ImageConfig, Reference};
use kiln_solver::Engine;
use kiln_solver::image::PullPolicy;

use crate::arguments::{Progress, PullWhen, Run};
use crate::exit;
use crate::machine::Machine;
use crate::report::Failure;
use crate::terminal;

/// Runs `kiln run`: the exit code is the process's own.
pub(crate) fn run(machine: &Machine, arguments: &Run) -> Result<ExitCode, Failure> {
    start(machine, arguments).map_err(|failure| {
        if failure.code() == exit::FAILURE || failure.code() == exit::USAGE {
            failure.with_code(exit::ENGINE)
        } else {
            failure
        }
    })
}

fn start(machine: &Machine, arguments: &Run) -> Result<ExitCode, Failure> {
    if arguments.tty && arguments.interactive && !terminal::is_input() {
        return Err(Failure::message("the input device is not a terminal").hint("leave out -t"));
    }
    let engine = machine.engine()?;
    let Some((image, command)) = arguments.image_and_command.split_first() else {
        return Err(Failure::usage("an image is needed"));
    };
    let (record, config) = image_of(&engine, image, arguments)?;
    let options = RunOptions {
        image: Some(record),
        image_name: image.clone(),
        name: arguments.name.clone(),
        command: command.to_vec(),
        entrypoint: arguments.entrypoint.clone(),
        env: environment(machine, &arguments.env),
        workdir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        hostname: arguments.hostname.clone(),
        volumes: volumes(&arguments.volumes)?,
        terminal: arguments.tty,
        interactive: arguments.interactive,
        host_network: host_network(&arguments.network)?,
    };
    let mut container = Containers::new(engine.store()).create(options, &config.config)?;
    let result = foreground(&mut container, &config, arguments);
    if arguments.rm {
        container.remove(false)?;
    }
    Ok(ExitCode::from(result?.code()))
}

/// The image's id and configuration; pulled first when that is needed.
fn image_of(
    engine: &Engine,
    image: &str,
    arguments: &Run,
) -> Result<(kiln_image::Digest, ImageConfig), Failure> {
    let policy = match arguments.pull {
        PullWhen::Always => PullPolicy::Always,
        PullWhen::Missing => PullPolicy::Missing,
        PullWhen::Never => PullPolicy::Never,
    };
    let store = engine.store();
    let (platform, requested) = super::platform(arguments.platform.as_deref())?;
    let wanted = requested.then_some(&platform);
    let mut record = if policy == PullPolicy::Always {
        None
    } else {
        store.images().get_for(image, wanted)?
    };
    if record.is_none() {
        let reference: Reference = image
            .parse()
            .map_err(|error| Failure::usage(format!("invalid image name {image:?}: {error}")))?;
        let progress = Progress::auto_or_quiet(arguments.quiet);
        super::pull::pull(engine, &reference, (&platform, requested), policy, progress)?;
        record = store.images().get_for(image, wanted)?;
    }
    let record = match record {
        Some(record) => record,
        None => super::image(store, image, wanted)?,
    };
    if !requested && !record.platform.satisfies(&platform) && !record.platform.os.is_empty() {
        crate::report::warning(&format!(
            "the image is for {}, this machine is {platform}, and no platform was asked for",
            record.platform
        ));
    }
    let config = super::inspect::config(store, &record)?;
    Ok((record.id, config))
}

/// `NAME=value`; `NAME` alone is taken from this environment, or left out when it is not there.
fn environment(machine: &Machine, variables: &[String]) -> Vec<String> {
    variables
        .iter()
        .filter_map(|variable| match variable.split_once('=') {
            Some(_) => Some(variable.clone()),
            None => machine
                .environment
                .get_raw(variable)
                .map(|value| format!("{variable}={value}")),
        })
        .collect()
}

/// Relative host paths are taken from the current folder, as Docker does for `./` and `../`.
fn volumes(values: &[String]) -> Result<Vec<Volume>, Failure> {
    let mut volumes = Vec::new();
    for value in values {
        let absolute = if value.starts_with("./") || value.starts_with("../") || value.starts_with(".:") {
            let (path, rest) = value.split_once(':').unwrap_or((value, ""));
            let path = std::path::absolute(path).map_err(|error| Failure::io("resolve", path, error))?;
            format!("{}:{rest}", path.display())
        } else {
            value.clone()
        };
        volumes.push(Volume::parse(&absolute).map_err(|error| Failure::usage(error.to_string()))?);
    }
    Ok(volumes)
}

fn host_network(text: &str) -> Result<bool, Failure> {
    match text {
        "host" | "default" => Ok(true),
        "none" => Ok(false),
        other => Err(Failure::usage(format!(
            "--network {other}: only host and none are supported yet"
        ))),
    }
}

/// Runs the process with this program's own streams, or a terminal between.
fn foreground(
    container: &mut Container,
    config: &ImageConfig,
    arguments: &Run,
) -> Result<ExitStatus, Failure> {
    let stdio = if arguments.tty {
        Stdio::Terminal(terminal::size())
    } else {
        let stdin = if arguments.interactive {
            Stream::Inherit
        } else {
            Stream::Null
        };
        Stdio::Streams {
            stdin,
            stdout: Stream::Inherit,
            stderr: Stream::Inherit,
        }
    };
    let emulator = kiln_solver::emulator(&config.platform()).map_err(|error| {
        let failure = Failure::error(&error).hint(error.remedy.clone());
        failure.with_code(exit::ENGINE)
    })?;
    let backend = kiln_executor::Builtin::new()?;
    let resolv_conf = crate::machine::resolv_conf();
    let running: Running = container
        .start(&backend, &config.config, stdio, &resolv_conf, emulator)
        .map_err(|error| {
            let code = error.exit_code();
            Failure::error(&error).with_code(code)
        })?;
    let status = terminal::attend(running, arguments.interactive)?;
    container.ended(status)?;
    Ok(status)
}
