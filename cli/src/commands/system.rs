//! `kiln system`.

mod df;
mod prune;

use std::process::ExitCode;

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
