//! `kiln history`.

use std::process::ExitCode;

use serde_json::json;

use crate::arguments::History;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;
use crate::table::Table;

/// As wide as Docker's column.
const COMMAND_WIDTH: usize = 45;

/// Runs `kiln history`.
pub(crate) fn run(machine: &Machine, arguments: &History) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "table")?;
    let store = machine.store()?;
    let record = store.images().require(&arguments.image)?;
    let config = super::inspect::config(&store, &record)?;
    let now = jiff::Timestamp::now();
    let mut layers = record.layers.iter();
    let mut rows = Vec::with_capacity(config.history.len());
    for entry in &config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(layer) => store.layers().require(&layer.layer)?.size(),
            None => 0,
        };
        rows.push((entry, size));
    }
    rows.reverse();
    let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    let mut text = String::new();
    for (position, (entry, size)) in rows.iter().enumerate() {
        let id = if position == 0 {
            format::id(&record.id, arguments.no_trunc)
        } else {
            "<missing>".to_owned()
        };
        let command = entry.created_by.clone().unwrap_or_default();
        let comment = entry.comment.clone().unwrap_or_default();
        if arguments.quiet {
            text.push_str(&format!("{id}\n"));
        } else if as_json {
            let value = json!({
                "ID": id, "CreatedAt": entry.created, "CreatedBy": command, "Size": format::size(*size),
                "Bytes": size, "Comment": comment,
            });
            text.push_str(&format!("{value}\n"));
        } else {
            // A heredoc has several lines, a cell has one.
            let command = crate::progress::visible(command.as_bytes());
            let shown = if arguments.no_trunc {
                command
            } else {
                format::ellipsis(&command, COMMAND_WIDTH)
            };
            let created = format::ago(entry.created.as_deref(), now);
            table.row(vec![id, created, shown, format::size(*size), comment]);
        }
    }
    super::print(&if arguments.quiet || as_json {
        text
    } else {
        table.render()
    })?;
    Ok(ExitCode::SUCCESS)
}
