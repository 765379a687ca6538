//! `kiln import`.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use kiln_image::Reference;
use kiln_solver::ImportRequest;

use crate::arguments::Import;
use crate::machine::{Machine, Upkeep};
use crate::report::Failure;

/// Runs `kiln import`: prints the image's id, as Docker does.
pub(crate) fn run(machine: &Machine, arguments: &Import) -> Result<ExitCode, Failure> {
    let (platform, platform_requested) = super::platform(arguments.platform.as_deref())?;
    let name: Option<Reference> = arguments
        .name
        .as_ref()
        .map(|name| {
            name.parse()
                .map_err(|error| Failure::usage(format!("invalid name {name:?}: {error}")))
        })
        .transpose()?;
    let config = kiln_frontend::changed_config(&arguments.changes, &platform)
        .map_err(|error| Failure::usage(format!("--change {:?}: {}", error.instruction, error.message)))?;
    let from_stdin = arguments.file.as_os_str() == "-";
    let reader: Box<dyn Read + Send> = if from_stdin {
        Box::new(std::io::stdin())
    } else {
        let file =
            File::open(&arguments.file).map_err(|error| Failure::io("open", &arguments.file, error))?;
        Box::new(file)
    };
    let source = if from_stdin {
        "-".to_owned()
    } else {
        arguments.file.display().to_string()
    };
    let comment = arguments
        .message
        .clone()
        .unwrap_or_else(|| format!("Imported from {source}"));
    let engine = machine.engine()?;
    let _upkeep = Upkeep::begin(engine.store(), machine.config.cache.limits());
    let id = engine.import(
        reader,
        ImportRequest {
            config,
            platform,
            platform_requested,
            comment,
            name,
        },
    )?;
    super::print(&format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}
