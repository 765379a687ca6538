//! Build arguments and proxies.

use super::{built, ran};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};

pub(super) fn changed_argument() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN echo before > /b\nARG A=1\nWORKDIR /w\nRUN echo $A > /a\n";
    let project = Project::new("changed-argument", &[("Dockerfile", dockerfile)])?;
    project.build(&[])?;
    ran(&project.build(&["--build-arg", "A=2"])?, &["RUN echo 2 > /a"])?;
    ensure!(
        project.shell("cat /a")? == "2\n",
        "the image has the old argument"
    );
    ran(&project.build(&["--build-arg", "A=1"])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn changed_proxy() -> TestResult {
    let project = Project::new(
        "changed-proxy",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo x > /x\n")],
    )?;
    ran(
        &project.build(&["--build-arg", "HTTP_PROXY=http://127.0.0.1:1"])?,
        &["RUN echo x > /x"],
    )?;
    ran(
        &project.build(&["--build-arg", "HTTP_PROXY=http://127.0.0.1:2"])?,
        &[],
    )?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn argument_of_a_copy() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG A=1\nARG D=/d\nCOPY f /f\nWORKDIR /w\nCOPY f $D\n";
    let project = built("argument-of-a-copy", &[("Dockerfile", dockerfile), ("f", "f")])?;
    ran(&project.build(&["--build-arg", "A=2"])?, &[])?;
    ran(&project.build(&["--build-arg", "D=/e"])?, &["COPY f /e"])?;
    Ok(Outcome::Passed)
}

pub(super) fn argument_before_declaration() -> TestResult {
    let dockerfile = "FROM busybox:latest AS one\nRUN echo 1 > /1\nARG A\nFROM one AS two\nRUN echo 2 > /2\n\
        FROM busybox:latest\nRUN echo 3 > /3\nCOPY --from=two /2 /\nARG A\n";
    let project = built("argument-before", &[("Dockerfile", dockerfile)])?;
    // The stage `two` inherits the declaration, the last stage declares it after its step.
    ran(&project.build(&["--build-arg", "A=x"])?, &["RUN echo 2 > /2"])?;
    Ok(Outcome::Passed)
}

pub(super) fn declared_proxy() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG HTTP_PROXY\nRUN echo x > /x\n";
    let project = built("declared-proxy", &[("Dockerfile", dockerfile)])?;
    let argument = ["--build-arg", "HTTP_PROXY=http://127.0.0.1:1"];
    ran(&project.build(&argument)?, &["RUN echo x > /x"])?;
    Ok(Outcome::Passed)
}
