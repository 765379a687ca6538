//! `RUN command`: runs a process on the file system so far; what it changes is a layer.
//!
//! The command is not expanded by the build; the values of its mounts are. The process sees the environment of this point in the file: the
//! variables of the image and the ARGs, whichever came last.

use kiln_parser::Diagnostic;
use kiln_parser::ast::{self, Run, RunScript};
use kiln_solver::graph::{Exec, NetworkMode, Op, SandboxFile};

use super::{Context, mount};
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
    let (mounts, inputs) = mount::lower(&run.mounts, line, stage, context)?;
    let mut text = display::command(line, &stage.environment);
    let (args, files) = command(run, stage);
    if is_lone_heredoc(run)
        && let [heredoc] = run.heredocs.as_slice()
    {
        text = format!(
            "{text} ({})",
            display::summary(&heredoc.body.value, &stage.environment)
        );
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
        mounts,
    };
    let step = Step {
        op: Op::Exec(exec),
        inputs,
        text,
        span: line.span(),
    };
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
            (
                args,
                vec![SandboxFile {
                    path,
                    data: content.into_bytes(),
                    mode: 0o755,
                }],
            )
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
        let Some(value) = value.as_ref().filter(|_| scope::is_proxy(name)) else {
            continue;
        };
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

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{Exec, Op};

    use crate::testing::{history, last_op, lowered, names};

    fn exec(text: &str) -> Exec {
        match last_op(&lowered(text)) {
            Op::Exec(exec) => exec.clone(),
            other => panic!("{other:?} is no process"),
        }
    }

    #[test]
    fn the_command_is_not_expanded() {
        let text = "FROM busybox\nARG A=1\nRUN echo $A   \\\n  && echo two\nRUN [\"echo\", \"$A\"]\n";
        let lowered = lowered(text);
        // Docker prints these, the ARG as `|1 A=1`.
        let expected = [
            "- ARG A=1",
            "RUN |1 A=1 /bin/sh -c echo $A     && echo two # buildkit",
            "RUN |1 A=1 echo $A # buildkit",
        ];
        assert_eq!(history(&lowered), expected);
        assert_eq!(names(&lowered)[2], "[3/3] RUN [\"echo\", \"1\"]");
    }

    #[test]
    fn arg_and_env_win_by_order_and_env_again_in_a_child() {
        let text = "FROM busybox AS a\nENV X=env\nARG X=arg\nRUN x\n";
        assert_eq!(exec(text).env, ["PATH=/bin", "X=arg"]);
        // Docker's child stage begins with the variables of the config again.
        assert_eq!(
            exec(&format!("{text}FROM a\nRUN y\n")).env,
            ["PATH=/bin", "X=env"]
        );
    }

    #[test]
    fn a_lone_heredoc_is_the_script_and_one_with_an_interpreter_a_file() {
        assert_eq!(
            exec("FROM busybox\nRUN <<E\necho $A\nE\n").args,
            ["/bin/sh", "-c", "echo $A\n"]
        );
        let exec = exec("FROM busybox\nRUN <<E\n#!/usr/bin/python3\nprint()\nE\n");
        assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/E"]);
        let [file] = exec.files.as_slice() else {
            panic!("one file is needed")
        };
        assert_eq!((file.path.as_str(), file.mode), ("/dev/pipes/E", 0o755));
        assert_eq!(file.data, b"#!/usr/bin/python3\nprint()\n");
    }

    #[test]
    fn it_runs_where_and_as_whom_the_stage_is() {
        let exec = exec("FROM busybox\nWORKDIR /w\nUSER me\nRUN x\n");
        assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/w", "me"));
    }
}
