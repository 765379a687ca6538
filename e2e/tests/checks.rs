//! `kiln build --check` and `--call`: what they print where, how they end, and that they build nothing.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("check tells what it finds and ends with 1", findings),
        ("check of a file without findings ends with 0", no_findings),
        ("check tells errors and warnings at once", errors_and_warnings),
        ("check answers in JSON", json),
        ("check takes every kind of context", contexts),
        ("several platforms give one answer", platforms),
        ("outline tells what a target takes", outline),
        ("targets tells the stages", targets),
        ("official frontends are built in, others are errors", syntax),
        ("a named context in the place of the frontend", replaced_frontend),
        ("warnings may be errors of a build", strict),
    ];
    trial::run_all("checks", tests)
}

const WARNED: &str = "FROM busybox:latest\nRUN exit 1\nCOPY secret /\nCMD echo hi\n";

fn project(name: &str, dockerfile: &str) -> Result<Project> {
    Project::new(name, &[("Dockerfile", dockerfile), (".dockerignore", "secret\n")])
}

/// The rules in the order in which they are told.
fn rules(stdout: &str) -> Vec<&str> {
    let told = stdout.lines().filter_map(|line| line.strip_prefix("WARNING: "));
    told.map(|rest| rest.split(' ').next().unwrap_or_default())
        .collect()
}

fn parse(ended: &Ended) -> Result<Value> {
    serde_json::from_str(&ended.stdout).map_err(|error| format!("{error} in {}", ended.stdout).into())
}

fn findings() -> TestResult {
    let project = project("check-text", WARNED)?;
    let iid = project.scratch("iid");
    std::fs::write(&iid, "kept")?;
    let name = iid.to_string_lossy();
    let ended = project.try_build(&["--check", "--iidfile", &name])?;
    ensure!(ended.code == Some(1), "it ended with {:?}", ended.code);
    ensure!(
        rules(&ended.stdout) == ["CopyIgnoredFile", "JSONArgsRecommended"],
        "stdout is {}",
        ended.stdout
    );
    let first = ended.stdout.lines().next();
    ensure!(
        first == Some("Check complete, 2 warnings have been found!"),
        "the first line is {first:?}"
    );
    ensure!(
        ended.stdout.contains("Dockerfile:4\n") && ended.stdout.contains("\n   4 | >>> CMD echo hi\n"),
        "no place in {}",
        ended.stdout
    );
    ensure!(
        !ended.stderr.contains("RUN exit 1"),
        "a step ran: {}",
        ended.stderr
    );
    ensure!(
        std::fs::read_to_string(&iid)? == "kept",
        "the id file was touched"
    );
    let images = project.kiln.run(["images"])?.success()?.stdout;
    ensure!(!images.contains("check-text"), "there is an image:\n{images}");
    project
        .try_build(&["--call=check,ignorestatus=true"])?
        .success()?;
    project.try_build(&["--call=chekc"])?.failure(2)?;
    Ok(Outcome::Passed)
}

fn no_findings() -> TestResult {
    let project = project("check-clean", "FROM busybox:latest\nRUN exit 1\n")?;
    let ended = project.try_build(&["--check"])?.success()?;
    ensure!(
        ended.stdout == "Check complete, no warnings found.\n",
        "stdout is {:?}",
        ended.stdout
    );
    let ended = project.try_build(&["--call=check,format=json"])?.success()?;
    let answer = parse(&ended)?;
    ensure!(answer["warnings"].is_null(), "warnings in {answer}");
    ensure!(answer.get("buildError").is_none(), "an error in {answer}");
    Ok(Outcome::Passed)
}

const BROKEN: &str = "FROM busybox:latest\nRUNN x\nWORKDIR rel\nCOPY --form=a b c\n";

