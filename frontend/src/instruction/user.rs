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

#[cfg(test)]
mod tests {
    use kiln_solver::graph::Op;

    use crate::testing::{history, last_op, lowered};

    #[test]
    fn later_processes_run_as_the_user() {
        let lowered = lowered("FROM busybox\nARG ID=1000\nUSER $ID:staff\nRUN id\n");
        let Op::Exec(exec) = last_op(&lowered) else {
            panic!("a RUN is a process")
        };
        assert_eq!(
            (exec.user.as_str(), lowered.config.config.user.as_str()),
            ("1000:staff", "1000:staff")
        );
        assert_eq!(history(&lowered)[1], "- USER 1000:staff");
    }
}
