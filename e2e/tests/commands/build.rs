//! `build`: progress, results, names, and what steps print.

use super::{hello, image_id};
use kiln_e2e::builder::run;
use kiln_e2e::ensure;
use kiln_e2e::progress::{self, End};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use serde_json::Value;

pub(super) fn progress_plain() -> TestResult {
    let project = hello("plain")?;
    let ended = project.try_build(&[])?.success()?;
    let vertices = progress::vertices(&ended.stderr);
    let run = vertices
        .iter()
        .find(|vertex| vertex.step() == Some("RUN echo hello from the step"));
    let run = run.ok_or_else(|| format!("no vertex for the step:\n{}", ended.stderr))?;
    ensure!(
        run.name.starts_with("[first "),
        "the stage's name is not shown: {}",
        run.name
    );
    ensure!(run.end == Some(End::Done), "the step did not end: {run:?}");
    ensure!(
        run.output == ["hello from the step"],
        "the output is {:?}",
        run.output
    );
    let unended: Vec<_> = vertices.iter().filter(|vertex| vertex.end.is_none()).collect();
    ensure!(unended.is_empty(), "vertices without an end: {unended:?}");
    let again = project.try_build(&[])?.success()?;
    ensure!(
        progress::cached(&again.stderr).len() == 2,
        "not two CACHED lines:\n{}",
        again.stderr
    );
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo doomed; exit 3\n")?;
    let failed = project.try_build(&[])?.failure(1)?;
    let vertices = progress::vertices(&failed);
    ensure!(
        vertices.iter().any(|vertex| vertex.end == Some(End::Failed)),
        "no ERROR line:\n{failed}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn progress_rawjson() -> TestResult {
    let project = hello("rawjson")?;
    let mut command = project
        .kiln
        .command(["build", "--progress", "rawjson", "-t", "x"]);
    let ended = run(command.arg(&project.request.context))?.success()?;
    let mut text = String::new();
    for line in ended.stderr.lines() {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("{error} in line {line:?}"))?;
        ensure!(value.is_object(), "line {line:?} is no object");
        text += line;
    }
    ensure!(
        text.contains("RUN echo hello"),
        "no event names the step:\n{text}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn streams() -> TestResult {
    let project = hello("streams")?;
    let built = project.try_build(&[])?.success()?;
    ensure!(
        !built.stdout.contains('#'),
        "progress on stdout: {}",
        built.stdout
    );
    let ran = project.kiln.run(["run", "--rm", "streams:test"])?.success()?;
    ensure!(ran.stdout == "content\n", "stdout is {:?}", ran.stdout);
    ensure!(ran.stderr.is_empty(), "stderr is {:?}", ran.stderr);
    Ok(Outcome::Passed)
}

pub(super) fn failed_step_log() -> TestResult {
    let lines =
        "FROM busybox:latest\nRUN i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 9\n";
    let project = Project::new("failed-log", &[("Dockerfile", lines)])?;
    let mut command = project
        .kiln
        .command(["build", "--progress", "quiet", "-t", "failed-log:test"]);
    let stderr = run(command.arg(&project.request.context))?.failure(1)?;
    ensure!(
        stderr.contains("line 499"),
        "the last lines are not shown:\n{stderr}"
    );
    ensure!(
        stderr.contains("exit code: 9") || stderr.contains("exit code 9"),
        "no exit code:\n{stderr}"
    );
    let hint = stderr
        .lines()
        .find_map(|line| line.split_once("kiln builds logs "));
    let (_, id) = hint.ok_or_else(|| format!("how to see the full log is not told:\n{stderr}"))?;
    let text = project.kiln.run(["builds", "logs", id.trim()])?.success()?.stdout;
    ensure!(
        text.contains("line 0\n") && text.contains("line 499"),
        "the log of build {id} is not full"
    );
    Ok(Outcome::Passed)
}

pub(super) fn exit_codes_of_build() -> TestResult {
    let project = Project::new(
        "exit-build",
        &[("Dockerfile", "FROM busybox:latest\nRUN exit 42\n")],
    )?;
    project.try_build(&[])?.failure(1)?;
    let usage = project.try_build(&["--no-such-flag"])?.failure(2)?;
    ensure!(
        usage.contains("--no-such-flag"),
        "the flag is not named:\n{usage}"
    );
    project.kiln.run(["build"])?.failure(2)?;
    project.kiln.run(["no-such-command"])?.failure(2)?;
    let missing = project.kiln.run(["build", "/no/such/context"])?.failure(1)?;
    ensure!(
        missing.contains("/no/such/context"),
        "the context is not named:\n{missing}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn iidfile_and_quiet() -> TestResult {
    let project = hello("iidfile")?;
    let file = project.scratch("iid");
    project
        .try_build(&["--iidfile", &file.display().to_string()])?
        .success()?;
    let id = image_id(&project, "iidfile:test")?;
    ensure!(
        std::fs::read_to_string(&file)? == id,
        "the file holds {:?}",
        std::fs::read_to_string(&file)?
    );
    let quiet = run(project
        .kiln
        .command(["build", "-q", "-t", "iidfile:test"])
        .arg(&project.request.context))?
    .success()?;
    ensure!(quiet.stdout == format!("{id}\n"), "-q prints {:?}", quiet.stdout);
    ensure!(quiet.stderr.is_empty(), "-q shows progress: {}", quiet.stderr);
    ensure!(project.image()?.id == id, "the export has another id");
    Ok(Outcome::Passed)
}

pub(super) fn several_tags() -> TestResult {
    let project = hello("tags")?;
    project.build(&["-t", "second", "-t", "registry.example:5000/team/third:1.0"])?;
    let id = image_id(&project, "tags:test")?;
    for name in ["second:latest", "second", "registry.example:5000/team/third:1.0"] {
        ensure!(image_id(&project, name)? == id, "{name} is another image");
    }
    Ok(Outcome::Passed)
}

pub(super) fn step_output() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN printf 'no newline'; sleep 0.3; printf ' at first\\nlong '; head -c 70000 /dev/zero | tr '\\0' y; printf '\\nerr' >&2; exit 0\n";
    let project = Project::new("step-output", &[("Dockerfile", dockerfile)])?;
    let ended = project.try_build(&[])?.success()?;
    let vertices = progress::vertices(&ended.stderr);
    let output: Vec<&String> = vertices.iter().flat_map(|vertex| &vertex.output).collect();
    ensure!(
        output.iter().any(|line| *line == "no newline at first"),
        "a line was torn: {:?}",
        &output[..output.len().min(3)]
    );
    let long: usize = output.iter().map(|line| line.matches('y').count()).sum();
    ensure!(long == 70_000, "{long} of 70000 bytes of a long line are shown");
    ensure!(
        output.iter().any(|line| *line == "err"),
        "the last line, without its end, is not shown"
    );
    Ok(Outcome::Passed)
}
