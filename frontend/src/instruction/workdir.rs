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
    let created_by = format!("WORKDIR {directory}");
    stage.config.config.working_dir.clone_from(&directory);
    if directory == "/" {
        stage.record(created_by);
        return Ok(());
    }
    let make = MakeDirectory { path: directory, mode: MODE, owner: stage.user().to_owned() };
    let step = Step {
        op: Op::File(FileOp { actions: vec![FileAction::MakeDirectory(make)] }),
        inputs: Vec::new(),
        text: display::expanded(line, &stage.environment, context.expander),
        span: line.span(),
    };
    stage.push_step(step, created_by);
    Ok(())
}
