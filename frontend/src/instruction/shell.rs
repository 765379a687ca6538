//! `SHELL ["…"]`: the shell of the shell forms after it.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Shell;

use crate::history;
use crate::state::StageState;

pub(super) fn lower(shell: &Shell, stage: &mut StageState) -> Result<(), Diagnostic> {
    let command: Vec<String> = shell.command.iter().map(|word| word.value.clone()).collect();
    stage.record(format!("SHELL {}", history::list(&command)));
    stage.config.config.shell = command;
    Ok(())
}