fn errors_and_warnings() -> TestResult {
    let project = project("check-errors", BROKEN)?;
    let ended = project.try_build(&["--check"])?;
    ensure!(ended.code == Some(1), "it ended with {:?}", ended.code);
    for message in ["RUNN", "--form", "(and 1 more)", "did you mean --from?"] {
        ensure!(
            ended.stderr.contains(message),
            "stderr has no {message}: {}",
            ended.stderr
        );
    }
    let answer = parse(&project.try_build(&["--check", "--call=check,format=json"])?)?;
    let errors = answer["errors"].as_array().ok_or("no errors")?;
    ensure!(errors.len() == 2, "errors in {answer}");
    let span = &errors[1]["location"]["span"]["start"];
    ensure!(
        span["line"] == 4 && span["column"] == 6,
        "the second error is at {span}"
    );
    Ok(Outcome::Passed)
}

fn json() -> TestResult {
    let project = project("check-json", WARNED)?;
    let ended = project.try_build(&["--call=check,format=json"])?;
    ensure!(ended.code == Some(1), "it ended with {:?}", ended.code);
    let answer = parse(&ended)?;
    let warnings = answer["warnings"].as_array().ok_or("no warnings")?;
    let facts: Vec<_> = warnings
        .iter()
        .map(|warning| {
            (
                warning["ruleName"].as_str(),
                warning["location"]["ranges"][0]["start"]["line"].as_u64(),
            )
        })
        .collect();
    let expected = [
        (Some("CopyIgnoredFile"), Some(3)),
        (Some("JSONArgsRecommended"), Some(4)),
    ];
    ensure!(facts == expected, "the findings are {facts:?}");
    ensure!(
        answer["sources"][0]["filename"] == "Dockerfile",
        "sources: {}",
        answer["sources"]
    );
    Ok(Outcome::Passed)
}

/// Calls `build ARGUMENTS CONTEXT`, with a file as standard input.
fn call(project: &Project, context: &str, stdin: Option<&Path>) -> Result<Ended> {
    let mut command = project.kiln.command(["build", "--check", context]);
    if let Some(path) = stdin {
        command.stdin(File::open(path)?);
    }
    run(&mut command)
}

fn contexts() -> TestResult {
    let project = project("check-contexts", WARNED)?;
    let context = project.request.context.to_string_lossy().into_owned();
    // An archive is taken as it is, without an ignore file, as with Docker.
    let alone = call(&project, "-", Some(&project.path("Dockerfile")))?;
    ensure!(
        rules(&alone.stdout) == ["JSONArgsRecommended"],
        "a Dockerfile on standard input: {}{}",
        alone.stdout,
        alone.stderr
    );
    ensure!(
        alone.stdout.contains("\nDockerfile:4\n"),
        "its name in {}",
        alone.stdout
    );
    let archive = project.scratch("context.tar");
    let mut tar = tar::Builder::new(File::create(&archive)?);
    tar.append_path_with_name(project.path("Dockerfile"), "Dockerfile")?;
    tar.finish()?;
    let packed = call(&project, "-", Some(&archive))?;
    ensure!(
        rules(&packed.stdout) == ["JSONArgsRecommended"],
        "an archive: {}{}",
        packed.stdout,
        packed.stderr
    );
    let folder = call(&project, &context, None)?;
    ensure!(
        folder.stdout.contains(&format!("\n{context}/Dockerfile:4\n")),
        "a folder: {}",
        folder.stdout
    );
    Ok(Outcome::Passed)
}

fn platforms() -> TestResult {
    let project = project("check-platforms", "FROM scratch\nCMD echo hi\n")?;
    let ended = project.try_build(&["--check", "--platform", "linux/amd64,linux/arm64"])?;
    ensure!(
        rules(&ended.stdout) == ["JSONArgsRecommended"],
        "stdout is {}",
        ended.stdout
    );
    Ok(Outcome::Passed)
}

const OFFERING: &str = "ARG VERSION=1\n# base what all need\nFROM busybox:latest AS base\n\
    FROM base AS tool\nRUN --mount=type=ssh x\n# main the program\nFROM base AS main\n# VERSION which one\n\
    ARG VERSION\nRUN --mount=type=secret,id=token,required --mount=type=cache,id=objects,target=/c \
    --mount=from=tool,target=/t make $VERSION\n";

