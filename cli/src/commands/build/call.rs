//! `--check` and `--call`: what a Dockerfile is like, told without building it.

use std::process::ExitCode;

use kiln_frontend::{BuildError, BuildRequest, check_build, outline_build};
use kiln_parser::Diagnostic;
use kiln_solver::Cancel;
use kiln_solver::task::Reporter;

use super::answers;
use crate::arguments::Build;
use crate::exit;
use crate::machine::Machine;
use crate::progress::View;
use crate::report::{self, Failure};
use crate::signal::Interrupts;

/// What is asked for instead of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    json: bool,
    ignore_status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

/// The names of the methods, as Docker has them.
const METHODS: [(&str, Option<Method>); 6] = [
    ("build", None),
    ("check", Some(Method::Check)),
    ("lint", Some(Method::Check)),
    ("outline", Some(Method::Outline)),
    ("targets", Some(Method::Targets)),
    ("subrequests.describe", Some(Method::Describe)),
];

impl Call {
    /// What `--call` and `--check` ask for; none for a build.
    pub(super) fn of(arguments: &Build) -> Result<Option<Self>, Failure> {
        let text = match (&arguments.call, arguments.check) {
            (Some(text), false) => text.as_str(),
            (None, true) => "check",
            (None, false) => return Ok(None),
            (Some(text), true) if text.split(',').any(|part| part == "check") => text.as_str(),
            (Some(_), true) => return Err(Failure::usage("--check and --call exclude each other")),
        };
        Self::parse(text).map_err(|message| {
            Failure::usage(format!("--call {text}: {message}")).hint(
                "the methods are build, check, outline, targets and subrequests.describe; ,format=json makes the answer JSON",
            )
        })
    }

    /// Reads `METHOD[,format=text|json][,ignorestatus=BOOL]`.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut method = None;
        let mut json = false;
        let mut ignore_status = false;
        for part in text.split(',') {
            match part.split_once('=') {
                None if method.is_none() => method = Some(part),
                Some(("method", name)) if method.is_none() => method = Some(name),
                Some(("format", "json")) => json = true,
                Some(("format", "text")) => json = false,
                Some(("ignorestatus", "true" | "1")) => ignore_status = true,
                Some(("ignorestatus", "false" | "0")) => ignore_status = false,
                _ => return Err(format!("{part:?} is not understood")),
            }
        }
        let name = method.unwrap_or_default();
        let short = name.strip_prefix("frontend.").unwrap_or(name);
        let (_, method) = METHODS
            .iter()
            .find(|(known, _)| *known == short)
            .ok_or_else(|| format!("there is no method {name:?}"))?;
        Ok(method.map(|method| Self {
            method,
            json,
            ignore_status,
        }))
    }
}

/// Answers a call. The result goes to standard output.
pub(super) fn run(
    machine: &Machine,
    arguments: &Build,
    request: &BuildRequest,
    call: Call,
) -> Result<ExitCode, Failure> {
    let name = shown_name(arguments, request);
    let source = answers::Source {
        bytes: &request.dockerfile,
        name: &name,
    };
    let failed = |error: BuildError| match error {
        _ if crate::signal::came() => Failure::canceled(),
        error => Failure::build(&error, &request.dockerfile, &name),
    };
    match call.method {
        Method::Describe => super::super::print(&answers::describe(call.json)?)?,
        Method::Targets => {
            let mut parsed = kiln_parser::parse(&request.dockerfile);
            if parsed.has_errors() {
                parsed.diagnostics.retain(Diagnostic::is_error);
                return Err(failed(BuildError::Dockerfile(parsed.diagnostics)));
            }
            let targets = kiln_frontend::targets(&parsed.dockerfile);
            super::super::print(&answers::targets(&targets, source, call.json)?)?;
        }
        Method::Outline => {
            let outline = observed(machine, arguments, |engine, reporter| {
                outline_build(engine, request, reporter)
            })?;
            let outline = outline.map_err(failed)?;
            super::super::print(&answers::outline(&outline, source, call.json)?)?;
        }
        Method::Check => {
            let findings = observed(machine, arguments, |engine, reporter| {
                check_build(engine, request, reporter)
            })?;
            let findings = findings.map_err(failed)?;
            if crate::signal::came() {
                return Err(Failure::canceled());
            }
            super::super::print(&answers::check(&findings, source, call.json)?)?;
            let is_clean = findings.warnings.is_empty() && findings.errors.is_empty();
            if !findings.errors.is_empty() && !call.json {
                let failure = failed(BuildError::Dockerfile(findings.errors));
                report::failure(&failure);
            }
            // As Docker has it: whoever asks for a check wants to hear of everything.
            if !is_clean && !call.ignore_status {
                return Ok(ExitCode::from(exit::FAILURE));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something with the engine while its progress is shown.
fn observed<T>(
    machine: &Machine,
    arguments: &Build,
    work: impl FnOnce(&kiln_solver::Engine, &Reporter) -> T,
) -> Result<T, Failure> {
    let engine = machine.engine()?;
    let cancel = Cancel::new();
    let view = View::new(super::progress(arguments), "Checking");
    let interrupts = Interrupts::cancel(&cancel, &view)?;
    let result = work(&engine, &Reporter::new(view.sink()));
    view.finish();
    drop(interrupts);
    Ok(result)
}

/// The Dockerfile's path as a reader of the answer would look for it.
fn shown_name(arguments: &Build, request: &BuildRequest) -> String {
    match &arguments.file {
        Some(path) if path.as_os_str() != "-" => path.display().to_string(),
        Some(_) => request.dockerfile_name.clone(),
        None if arguments.context.as_os_str() == "." => request.dockerfile_name.clone(),
        None => arguments
            .context
            .join(&request.dockerfile_name)
            .display()
            .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Method};

    #[test]
    fn calls_are_read() {
        let call = |method, json, ignore_status| {
            Ok(Some(Call {
                method,
                json,
                ignore_status,
            }))
        };
        for (text, expected) in [
            ("build", Ok(None)),
            ("check", call(Method::Check, false, false)),
            ("lint,format=json", call(Method::Check, true, false)),
            ("format=json,method=outline", call(Method::Outline, true, false)),
            (
                "frontend.targets,format=text",
                call(Method::Targets, false, false),
            ),
            ("check,ignorestatus=true", call(Method::Check, false, true)),
            ("subrequests.describe", call(Method::Describe, false, false)),
            ("chekc", Err("there is no method \"chekc\"".to_owned())),
            ("", Err("there is no method \"\"".to_owned())),
            (
                "check,format=xml",
                Err("\"format=xml\" is not understood".to_owned()),
            ),
            ("check,outline", Err("\"outline\" is not understood".to_owned())),
        ] {
            assert_eq!(Call::parse(text), expected, "{text}");
        }
    }
}
