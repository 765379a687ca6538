//! `kiln system`.

mod df;
mod prune;

use std::collections::BTreeSet;
use std::process::ExitCode;

use kiln_container::Container;
use kiln_image::Digest;

use crate::arguments::System;
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln system …`.
pub(crate) fn run(machine: &Machine, command: &System) -> Result<ExitCode, Failure> {
    match command {
        System::Df(arguments) => df::run(machine, arguments),
        System::Prune(arguments) => prune::run(machine, arguments),
    }
}

/// The images that containers use.
fn used_images<'a>(containers: impl IntoIterator<Item = &'a Container>) -> BTreeSet<Digest> {
    containers
        .into_iter()
        .filter_map(|container| container.state().options.image)
        .collect()
}
