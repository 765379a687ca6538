//! One file an instruction: its lowering, its history text, its tests.

pub(crate) mod from;

mod add;
mod arg;
mod cmd;
mod copy;
mod entrypoint;
mod env;
mod expose;
mod healthcheck;
mod label;
mod maintainer;
mod mount;
mod onbuild;
mod remote;
mod run;
mod shell;
mod stopsignal;
mod transfer;
mod user;
mod volume;
mod workdir;

use kiln_parser::Diagnostic;
use kiln_parser::ast::Instruction;

use crate::expansion::Expander;
use crate::options::LowerOptions;
use crate::scope::GlobalScope;
use crate::stage::Line;
use crate::state::StageState;

/// What an instruction may look at besides the state of its stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The request's options.
    pub(crate) options: &'a LowerOptions,
    /// The global ARGs.
    pub(crate) globals: &'a GlobalScope,
    /// Expands words with the file's escape character.
    pub(crate) expander: Expander<'a>,
}

/// Lowers one instruction: changes the state of its stage.
pub(crate) fn lower(line: &Line<'_>, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    match &line.statement.instruction {
        Instruction::Label(label) => return label::lower(label, stage, context),
        Instruction::Expose(expose) => return expose::lower(expose, stage, context),
        Instruction::Env(env) => return env::lower(env, stage, context),
        Instruction::Add(add) => return add::lower(add, line, stage, context),
        Instruction::Copy(copy) => return copy::lower(copy, line, stage, context),
        Instruction::Volume(volume) => return volume::lower(volume, stage, context),
        Instruction::User(user) => return user::lower(user, stage, context),
        Instruction::Workdir(workdir) => return workdir::lower(workdir, line, stage, context),
        Instruction::Run(run) => return run::lower(run, line, stage, context),
        Instruction::Arg(arg) => return arg::lower(arg, stage, context),
        Instruction::Stopsignal(stopsignal) => return stopsignal::lower(stopsignal, stage, context),
        // These expand nothing, so that nothing can be wrong with them any more.
        Instruction::Cmd(cmd) => cmd::lower(cmd, stage),
        Instruction::Maintainer(maintainer) => maintainer::lower(maintainer, stage),
        Instruction::Entrypoint(entrypoint) => entrypoint::lower(entrypoint, stage),
        Instruction::Onbuild(onbuild) => onbuild::lower(onbuild, stage),
        Instruction::Healthcheck(healthcheck) => healthcheck::lower(healthcheck, stage),
        Instruction::Shell(shell) => shell::lower(shell, stage),
        // The parser makes each FROM a stage of its own; it never is a line of one.
        Instruction::From(_) => {}
    }
    Ok(())
}
