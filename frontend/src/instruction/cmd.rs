//! `CMD`: the default command, or the arguments of the entry point.

use kiln_parser::ast::{Cmd, CommandLine};

use crate::history;
use crate::state::StageState;

pub(super) fn lower(cmd: &Cmd, stage: &mut StageState) {
    let command = arguments(&cmd.command, stage);
    stage.record(format!("CMD {}", history::quoted_list(&command)));
    stage.config.config.cmd = command;
    // Docker marks every image whose CMD its builder set, whatever the form.
    stage.config.config.args_escaped = true;
    stage.has_cmd = true;
}

/// The arguments of a CMD or ENTRYPOINT: those of the exec form, or the stage's shell and the text.
pub(super) fn arguments(command: &CommandLine, stage: &StageState) -> Vec<String> {
    match command {
        CommandLine::Shell(text) => stage.shell_command(text.as_str()),
        CommandLine::Exec(words) => words.iter().map(|word| word.value.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn the_shell_form_takes_the_shell_of_its_place() {
        let lowered = lowered("FROM busybox\nSHELL [\"/bin/ash\", \"-ec\"]\nCMD echo \"q\" 'é' $X\n");
        assert_eq!(
            lowered.config.config.cmd,
            ["/bin/ash", "-ec", "echo \"q\" 'é' $X"]
        );
        assert!(lowered.config.config.args_escaped);
        // Docker prints SHELL without quotes and CMD with them.
        let expected = [
            "- SHELL [/bin/ash -ec]",
            "- CMD [\"/bin/ash\" \"-ec\" \"echo \\\"q\\\" 'é' $X\"]",
        ];
        assert_eq!(history(&lowered), expected);
    }
}
