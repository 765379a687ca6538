//! `kiln builds ls`.

use std::process::ExitCode;

use kiln_cache::Store;
use kiln_frontend::BuildOutcome;
use serde_json::json;

use super::super::list::List;
use super::{read, seconds, short, time};
use crate::arguments::BuildsList;
use crate::format;
use crate::progress::visible;
use crate::report::Failure;

/// Names are shown up to here.
const NAME: usize = 50;

/// Runs `kiln builds ls`.
pub(super) fn run(store: &Store, arguments: &BuildsList) -> Result<ExitCode, Failure> {
    let heading = ["BUILD ID", "NAME", "STATUS", "CACHED", "CREATED", "DURATION"];
    let mut list = List::new(arguments.quiet, arguments.format.as_deref(), &heading)?;
    let now = jiff::Timestamp::now();
    for id in store.builds().list()? {
        // One that goes at this moment, or was made by another version, is not listed.
        let Some(found) = read(store, &id)? else { continue };
        let record = &found.record;
        let shown_id = if arguments.no_trunc {
            id.as_str()
        } else {
            short(&id)
        };
        let (cached, all) = found.cached();
        let json = || {
            let image = match &record.outcome {
                BuildOutcome::Succeeded { image, .. } => Some(image),
                _ => None,
            };
            json!({
                "ID": id.as_str(), "Name": found.title(), "Status": found.status(), "CreatedAt": time(record.began_ms),
                "Milliseconds": record.duration_ms, "CachedSteps": cached, "Steps": all, "Image": image,
                "Dockerfile": record.dockerfile, "Context": record.context, "Target": record.target,
                "Platform": record.platform,
            })
        };
        let cells = || {
            let created = format::ago(Some(&time(record.began_ms)), now);
            let duration = if found.running {
                String::new()
            } else {
                seconds(record.duration_ms)
            };
            vec![
                shown_id.to_owned(),
                format::ellipsis(&visible(found.title().as_bytes()), NAME),
                found.status().to_owned(),
                format!("{cached}/{all}"),
                created,
                duration,
            ]
        };
        list.add(shown_id, json, cells);
    }
    super::super::print(&list.render())?;
    Ok(ExitCode::SUCCESS)
}
