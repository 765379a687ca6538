//! `kiln tag`.

use std::process::ExitCode;

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
    let record = store.images().require(&arguments.source)?;
    store.images().tag(&record.id, &target.to_string())?;
    Ok(ExitCode::SUCCESS)
}
