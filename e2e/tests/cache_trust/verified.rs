//! Cached steps that are made once more and compared.

use super::{build, id, says, text, why};
use kiln_e2e::builder::run;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;

const VERIFIED: &str = "FROM busybox:latest\nCOPY in.txt /in\nRUN wc -c < /in > /count\n\
    RUN head -c 8 /dev/urandom | od -x > /token && ln -s /$(cut -c 9-12 /token | head -n 1) /link\nCOPY --link in.txt /copy\n";

fn verified(name: &str) -> Result<Project> {
    let project = Project::new(name, &[("Dockerfile", VERIFIED), ("in.txt", "one\n")])?;
    project.build(&[])?;
    Ok(project)
}

pub(super) fn verify() -> TestResult {
    let project = verified("verify")?;
    let (before, token) = (id(&project)?, project.shell("cat /token")?);
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(
        &ended,
        "cache verification: 4 cached steps were run again: 1 gave another result",
    )?;
    says(
        &ended,
        "another result: /link links elsewhere; /token has other bytes",
    )?;
    says(&ended, "the same result, only times differ (1)")?;
    // The cached result stays, and so do the keys.
    ensure!(id(&project)? == before, "the image is another one");
    ensure!(project.shell("cat /token")? == token, "another token");
    let found = why(&project)?;
    ensure!(
        found.contains("RUN head -c 8") && found.contains("    run again: another result: /link"),
        "{found}"
    );
    let arguments = ["builds", "show", "--format", "json"];
    let shown = project.kiln.run(arguments)?.success()?.stdout;
    let shown: Value = serde_json::from_str(&shown)?;
    let steps = shown["steps"].as_array().cloned().unwrap_or_default();
    let step = steps
        .iter()
        .find(|step| text(&step["name"]).contains("urandom"))
        .ok_or("no step")?;
    ensure!(
        text(&step["verified"]["result"]) == "differs"
            && step["verified"]["paths"] == 2
            && text(&step["verified"]["first"][1]["path"]) == "token"
            && text(&step["verified"]["first"][1]["aspects"][0]) == "bytes",
        "{step}"
    );
    // The same for machines.
    let mut command = project.kiln.command(["build", "--progress", "rawjson"]);
    let ended = run(command.arg("--verify-cache=100").arg(&project.request.context))?.success()?;
    let summary = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| line.get("summary").cloned())
        .ok_or("no summary")?;
    let results: Vec<String> = summary["verified"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| text(&step["result"]))
        .collect();
    ensure!(results == ["same", "same", "differs", "same"], "{summary}");
    build(&project, &[], &[])?;
    project.kiln.run(["cache", "verify"])?.success()?;
    // What did not come from the cache is not made twice.
    let ended = project.try_build(&["--no-cache", "--verify-cache"])?.success()?;
    ensure!(!ended.stderr.contains("cache verification"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}

pub(super) fn verify_some() -> TestResult {
    let project = verified("verify-some")?;
    let ended = build(&project, &["--verify-cache=1"], &[])?;
    says(&ended, "cache verification: 1 cached step was run again")?;
    let ended = build(&project, &["--verify-cache=50"], &[])?;
    says(&ended, "cache verification: 2 cached steps were run again")?;
    for wrong in ["--verify-cache=0", "--verify-cache=101", "--verify-cache=x"] {
        let told = project.try_build(&[wrong])?.failure(2)?;
        ensure!(told.contains("from 1 to 100"), "{told}");
    }
    Ok(Outcome::Passed)
}

pub(super) fn verify_fail() -> TestResult {
    let project = verified("verify-fail")?;
    let out = project.scratch("out");
    let dest = format!("type=local,dest={}", out.display());
    let told = project
        .try_build(&["--verify-cache=fail", "-o", &dest])?
        .failure(1)?;
    ensure!(
        told.contains("1 cached step gives another result when run again"),
        "{told}"
    );
    ensure!(!out.exists(), "it was exported");
    // Nothing to complain of: a build as any other.
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nCOPY in.txt /in\nRUN wc /in > /out\n",
    )?;
    project.build(&[])?;
    let ended = build(&project, &["--verify-cache=100,fail", "-o", &dest], &[])?;
    says(
        &ended,
        "cache verification: 2 cached steps were run again: the same results",
    )?;
    ensure!(out.join("out").exists(), "it was not exported");
    Ok(Outcome::Passed)
}

pub(super) fn verify_damage() -> TestResult {
    let project = verified("verify-damage")?;
    let layers = project.kiln.root.join("layers");
    let mut harmed = 0;
    for layer in std::fs::read_dir(layers)? {
        let file = layer?.path().join("diff/count");
        if file.exists() {
            std::fs::write(&file, "9\n")?;
            harmed += 1;
        }
    }
    ensure!(harmed == 1, "{harmed} layers have the file");
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(&ended, "the cached layer is damaged")?;
    says(&ended, "/count: has other bytes")?;
    Ok(Outcome::Passed)
}

pub(super) fn verify_secret() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN --mount=type=secret,id=s,required=true wc -c /run/secrets/s > /n\n\
        RUN --mount=type=secret,id=s,target=/s test -f /s; echo x > /x\n";
    let project = Project::new("verify-secret", &[("Dockerfile", dockerfile), ("s", "secret\n")])?;
    let secret = format!("id=s,src={}", project.path("s").display());
    project.build(&["--secret", &secret])?;
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(&ended, "not run again: secret s: not found")?;
    says(
        &ended,
        "cache verification: 1 cached step was run again: the same results; 1 could not be run",
    )?;
    let ended = build(&project, &["--verify-cache", "--secret", &secret], &[])?;
    says(
        &ended,
        "cache verification: 2 cached steps were run again: the same results",
    )?;
    Ok(Outcome::Passed)
}
