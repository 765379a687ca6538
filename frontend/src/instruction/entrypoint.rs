//! `ENTRYPOINT`: the command that containers run. An empty list clears it.
//!
//! It drops a CMD that comes from the base or from a parent stage: those were arguments for another command. A
//! CMD earlier in the same stage stays.

use kiln_parser::ast::Entrypoint;

use super::cmd;
use crate::history;
use crate::state::StageState;

pub(super) fn lower(entrypoint: &Entrypoint, stage: &mut StageState) {
    let command = cmd::arguments(&entrypoint.command, stage);
    stage.record(format!("ENTRYPOINT {}", history::quoted_list(&command)));
    stage.config.config.entrypoint = command;
    if !stage.has_cmd {
        stage.config.config.cmd.clear();
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn an_inherited_cmd_goes_and_one_of_the_same_stage_stays() {
        for (text, entrypoint, cmd) in [
            ("FROM busybox\nENTRYPOINT [\"e\"]\n", vec!["e"], vec![]),
            (
                "FROM busybox\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n",
                vec!["e"],
                vec!["c"],
            ),
            (
                "FROM busybox AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n",
                vec!["e"],
                vec![],
            ),
            (
                "FROM busybox\nENTRYPOINT [\"e\"]\nENTRYPOINT []\nCMD [\"c\"]\n",
                vec![],
                vec!["c"],
            ),
            (
                "FROM busybox\nENTRYPOINT e $X\n",
                vec!["/bin/sh", "-c", "e $X"],
                vec![],
            ),
            ("FROM busybox\nCMD []\n", vec![], vec![]),
        ] {
            let config = lowered(text).config.config;
            assert_eq!(
                (config.entrypoint, config.cmd),
                (strings(&entrypoint), strings(&cmd)),
                "{text}"
            );
        }
        assert_eq!(
            history(&lowered("FROM busybox\nENTRYPOINT []\n")),
            ["- ENTRYPOINT []"]
        );
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}