fn outline() -> TestResult {
    let project = project("check-outline", OFFERING)?;
    let ended = project
        .try_build(&["--call=outline", "--build-arg", "VERSION=2"])?
        .success()?;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = ended.stdout.lines().map(words).collect();
    for line in [
        "TARGET: main",
        "DESCRIPTION: the program",
        "VERSION 2 which one",
        "token true",
        "default",
    ] {
        ensure!(
            lines.iter().any(|found| found == line),
            "no line {line:?} in {}",
            ended.stdout
        );
    }
    let answer = parse(&project.try_build(&["--call=outline,format=json"])?.success()?)?;
    ensure!(answer["args"][0]["name"] == "VERSION", "args in {answer}");
    ensure!(
        answer["secrets"][0]["name"] == "token" && answer["secrets"][0]["required"] == true,
        "secrets in {answer}"
    );
    ensure!(answer["ssh"][0]["name"] == "default", "ssh in {answer}");
    ensure!(answer["cache"][0]["ID"] == "objects", "cache in {answer}");
    let base = parse(
        &project
            .try_build(&["--call=outline,format=json", "--target=base"])?
            .success()?,
    )?;
    ensure!(
        base["name"] == "base" && base.get("secrets").is_none(),
        "the outline of base is {base}"
    );
    Ok(Outcome::Passed)
}

fn targets() -> TestResult {
    let project = project("check-targets", OFFERING)?;
    let ended = project.try_build(&["--call=targets"])?.success()?;
    let lines: Vec<&str> = ended.stdout.lines().map(str::trim_end).collect();
    let expected = [
        "TARGET         DESCRIPTION",
        "base           what all need",
        "tool",
        "main (default) the program",
    ];
    ensure!(lines == expected, "stdout is {}", ended.stdout);
    let answer = parse(&project.try_build(&["--call=targets,format=json"])?.success()?)?;
    ensure!(
        answer["targets"][2]["default"] == true && answer["targets"][0]["base"] == "busybox:latest",
        "the answer is {answer}"
    );
    Ok(Outcome::Passed)
}

fn syntax() -> TestResult {
    let project = project(
        "check-syntax",
        "# syntax=docker/dockerfile:1.7-labs\nFROM scratch\n",
    )?;
    let ended = project.try_build(&[])?.success()?;
    ensure!(
        !ended.stderr.contains("docker/dockerfile"),
        "somebody was asked for the frontend: {}",
        ended.stderr
    );
    project.write(
        "Dockerfile",
        "# syntax=example.com/other:1\nthis is not Dockerfile\n",
    )?;
    for arguments in [&[][..], &["--check"], &["--call=outline"]] {
        let failed = project.try_build(arguments)?.failure(1)?;
        ensure!(
            failed.contains("the frontend image \"example.com/other:1\" is not supported"),
            "stderr is {failed}"
        );
        ensure!(!failed.contains("unknown instruction"), "stderr is {failed}");
    }
    Ok(Outcome::Passed)
}

fn replaced_frontend() -> TestResult {
    let project = project("check-frontend", "# syntax=docker/dockerfile:1\nFROM scratch\n")?;
    let other = "docker/dockerfile:1=docker-image://docker/dockerfile:1.10";
    project.try_build(&["--build-context", other])?.success()?;
    let foreign = "docker/dockerfile:1=docker-image://busybox:latest";
    let failed = project.try_build(&["--build-context", foreign])?.failure(1)?;
    ensure!(
        failed.contains("named context \"docker/dockerfile:1\" in the place of the frontend"),
        "stderr is {failed}"
    );
    Ok(Outcome::Passed)
}

fn strict() -> TestResult {
    let project = project(
        "check-strict",
        "# check=error=true\nFROM busybox:latest\nRUN exit 1\nCMD echo hi\n",
    )?;
    let failed = project.try_build(&[])?.failure(1)?;
    ensure!(failed.contains("lint violation found"), "stderr is {failed}");
    ensure!(!failed.contains("exit code"), "a step ran: {failed}");
    project.write(
        "Dockerfile",
        "# check=skip=JSONArgsRecommended;error=true\nFROM scratch\nCMD echo hi\n",
    )?;
    let ended = project.try_build(&[])?.success()?;
    ensure!(!ended.stderr.contains("warning"), "stderr is {}", ended.stderr);
    Ok(Outcome::Passed)
}
