//! `kiln ps`.

use std::process::ExitCode;

use kiln_container::{ContainerState, Containers, Status};
use serde_json::json;

use super::list::List;
use crate::arguments::Ps;
use crate::format;
use crate::machine::Machine;
use crate::progress::visible;
use crate::report::Failure;

/// As wide as Docker's column.
const COMMAND_WIDTH: usize = 20;

/// Digits of a short id.
const SHORT_ID: usize = 12;

/// Runs `kiln ps`.
pub(crate) fn run(machine: &Machine, arguments: &Ps) -> Result<ExitCode, Failure> {
    let heading = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"];
    let mut list = List::new(arguments.quiet, arguments.format.as_deref(), &heading)?;
    let containers = Containers::new(&machine.store()?).list()?;
    let now = jiff::Timestamp::now();
    for state in containers.iter().map(kiln_container::Container::state) {
        if !arguments.all && state.status != Status::Running {
            continue;
        }
        let id: String = if arguments.no_trunc {
            state.id.clone()
        } else {
            state.id.chars().take(SHORT_ID).collect()
        };
        let command = visible(state.command.join(" ").as_bytes());
        let command = if arguments.no_trunc {
            command
        } else {
            format::ellipsis(&command, COMMAND_WIDTH)
        };
        let image = &state.options.image_name;
        let status = status(state, now);
        let json = || {
            json!({
                "ID": id, "Image": image, "Command": command, "CreatedAt": state.created,
                "Status": status, "State": state.status, "ExitCode": state.exit_code, "Names": state.name,
            })
        };
        let cells = || {
            let created = format::ago(Some(&state.created), now);
            let command = format!("\"{command}\"");
            vec![
                id.clone(),
                image.clone(),
                command,
                created,
                status.clone(),
                state.name.clone(),
            ]
        };
        list.add(&id, json, cells);
    }
    super::print(&list.render())?;
    Ok(ExitCode::SUCCESS)
}

/// What Docker says about a container's state.
fn status(state: &ContainerState, now: jiff::Timestamp) -> String {
    let since = |time: Option<&String>| format::ago(time.map(String::as_str), now);
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", since(state.started.as_ref()).trim_end_matches(" ago")),
        Status::Exited => match state.exit_code {
            Some(code) => format!("Exited ({code}) {}", since(state.finished.as_ref())),
            None => "Exited (137)".to_owned(),
        },
    }
}
