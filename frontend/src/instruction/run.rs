//! `RUN command`: runs a process on the file system so far; what it changes is a layer.
//!
//! The command is not expanded by the build. The process sees the environment of this point in the file: the
//! variables of the image and the ARGs, whichever came last.

use kiln_parser::Diagnostic;
use kiln_parser::ast::{self, Run, RunScript};
use kiln_solver::graph::{Exec, NetworkMode, Op, SandboxFile};

use super::Context;
use crate::stage::Line;
use crate::state::StageState;
use crate::step::Step;
use crate::{display, scope};

/// Where a here-document that begins with `#!` is put for the shell to run.
const SCRIPTS: &str = "/dev/pipes";

pub(super) fn lower(
    run: &Run,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let mut text = display::command(line, &stage.environment);
    let (args, files) = command(run, stage);
    if is_lone_heredoc(run)
        && let [heredoc] = run.heredocs.as_slice()
    {
        text.push_str(&format!(" ({})", display::summary(&heredoc.body.value)));
    }
    let created_by = created_by(&args, stage);
    let exec = Exec {
        args,
        env: stage.environment.to_strings(),
        unkeyed_env: proxies(stage, context),
        cwd: stage.workdir().to_owned(),
        user: stage.user().to_owned(),
        network: network(run, context),
        files,
    };
    let step = Step { op: Op::Exec(exec), inputs: Vec::new(), text, span: line.span() };
    stage.push_step(step, created_by);
    Ok(())
}

/// The arguments of the process, and the files that it needs.
fn command(run: &Run, stage: &StageState) -> (Vec<String>, Vec<SandboxFile>) {
    match run.script() {
        RunScript::Exec(args) => (args, Vec::new()),
        RunScript::Shell(script) => (stage.shell_command(&script), Vec::new()),
        RunScript::File { name, content } => {
            let path = format!("{SCRIPTS}/{name}");
            let args = stage.shell_command(&path);
            (args, vec![SandboxFile { path, data: content.into_bytes(), mode: 0o755 }])
        }
    }
}

/// Whether the whole command is one here-document.
fn is_lone_heredoc(run: &Run) -> bool {
    match (&run.command, run.heredocs.as_slice()) {
        (ast::CommandLine::Shell(text), [heredoc]) => heredoc.span == text.span,
        _ => false,
    }
}

fn network(run: &Run, context: Context<'_>) -> NetworkMode {
    match run.network.as_ref().map(|network| network.value) {
        None | Some(ast::NetworkMode::Default) => context.options.network,
        Some(ast::NetworkMode::None) => NetworkMode::None,
        Some(ast::NetworkMode::Host) => NetworkMode::Host,
    }
}

/// The proxy settings that were given as build arguments: every process gets them, in lower and upper case, and
/// no key does. One that the stage declares by ARG is an ordinary variable instead.
fn proxies(stage: &StageState, context: Context<'_>) -> Vec<String> {
    let mut variables = Vec::new();
    for (name, value) in &context.options.build_args {
        let Some(value) = value.as_ref().filter(|_| scope::is_proxy(name)) else { continue };
        for spelling in [name.to_lowercase(), name.to_uppercase()] {
            let variable = format!("{spelling}={value}");
            if stage.environment.get(&spelling).is_none() && !variables.contains(&variable) {
                variables.push(variable);
            }
        }
    }
    variables
}

/// Docker prints `RUN |2 A=1 B=2 /bin/sh -c command # buildkit`, the ARGs only when there are some.
fn created_by(args: &[String], stage: &StageState) -> String {
    let mut words = stage.args.history_words(&stage.environment);
    words.extend_from_slice(args);
    format!("RUN {} # buildkit", words.join(" "))
}
