//! Steps that are kept because nothing before them changed.

use super::{base, build, says, stages, why};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::remote::Server;
use kiln_e2e::trial::{Outcome, TestResult};

/// For each kind of step: it is made anew, its content is the same, and what follows is kept and counted.
pub(super) fn cutoff() -> TestResult {
    // A process, then copies from a stage that was made anew; the last step took a second.
    let project = stages("cutoff-run")?;
    project.write("in.txt", "only the first byte counts\n")?;
    let ended = build(&project, &[], &["COPY in.txt /in", "RUN head -c1 /in > /out"])?;
    says(
        &ended,
        "early cutoff: 2 steps were kept, their inputs came out the same (saved 1.",
    )?;
    // A copy of a file whose name does not count.
    let dockerfile = "FROM busybox:latest AS gen\nCOPY a /x\nRUN wc /x > /y\nFROM gen\nRUN cp /y /z\n";
    let files = [("Dockerfile", dockerfile), ("a", "same\n"), ("b", "same\n")];
    let project = Project::new("cutoff-copy", &files)?;
    project.build(&[])?;
    project.write(
        "Dockerfile",
        &dockerfile.replace("wc /x", "wc < /x > /dev/null; wc /x"),
    )?;
    let ended = build(&project, &[], &["RUN wc < /x > /dev/null; wc /x > /y"])?;
    says(&ended, "early cutoff: 1 step was kept")?;
    // A file by HTTP with another tag and the same bytes.
    let server = Server::start()?;
    server.put("/f", "one\n", &[("ETag", "\"v1\"")]);
    let dockerfile = format!("FROM busybox:latest\nADD {} /f\nRUN cp /f /g\n", server.url("/f"));
    let project = Project::new("cutoff-http", &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    let ended = project.try_build(&[])?.success()?;
    ensure!(
        !ended.stderr.contains("early cutoff"),
        "nothing was downloaded:\n{}",
        ended.stderr
    );
    server.put("/f", "one\n", &[("ETag", "\"v2\"")]);
    let ended = project.try_build(&[])?.success()?;
    says(&ended, "early cutoff: 2 steps were kept")?;
    // A base that was built again: another digest, the same layers.
    let dockerfile = "FROM base:1\nRUN echo x > /x\nCOPY Dockerfile /d\n";
    let project = Project::new("cutoff-base", &[("Dockerfile", dockerfile)])?;
    base(&project, "one")?;
    project.build(&[])?;
    base(&project, "two")?;
    let ended = build(&project, &[], &[])?;
    says(&ended, "early cutoff: 2 steps were kept")?;
    let found = why(&project)?;
    ensure!(found.contains("early cutoff: 2 steps were kept"), "{found}");
    // Found by their definitions from now on: nothing to tell.
    let ended = build(&project, &[], &[])?;
    ensure!(!ended.stderr.contains("early cutoff"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}
