//! `WORKDIR path`: the working directory of what follows, made if it is missing.
//!
//! Making it is a step with a layer of its own, even when the directory is there. The root alone needs none.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Workdir;
use kiln_solver::graph::{FileAction, FileOp, MakeDirectory, Op};

use super::Context;
use crate::stage::Line;
use crate::state::StageState;
use crate::step::Step;
use crate::{display, path};

/// Permission bits of the directories that are made.
const MODE: u32 = 0o755;

pub(super) fn lower(
    workdir: &Workdir,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let written = context.expander.word(&workdir.path, &stage.environment)?;
    let directory = path::resolve(stage.workdir(), &written);
    path::check_length(&directory, workdir.path.span)?;
    let created_by = format!("WORKDIR {directory}");
    stage.config.config.working_dir.clone_from(&directory);
    if directory == "/" {
        stage.record(created_by);
        return Ok(());
    }
    let make = MakeDirectory {
        path: directory,
        mode: MODE,
        owner: stage.user().to_owned(),
    };
    let step = Step {
        op: Op::File(FileOp {
            actions: vec![FileAction::MakeDirectory(make)],
        }),
        inputs: Vec::new(),
        text: display::expanded(line, &stage.environment, context.expander),
        span: line.span(),
    };
    stage.push_step(step, created_by);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{FileAction, MakeDirectory, Op};

    use crate::testing::{history, last_op, lowered, names};

    #[test]
    fn a_directory_is_a_step_owned_by_the_user() {
        let lowered = lowered("FROM busybox\nUSER app\nENV D=b\nWORKDIR a\nWORKDIR $D/./c/..\n");
        let Op::File(file) = last_op(&lowered) else {
            panic!("a WORKDIR makes files")
        };
        let [FileAction::MakeDirectory(make)] = file.actions.as_slice() else {
            panic!("it is one directory")
        };
        assert_eq!(
            *make,
            MakeDirectory {
                path: "/a/b".to_owned(),
                mode: 0o755,
                owner: "app".to_owned()
            }
        );
        assert_eq!(lowered.config.config.working_dir, "/a/b");
        // Docker prints the resolved path in the history and the written one in the progress.
        assert_eq!(history(&lowered)[2..], ["WORKDIR /a", "WORKDIR /a/b"]);
        assert_eq!(
            names(&lowered)[1..],
            ["[2/3] WORKDIR a", "[3/3] WORKDIR b/./c/.."]
        );
    }

    #[test]
    fn the_root_makes_no_layer() {
        let lowered = lowered("FROM busybox\nWORKDIR /a\nWORKDIR ..\n");
        assert_eq!(history(&lowered), ["WORKDIR /a", "- WORKDIR /"]);
        assert_eq!(lowered.config.config.working_dir, "/");
    }
}
