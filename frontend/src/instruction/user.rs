//! `USER user[:group]`: who runs the steps after it and the container. Looked up when a process starts.

use kiln_parser::Diagnostic;
use kiln_parser::ast::User;

use super::Context;
use crate::state::StageState;

pub(super) fn lower(user: &User, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let user = context.expander.word(&user.user, &stage.environment)?;
    stage.record(format!("USER {user}"));
    stage.config.config.user = user;
    Ok(())
}
