//! `kiln rmi`.

use std::process::ExitCode;

use kiln_cache::Found;
use kiln_container::{Container, ContainerState, Containers, Status};
use kiln_image::{Digest, Reference};

use super::prune::familiar;
use crate::arguments::Rmi;
use crate::exit;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln rmi`: goes on after an image that cannot be removed, and fails at the end.
pub(crate) fn run(machine: &Machine, arguments: &Rmi) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let containers = Containers::new(&store).list()?;
    let mut failed = false;
    for image in &arguments.images {
        if let Some(found) = store.images().find(image)?
            && let Some(reason) = in_use(&found, image, &containers, arguments.force)
        {
            report::failure(&Failure::message(reason));
            failed = true;
            continue;
        }
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
    Ok(exit::code_of(failed))
}

/// Why the image must stay: a container needs its layers. As long as it keeps another name it stays anyway.
fn in_use(found: &Found, given: &str, containers: &[Container], force: bool) -> Option<String> {
    let is_name = given
        .parse::<Reference>()
        .is_ok_and(|name| found.names().contains(&name.to_string()));
    if is_name && found.names().len() > 1 {
        return None;
    }
    let ids: Vec<Digest> = match found {
        Found::Image(record) => vec![record.id],
        Found::Index(index) => index.images.iter().map(|entry| entry.image).collect(),
    };
    let uses = |state: &&ContainerState| state.options.image.is_some_and(|image| ids.contains(&image));
    let mut users = containers.iter().map(Container::state).filter(uses);
    let user = users
        .clone()
        .find(|state| state.status == Status::Running)
        .or_else(|| users.next())?;
    let is_running = user.status == Status::Running;
    if force && !is_running {
        return None;
    }
    let how = if is_running {
        "running container"
    } else {
        "container"
    };
    let remedy = if is_running {
        "remove it first"
    } else {
        "remove it first, or force"
    };
    Some(format!(
        "cannot remove image {given}: {how} {} uses it; {remedy}",
        user.name
    ))
}
