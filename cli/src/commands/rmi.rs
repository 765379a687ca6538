//! `kiln rmi`.

use std::process::ExitCode;

use crate::arguments::Rmi;
use crate::exit;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln rmi`: goes on after an image that cannot be removed, and fails at the end.
pub(crate) fn run(machine: &Machine, arguments: &Rmi) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let mut failed = false;
    for image in &arguments.images {
        match store.images().remove(image, arguments.force) {
            Ok(removed) => {
                let untagged = removed
                    .untagged
                    .iter()
                    .map(|name| format!("Untagged: {}\n", familiar(name)));
                let deleted = removed.deleted.iter().map(|id| format!("Deleted: {id}\n"));
                super::print(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(kiln_cache::Error::ImageNotFound(_)) if arguments.force => {}
            Err(error) => {
                report::failure(&Failure::error(&error));
                failed = true;
            }
        }
    }
    Ok(if failed {
        ExitCode::from(exit::FAILURE)
    } else {
        ExitCode::SUCCESS
    })
}

fn familiar(name: &str) -> String {
    name.parse::<kiln_image::Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
