//! `--check` and `--call`: what a Dockerfile is like, told without building it.

use std::process::ExitCode;

use kiln_frontend::{
    BuildError, BuildRequest, Findings, MainContext, Outline, Target, check_build, outline_build,
};
use kiln_parser::Diagnostic;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine};

use super::answers;
use crate::arguments::Build;
use crate::exit;
use crate::report::{self, Failure};

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

/// What a call finds out.
pub(super) enum Answer {
    /// The calls that there are.
    Calls,
    /// The targets of the file.
    Targets(Vec<Target>),
    /// What one of them takes.
    Outline(Outline),
    /// What the checks found.
    Findings(Findings),
}

/// Finds out what a call asks for.
pub(super) fn answer(
    engine: &Engine,
    request: &BuildRequest,
    call: Call,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Answer, BuildError> {
    match call.method {
        Method::Describe => Ok(Answer::Calls),
        Method::Targets => {
            let mut parsed = kiln_parser::parse(&request.dockerfile);
            if parsed.has_errors() {
                parsed.diagnostics.retain(Diagnostic::is_error);
                return Err(BuildError::Dockerfile(parsed.diagnostics));
            }
            Ok(Answer::Targets(kiln_frontend::targets(&parsed.dockerfile)))
        }
        Method::Outline => outline_build(engine, request, reporter, cancel).map(Answer::Outline),
        Method::Check => check_build(engine, request, reporter, cancel).map(Answer::Findings),
    }
}

/// Tells what was found out, on standard output.
pub(super) fn tell(
    answer: Result<Answer, BuildError>,
    arguments: &Build,
    request: &BuildRequest,
    call: Call,
) -> Result<ExitCode, Failure> {
    if crate::signal::came() {
        return Err(Failure::canceled());
    }
    let name = shown_name(arguments, request);
    let source = answers::Source {
        bytes: &request.dockerfile,
        name: &name,
    };
    let failed = |error: &BuildError| Failure::build(error, &request.dockerfile, &name);
    let text = match answer.map_err(|error| failed(&error))? {
        Answer::Calls => answers::describe(call.json)?,
        Answer::Targets(targets) => answers::targets(&targets, source, call.json)?,
        Answer::Outline(outline) => answers::outline(&outline, source, call.json)?,
        Answer::Findings(findings) => {
            super::super::print(&answers::check(&findings, source, call.json)?)?;
            let is_clean = findings.warnings.is_empty() && findings.errors.is_empty();
            if !findings.errors.is_empty() && !call.json {
                report::failure(&failed(&BuildError::Dockerfile(findings.errors)));
            }
            // As Docker has it: whoever asks for a check wants to hear of everything.
            return Ok(if is_clean || call.ignore_status {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(exit::FAILURE)
            });
        }
    };
    super::super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The Dockerfile's path as a reader of the answer would look for it.
fn shown_name(arguments: &Build, request: &BuildRequest) -> String {
    let is_folder = matches!(request.context, MainContext::Directory(_));
    match &arguments.file {
        Some(path) if path.as_os_str() != "-" => path.display().to_string(),
        None if is_folder && arguments.context.as_os_str() != "." => arguments
            .context
            .join(&request.dockerfile_name)
            .display()
            .to_string(),
        _ => request.dockerfile_name.clone(),
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
