//! `kiln load`.

use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use kiln_image::load::LoadError as ArchiveError;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, LoadError, LoadRequest, LoadSource, Loaded};

use super::stdin::Stdin;
use crate::arguments::{Load, Progress};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::Failure;
use crate::signal::Interrupts;

/// Runs `kiln load`: prints Docker's lines.
pub(crate) fn run(machine: &Machine, arguments: &Load) -> Result<ExitCode, Failure> {
    let cancel = Cancel::new();
    let request = LoadRequest {
        platforms: super::platforms(&arguments.platforms)?,
        source: source(arguments.input.as_deref(), &cancel)?,
    };
    let engine = machine.engine()?;
    let _upkeep = Upkeep::begin(engine.store(), machine.config.cache.limits());
    let progress = Progress::auto_or_quiet(arguments.quiet);
    let view = View::new(progress, "Loading");
    let interrupts = Interrupts::cancel(&cancel, &view)?;
    let result = engine.load(request, &Reporter::new(view.sink()), &cancel);
    view.finish();
    drop(interrupts);
    for loaded in result.map_err(failure)? {
        super::print(&line(&loaded))?;
    }
    engine.store().sync_if_needed()?;
    Ok(ExitCode::SUCCESS)
}

fn source(input: Option<&Path>, cancel: &Cancel) -> Result<LoadSource, Failure> {
    let Some(path) = input else {
        if std::io::stdin().is_terminal() {
            return Err(Failure::usage("an archive is not read from a terminal")
                .hint("use -i FILE, or redirect: kiln load < app.tar"));
        }
        return Ok(LoadSource::Archive(Box::new(Stdin::new(cancel))));
    };
    if path.is_dir() {
        return Ok(LoadSource::Folder(path.to_owned()));
    }
    let file = File::open(path).map_err(|error| Failure::io("open", path, error))?;
    Ok(LoadSource::Archive(Box::new(file)))
}

/// Docker's lines of what was loaded.
fn line(loaded: &Loaded) -> String {
    let Some(name) = &loaded.name else {
        return format!("Loaded image ID: {}\n", loaded.id);
    };
    let name = name.familiar();
    let before = loaded.replaced.map(|before| {
        format!("The image {name} already exists, renaming the old one with ID {before} to empty string\n")
    });
    format!("{}Loaded image: {name}\n", before.unwrap_or_default())
}

fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::Canceled => Failure::canceled(),
        LoadError::Layer(error) => error.into(),
        LoadError::Archive(ArchiveError::NoPlatform {
            image,
            wanted,
            available,
        }) => super::no_platform(&image, &wanted, &available),
        LoadError::Archive(ArchiveError::NoImages) => Failure::error(&ArchiveError::NoImages)
            .hint("kiln import makes an image of the tar of a root file system"),
        error => Failure::error(&error),
    }
}
