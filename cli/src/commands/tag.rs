//! `kiln tag`.

use std::process::ExitCode;

use kiln_cache::Found;
use kiln_image::Reference;

use crate::arguments::Tag;
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln tag`.
pub(crate) fn run(machine: &Machine, arguments: &Tag) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let target: Reference = arguments
        .target
        .parse()
        .map_err(|error| Failure::usage(format!("invalid name {:?}: {error}", arguments.target)))?;
    if target.digest.is_some() {
        return Err(Failure::usage(format!(
            "invalid name {:?}: a digest cannot be given",
            arguments.target
        )));
    }
    let images = store.images();
    match images.find(&arguments.source)? {
        None => {
            return Err(Failure::error(&kiln_cache::Error::ImageNotFound(
                arguments.source.clone(),
            )));
        }
        Some(Found::Image(record)) => images.tag(&record.id, &target.to_string())?,
        Some(Found::Index(index)) => images.put_index(&index, &[target.to_string()])?,
    }
    Ok(ExitCode::SUCCESS)
}
