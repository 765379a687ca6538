//! What a step is lent: hosts, secrets, mounts.

use super::ran;
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};

pub(super) fn changed_hosts() -> TestResult {
    let step = "RUN grep -c db /etc/hosts > /x";
    let project = Project::new(
        "changed-hosts",
        &[("Dockerfile", &format!("FROM busybox:latest\n{step}\n"))],
    )?;
    ran(&project.build(&["--add-host", "db:10.0.0.1"])?, &[step])?;
    ran(&project.build(&["--add-host", "db:10.0.0.2"])?, &[])?;
    ran(&project.build(&["--add-host", "db2:10.0.0.1"])?, &[step])?;
    ran(
        &project.build(&["--add-host", "db2:10.0.0.1", "--add-host", "db3:10.0.0.1"])?,
        &[step],
    )?;
    Ok(Outcome::Passed)
}

pub(super) fn changed_secret() -> TestResult {
    let step = |id: &str| format!("RUN --mount=type=secret,id={id},target=/s wc -c < /s > /x");
    let dockerfile = |id: &str| format!("FROM busybox:latest\n{}\n", step(id));
    let project = Project::new("changed-secret", &[("Dockerfile", &dockerfile("one"))])?;
    let build = |id: &str, value: &str| {
        let file = project.scratch("secret");
        std::fs::write(&file, value)?;
        project.build(&["--secret", &format!("id={id},src={}", file.display())])
    };
    ran(&build("one", "value")?, &[&step("one")])?;
    ran(&build("one", "another value")?, &[])?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ran(&build("two", "value")?, &[&step("two")])?;
    Ok(Outcome::Passed)
}

/// Which directory a cache mount is must not decide what comes of a step.
pub(super) fn changed_cache_mount() -> TestResult {
    let step = |mount: &str| format!("RUN --mount=type=cache,{mount} mkdir -p /c && echo x >> /c/log");
    let project = Project::new("changed-cache-mount", &[])?;
    let build = |mount: &str| {
        project.write("Dockerfile", &format!("FROM busybox:latest\n{}\n", step(mount)))?;
        project.build(&[])
    };
    ran(&build("id=one,target=/c")?, &[&step("id=one,target=/c")])?;
    // The mount holds a line more than it did, which no key tells.
    ran(&build("id=one,target=/c")?, &[])?;
    ran(&build("id=two,target=/c")?, &[])?;
    ran(&build("id=one,target=/c,sharing=locked")?, &[])?;
    ran(&build("id=one,target=/d")?, &[&step("id=one,target=/d")])?;
    ran(
        &build("id=one,target=/c,mode=0700")?,
        &[&step("id=one,target=/c,mode=0700")],
    )?;
    Ok(Outcome::Passed)
}

pub(super) fn changed_bind_source() -> TestResult {
    let step = |source: &str| format!("RUN --mount=source={source},target=/in cat /in/f > /out");
    let dockerfile = |source: &str| format!("FROM busybox:latest\n{}\n", step(source));
    let files = [
        ("Dockerfile", dockerfile("one")),
        ("one/f", "same\n".to_owned()),
        ("two/f", "same\n".to_owned()),
        ("three/f", "other\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let project = Project::new("changed-bind-source", &files)?;
    ran(&project.build(&[])?, &[&step("one")])?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ran(&project.build(&[])?, &[])?;
    project.write("Dockerfile", &dockerfile("three"))?;
    ran(&project.build(&[])?, &[&step("three")])?;
    ensure!(
        project.shell("cat /out")? == "other\n",
        "the image has the old result"
    );
    Ok(Outcome::Passed)
}
