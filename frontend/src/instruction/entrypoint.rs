//! `ENTRYPOINT`: the command that containers run. An empty list clears it.
//!
//! It drops a CMD that comes from the base or from a parent stage: those were arguments for another command. A
//! CMD earlier in the same stage stays.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Entrypoint;

use super::cmd;
use crate::history;
use crate::state::StageState;

pub(super) fn lower(entrypoint: &Entrypoint, stage: &mut StageState) -> Result<(), Diagnostic> {
    let command = cmd::arguments(&entrypoint.command, stage);
    stage.record(format!("ENTRYPOINT {}", history::quoted_list(&command)));
    stage.config.config.entrypoint = command;
    if !stage.has_cmd {
        stage.config.config.cmd.clear();
    }
    Ok(())
}
