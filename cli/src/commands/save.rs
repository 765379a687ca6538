//! `kiln save`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use kiln_image::layout::Form;
use kiln_solver::{Engine, SaveError, SaveRequest};

use crate::arguments::{ArchiveFormat, Save};
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln save`.
pub(crate) fn run(machine: &Machine, arguments: &Save) -> Result<ExitCode, Failure> {
    let engine = machine.engine()?;
    let form = match arguments.format {
        ArchiveFormat::Docker => Form::Docker,
        ArchiveFormat::Oci => Form::Oci,
    };
    let request = SaveRequest {
        images: arguments.images.clone(),
        form,
        platforms: super::platforms(&arguments.platforms)?,
    };
    match &arguments.output {
        Some(path) => to_file(&engine, &request, path)?,
        None if std::io::stdout().is_terminal() => {
            return Err(
                Failure::usage("an archive is not written to a terminal").hint("use -o FILE, or redirect")
            );
        }
        None => engine
            .save(&request, BufWriter::new(std::io::stdout().lock()))
            .map_err(failure)
            .map(drop)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the target and renames: a failed save leaves no half archive.
fn to_file(engine: &Engine, request: &SaveRequest, path: &Path) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".kiln-{}", std::process::id()));
    let part = Path::new(&part);
    let file = File::create(part).map_err(|error| Failure::io("create", part, error))?;
    let saved = engine
        .save(request, BufWriter::with_capacity(1 << 20, file))
        .map_err(failure)
        .and_then(|mut writer| writer.flush().map_err(|error| Failure::io("write", path, error)))
        .and_then(|()| std::fs::rename(part, path).map_err(|error| Failure::io("create", path, error)));
    if saved.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(part);
    }
    saved
}

fn failure(error: SaveError) -> Failure {
    match error {
        SaveError::NoPlatform {
            image,
            wanted,
            available,
        } => super::no_platform(&image, &wanted, &available)
            .hint("--platform picks one of them; --format oci takes them all"),
        error => error.into(),
    }
}
