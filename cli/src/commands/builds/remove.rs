//! `kiln builds rm`.

use std::process::ExitCode;

use kiln_cache::{BuildId, Store};

use super::{find_id, short};
use crate::arguments::BuildsRemove;
use crate::report::Failure;

/// Runs `kiln builds rm`: prints the ids of what went.
pub(super) fn run(store: &Store, arguments: &BuildsRemove) -> Result<ExitCode, Failure> {
    let builds = store.builds();
    if arguments.all {
        for id in builds.list()? {
            // One under way stays, and that is what is meant.
            if builds.remove(&id)? {
                gone(&id)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    // All are looked up before any goes: `latest` means one build, and a wrong id removes nothing.
    let ids: Vec<BuildId> = arguments
        .builds
        .iter()
        .map(|text| find_id(store, text))
        .collect::<Result<_, _>>()?;
    for id in ids {
        if !builds.remove(&id)? {
            return Err(Failure::message(format!("build {} is running", short(&id))));
        }
        gone(&id)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gone(id: &BuildId) -> Result<(), Failure> {
    super::super::print(&format!("{}\n", short(id)))
}
