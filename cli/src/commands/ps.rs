//! `kiln ps`.

use std::process::ExitCode;

use kiln_container::{ContainerState, Containers, Status};
use serde_json::json;

use crate::arguments::Ps;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;
use crate::table::Table;

/// As wide as Docker's column.
const COMMAND_WIDTH: usize = 20;

/// Runs `kiln ps`.
pub(crate) fn run(machine: &Machine, arguments: &Ps) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "table")?;
    let containers = Containers::new(&machine.store()?).list()?;
    let shown = containers
        .iter()
        .map(kiln_container::Container::state)
        .filter(|state| arguments.all || state.status == Status::Running);
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]);
    let mut text = String::new();
    for state in shown {
        let id: String = if arguments.no_trunc {
            state.id.clone()
        } else {
            state.id.chars().take(12).collect()
        };
        let command = state.command.join(" ");
        let command = if arguments.no_trunc {
            command
        } else {
            format::ellipsis(&command, COMMAND_WIDTH)
        };
        let created = format::ago(Some(&state.created), jiff::Timestamp::now());
        let status = status(state);
        if arguments.quiet {
            text.push_str(&format!("{id}\n"));
        } else if as_json {
            let value = json!({
                "ID": id, "Image": state.options.image_name, "Command": command, "CreatedAt": state.created,
                "Status": status, "State": state.status, "ExitCode": state.exit_code, "Names": state.name,
            });
            text.push_str(&format!("{value}\n"));
        } else {
            let command = format!("\"{}\"", crate::progress::visible(command.as_bytes()));
            table.row(vec![
                id,
                state.options.image_name.clone(),
                command,
                created,
                status,
                state.name.clone(),
            ]);
        }
    }
    super::print(&if arguments.quiet || as_json {
        text
    } else {
        table.render()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn status(state: &ContainerState) -> String {
    let since = |time: Option<&String>| format::ago(time.map(String::as_str), jiff::Timestamp::now());
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", since(state.started.as_ref()).trim_end_matches(" ago")),
        Status::Exited => match state.exit_code {
            Some(code) => format!("Exited ({code}) {}", since(state.finished.as_ref())),
            None => "Exited (137)".to_owned(),
        },
    }
}
