//! `kiln history`.

use std::process::ExitCode;

use serde_json::json;

use super::list::List;
use crate::arguments::History;
use crate::format;
use crate::machine::Machine;
use crate::progress::visible;
use crate::report::Failure;

/// As wide as Docker's column.
const COMMAND_WIDTH: usize = 45;

/// The id of steps that have no image of their own.
const MISSING: &str = "<missing>";

/// Runs `kiln history`.
pub(crate) fn run(machine: &Machine, arguments: &History) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let (platform, requested) = super::platform(arguments.platform.as_deref())?;
    let record = super::image(&store, &arguments.image, requested.then_some(&platform))?;
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
    let heading = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"];
    let mut list = List::new(arguments.quiet, arguments.format.as_deref(), &heading)?;
    for (position, (entry, size)) in rows.iter().enumerate() {
        let id = if position == 0 {
            format::id(&record.id, arguments.no_trunc)
        } else {
            MISSING.to_owned()
        };
        let command = entry.created_by.clone().unwrap_or_default();
        let comment = entry.comment.clone().unwrap_or_default();
        let json = || {
            json!({
                "ID": id, "CreatedAt": entry.created, "CreatedBy": command, "Size": format::size(*size),
                "Bytes": size, "Comment": comment,
            })
        };
        let cells = || {
            // A heredoc has several lines, a cell has one.
            let command = visible(command.as_bytes());
            let shown = if arguments.no_trunc {
                command
            } else {
                format::ellipsis(&command, COMMAND_WIDTH)
            };
            let created = format::ago(entry.created.as_deref(), now);
            vec![id.clone(), created, shown, format::size(*size), comment.clone()]
        };
        list.add(&id, json, cells);
    }
    super::print(&list.render())?;
    Ok(ExitCode::SUCCESS)
}
