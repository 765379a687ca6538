//! `SHELL ["…"]`: the shell of the shell forms after it.

use kiln_parser::ast::Shell;

use crate::history;
use crate::state::StageState;

pub(super) fn lower(shell: &Shell, stage: &mut StageState) {
    let command: Vec<String> = shell.command.iter().map(|word| word.value.clone()).collect();
    stage.record(format!("SHELL {}", history::list(&command)));
    stage.config.config.shell = command;
}

#[cfg(test)]
mod tests {
    use kiln_solver::graph::Op;

    use crate::testing::{last_op, lowered};

    #[test]
    fn later_shell_forms_use_it_and_so_do_child_stages() {
        let lowered = lowered(
            "FROM busybox AS a\nSHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nFROM a\nRUN x | y\n",
        );
        let Op::Exec(exec) = last_op(&lowered) else {
            panic!("a RUN is a process")
        };
        assert_eq!(exec.args, ["/bin/bash", "-o", "pipefail", "-c", "x | y"]);
        assert_eq!(lowered.config.config.shell, ["/bin/bash", "-o", "pipefail", "-c"]);
    }
}
