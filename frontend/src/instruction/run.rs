//! `RUN command`: runs a process on the file system so far; what it changes is a layer.
//!
//! The command is not expanded by the build; the values of its mounts are. The process sees the environment of this point in the file: the
//! variables of the image and the ARGs, whichever came last.

use kiln_parser::ast::{self, Run, RunScript};
use kiln_parser::{Diagnostic, Span};
use kiln_solver::graph::{Exec, Mount, MountKind, NetworkMode, Op, SandboxFile, SecurityMode};

use super::{Context, mount};
use crate::environment::Environment;
use crate::options::Entitlement;
use crate::stage::Line;
use crate::state::StageState;
use crate::step::Step;
use crate::{display, scope};

/// Where a here-document that begins with `#!` is put for the shell to run.
const SCRIPTS: &str = "/dev/pipes";
/// The build argument that names the host that a RUN sees.
const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// The variable by which programs find an SSH agent.
const SSH_SOCKET: &str = "SSH_AUTH_SOCK";

pub(super) fn lower(
    run: &Run,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let (mounts, inputs) = mount::lower(&run.mounts, line, stage, context)?;
    let shown = shown_environment(stage, &mounts);
    let mut text = display::command(line, &shown);
    let (args, files) = command(run, stage);
    if is_lone_heredoc(run)
        && let [heredoc] = run.heredocs.as_slice()
    {
        text = format!("{text} ({})", display::summary(&heredoc.body.value, &shown));
    }
    let created_by = created_by(&args, stage);
    let exec = Exec {
        args,
        env: environment(stage, &mounts),
        unkeyed_env: proxies(stage, context),
        cwd: stage.workdir().to_owned(),
        user: stage.user().to_owned(),
        network: network(run, context)?,
        files,
        mounts,
        security: security(run, context)?,
        hostname: context
            .options
            .build_arg(HOSTNAME)
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        extra_hosts: context.options.extra_hosts.clone(),
        ulimits: context.options.ulimits.clone(),
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

/// The environment, with the socket of the first agent where nothing else is said.
fn environment(stage: &StageState, mounts: &[Mount]) -> Vec<String> {
    let mut environment = stage.environment.to_strings();
    let agents = mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
    // They are sorted by target; the first one written counts.
    let first = agents.min_by_key(|mount| mount.span.map(|span| span.start));
    if let Some(first) = first.filter(|_| stage.environment.get(SSH_SOCKET).is_none()) {
        environment.push(format!("{SSH_SOCKET}={}", first.target));
    }
    environment
}

/// The environment as step names show it: a variable that holds a secret is masked.
fn shown_environment(stage: &StageState, mounts: &[Mount]) -> Environment {
    let mut shown = stage.environment.clone();
    for mount in mounts {
        if let MountKind::Secret {
            environment: Some(name),
            ..
        } = &mount.kind
        {
            shown.set(name, "****");
        }
    }
    shown
}

fn network(run: &Run, context: Context<'_>) -> Result<NetworkMode, Diagnostic> {
    let Some(network) = &run.network else {
        return Ok(context.options.network);
    };
    Ok(match network.value {
        ast::NetworkMode::Default => context.options.network,
        ast::NetworkMode::None => NetworkMode::None,
        ast::NetworkMode::Host => {
            entitled(Entitlement::NetworkHost, network.span, context)?;
            NetworkMode::Host
        }
    })
}

fn security(run: &Run, context: Context<'_>) -> Result<SecurityMode, Diagnostic> {
    let Some(security) = &run.security else {
        return Ok(SecurityMode::Sandbox);
    };
    Ok(match security.value {
        ast::SecurityMode::Sandbox => SecurityMode::Sandbox,
        ast::SecurityMode::Insecure => {
            entitled(Entitlement::SecurityInsecure, security.span, context)?;
            SecurityMode::Insecure
        }
    })
}

/// What a Dockerfile asks for is not given because it asks.
fn entitled(entitlement: Entitlement, span: Span, context: Context<'_>) -> Result<(), Diagnostic> {
    if context.options.entitlements.contains(&entitlement) {
        return Ok(());
    }
    let name = entitlement.name();
    let hint = format!("pass --allow {name} if you trust this Dockerfile with it");
    Err(Diagnostic::error(span, format!("{name} is not allowed")).hint(hint))
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
    use kiln_solver::graph::{Exec, ExtraHost, Op};

    use crate::options::{Entitlement, LowerOptions};
    use crate::testing::{FakeResolver, history, last_op, lower_with, lowered, names, options};

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

    fn allowing(text: &str, options: LowerOptions) -> Exec {
        let lowered = lower_with(text, &options, &FakeResolver::new([])).unwrap();
        match last_op(&lowered) {
            Op::Exec(exec) => exec.clone(),
            other => panic!("{other:?} is no process"),
        }
    }

    #[test]
    fn entitlements_are_not_given_because_a_file_asks() {
        for (flag, entitlement) in [
            ("--network=host", Entitlement::NetworkHost),
            ("--security=insecure", Entitlement::SecurityInsecure),
        ] {
            let text = format!("FROM busybox\nRUN {flag} x\n");
            let mut options = options();
            let errors = lower_with(&text, &options, &FakeResolver::new([])).unwrap_err();
            let [error] = errors.as_slice() else {
                panic!("{errors:?}")
            };
            assert_eq!(error.message, format!("{} is not allowed", entitlement.name()));
            assert_eq!(
                &text[error.span.start..error.span.end],
                flag.split_once('=').unwrap().1
            );
            options.entitlements.insert(entitlement);
            allowing(&text, options);
        }
        // What every process gets anyway needs none.
        exec("FROM busybox\nRUN --network=none x\nRUN --network=default --security=sandbox x\n");
    }

    #[test]
    fn the_first_agent_is_the_one_of_the_environment() {
        let socket = |text: &str| exec(text).env.last().cloned().unwrap_or_default();
        let text = "FROM busybox\nRUN --mount=type=ssh,id=a,target=/z --mount=type=ssh,id=b x\n";
        assert_eq!(socket(text), "SSH_AUTH_SOCK=/z");
        let text = "FROM busybox\nRUN --mount=type=ssh --mount=type=ssh,id=b x\n";
        assert_eq!(socket(text), "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0");
        let text = "FROM busybox\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x\n";
        assert_eq!(socket(text), "SSH_AUTH_SOCK=/mine");
    }

    #[test]
    fn names_mask_variables_that_hold_secrets() {
        let text = "FROM busybox\nENV TOKEN=old\nRUN --mount=type=secret,id=t,env=TOKEN use $TOKEN\nRUN use $TOKEN\n";
        let names = names(&lowered(text));
        assert_eq!(names[1], "[2/3] RUN --mount=type=secret,id=t,env=TOKEN use ****");
        assert_eq!(names[2], "[3/3] RUN use old");
    }

    #[test]
    fn the_request_decides_about_host_name_hosts_and_limits() {
        let mut options = options();
        options
            .build_args
            .insert("BUILDKIT_SANDBOX_HOSTNAME".to_owned(), Some("here".to_owned()));
        let host = ExtraHost {
            name: "db".to_owned(),
            address: [10, 0, 0, 1].into(),
        };
        options.extra_hosts.push(host.clone());
        let exec = allowing("FROM busybox\nRUN x\n", options);
        assert_eq!(exec.hostname.as_deref(), Some("here"));
        assert_eq!(exec.extra_hosts, [host]);
    }
}
