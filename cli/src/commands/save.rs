//! `kiln save`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use kiln_image::layout::Form;
use kiln_solver::{SaveError, SaveRequest};

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
        names: None,
        compression: None,
    };
    match &arguments.output {
        Some(path) => into_file(path, |out| engine.save(&request, out).map(drop).map_err(failure))?,
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

/// Lets `write` write a file: beside the target, which it becomes by a rename, so that a failure leaves no half file.
/// What is no regular file (a pipe, a device) is written to as it is.
pub(super) fn into_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let special = std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
    let mut part = path.as_os_str().to_owned();
    if !special {
        part.push(format!(".kiln-{}", std::process::id()));
    }
    let part = Path::new(&part);
    let file = File::create(part).map_err(|error| Failure::io("create", part, error))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out).and_then(|value| {
        out.flush().map_err(|error| Failure::io("write", path, error))?;
        if !special {
            std::fs::rename(part, path).map_err(|error| Failure::io("create", path, error))?;
        }
        Ok(value)
    });
    if written.is_err() && !special {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(part);
    }
    written
}

pub(super) fn failure(error: SaveError) -> Failure {
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
