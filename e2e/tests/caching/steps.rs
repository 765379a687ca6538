//! What becomes of whole builds: all steps cached, none, those behind one that was made anew.

use super::{INSTALL, app, built, ran};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};

pub(super) fn second_build_is_cached() -> TestResult {
    let project = app("second-build")?;
    ran(
        &project.build(&[])?,
        &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."],
    )?;
    let first = project.image()?;
    ran(&project.build(&[])?, &[])?;
    ensure!(
        project.image()?.diff_ids == first.diff_ids,
        "the cached build has other layers"
    );
    Ok(Outcome::Passed)
}

pub(super) fn early_cutoff() -> TestResult {
    let dockerfile = "FROM busybox:latest AS count\nCOPY in /in\nRUN wc -l < /in > /out\n\
        FROM busybox:latest\nCOPY --from=count /out /out\nRUN head -c 8 /dev/urandom | od -x > /token\n";
    let project = Project::new(
        "early-cutoff",
        &[("Dockerfile", dockerfile), ("in", "one\ntwo\n")],
    )?;
    project.build(&[])?;
    let token = project.shell("cat /token")?;
    project.write("in", "three\nfour\n")?;
    ran(&project.build(&[])?, &["COPY in /in", "RUN wc -l < /in > /out"])?;
    ensure!(
        project.shell("cat /token")? == token,
        "the step after the unchanged stage ran again"
    );
    project.write("in", "five\n")?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /out /token")? != format!("2\n{token}"),
        "a changed stage was taken for unchanged"
    );
    Ok(Outcome::Passed)
}

pub(super) fn no_cache() -> TestResult {
    let project = app("no-cache")?;
    project.build(&[])?;
    let token = project.shell("cat /app/token")?;
    ran(
        &project.build(&["--no-cache"])?,
        &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."],
    )?;
    let fresh = project.shell("cat /app/token")?;
    ensure!(fresh != token, "--no-cache ran nothing");
    ran(&project.build(&[])?, &[])?;
    ensure!(
        project.shell("cat /app/token")? == fresh,
        "the build after --no-cache has the old result"
    );
    Ok(Outcome::Passed)
}

pub(super) fn failed_step() -> TestResult {
    let project = Project::new(
        "failed",
        &[(
            "Dockerfile",
            "FROM busybox:latest\nRUN echo a > /a\nRUN test -e /never\n",
        )],
    )?;
    project.try_build(&[])?.failure(1)?;
    let again = project.try_build(&[])?.failure(1)?;
    let cached = kiln_e2e::progress::cached(&again);
    ensure!(
        cached == ["RUN echo a > /a"],
        "cached after a failed build: {cached:?}\n{again}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn no_cache_filter() -> TestResult {
    let dockerfile = "FROM busybox:latest AS one\nRUN echo 1 > /1\nFROM busybox:latest AS two\n\
        RUN head -c 8 /dev/urandom | od -x > /2\nFROM one AS last\nCOPY --from=two /2 /\nRUN echo 3 > /3\n";
    let project = built("no-cache-filter", &[("Dockerfile", dockerfile)])?;
    ran(
        &project.build(&["--no-cache-filter", "two"])?,
        &[
            "RUN head -c 8 /dev/urandom | od -x > /2",
            "COPY --from=two /2 /",
            "RUN echo 3 > /3",
        ],
    )?;
    ran(
        &project.build(&["--no-cache-filter", "LAST"])?,
        &["COPY --from=two /2 /", "RUN echo 3 > /3"],
    )?;
    Ok(Outcome::Passed)
}
