//! `kiln rm`.

use std::process::ExitCode;

use kiln_container::Containers;

use crate::arguments::Rm;
use crate::exit;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln rm`: goes on after a container that cannot be removed, and fails at the end.
pub(crate) fn run(machine: &Machine, arguments: &Rm) -> Result<ExitCode, Failure> {
    let containers = Containers::new(&machine.store()?);
    let mut failed = false;
    for name in &arguments.containers {
        match containers
            .find(name)
            .and_then(|container| container.remove(arguments.force))
        {
            Ok(()) => super::print(&format!("{name}\n"))?,
            Err(kiln_container::Error::NotFound(_)) if arguments.force => {}
            Err(error) => {
                report::failure(&Failure::error(&error));
                failed = true;
            }
        }
    }
    Ok(exit::code_of(failed))
}
