//! Steps that are not to be cached, and results that age.

use super::{base, build, says, stages, why};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use std::time::Duration;

pub(super) fn unknown_stage() -> TestResult {
    let project = stages("unknown-stage")?;
    let ended = build(&project, &["--no-cache-filter", "GEN2,7"], &[])?;
    says(&ended, "--no-cache-filter GEN2: no stage is called that")?;
    says(&ended, "--no-cache-filter 7: no stage is called that")?;
    let both = ["COPY in.txt /in", "RUN head -c1 /in > /out"];
    for stage in ["Gen", "0"] {
        let ended = build(&project, &["--no-cache-filter", stage], &both)?;
        ensure!(!ended.stderr.contains("no stage is called"), "{}", ended.stderr);
    }
    Ok(Outcome::Passed)
}

/// A step after one that was made anew to another content ran for that, although its definition is what it was.
pub(super) fn filter_reasons() -> TestResult {
    let dockerfile = "FROM busybox:latest AS gen\nRUN head -c 8 /dev/urandom | od -x > /out\n\
        FROM busybox:latest\nCOPY --from=gen /out /out\nRUN cp /out /copy\n";
    let project = Project::new("filter-reasons", &[("Dockerfile", dockerfile)])?;
    project.build(&[])?;
    project.build(&["--no-cache-filter", "gen"])?;
    let expected = "[gen 2/2] RUN head -c 8 /dev/urandom | od -x > /out  (Dockerfile:2)\n    --no-cache-filter\n\
        [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:4)\n    \
        out changed in [gen 2/2] RUN head -c 8 /dev/urandom | od -x > /out\n\
        [stage-1 3/3] RUN cp /out /copy  (Dockerfile:5)\n    after [stage-1 2/3] COPY --from=gen /out /out\n";
    let found = why(&project)?;
    ensure!(found == expected, "found:\n{found}\nexpected:\n{expected}");
    Ok(Outcome::Passed)
}

pub(super) fn ttl() -> TestResult {
    let project = stages("ttl")?;
    build(&project, &["--cache-ttl", "1h"], &[])?;
    std::thread::sleep(Duration::from_millis(20));
    // Of a copy the key has all that decides; it does not age. The step after it does, on its own.
    let old = ["RUN head -c1 /in > /out", "RUN sleep 1; cp /out /copy"];
    let ended = build(&project, &["--cache-ttl", "10ms"], &old)?;
    says(&ended, " old, and --cache-ttl is 10ms")?;
    let found = why(&project)?;
    ensure!(
        found.matches(" old, and --cache-ttl is 10ms").count() == 2,
        "{found}"
    );
    // What was made anew is young.
    build(&project, &["--cache-ttl", "1h"], &[])?;
    // A result that comes of too old a step is not found by its definition alone.
    let dockerfile = "FROM busybox:latest AS gen\nRUN head -c 8 /dev/urandom | od -x > /out\n\
        FROM scratch\nCOPY --from=gen /out /out\n";
    project.write("Dockerfile", dockerfile)?;
    project.build(&[])?;
    std::thread::sleep(Duration::from_millis(20));
    let both = [
        "RUN head -c 8 /dev/urandom | od -x > /out",
        "COPY --from=gen /out /out",
    ];
    build(&project, &["--cache-ttl", "10ms"], &both)?;
    let usage = project.try_build(&["--cache-ttl", "soon"])?.failure(2)?;
    ensure!(usage.contains("--cache-ttl soon"), "{usage}");
    Ok(Outcome::Passed)
}

pub(super) fn ttl_of_kept() -> TestResult {
    let dockerfile = "FROM base:1\nRUN echo x > /x\n";
    let project = Project::new("ttl-of-kept", &[("Dockerfile", dockerfile)])?;
    base(&project, "one")?;
    project.build(&[])?;
    std::thread::sleep(Duration::from_secs(4));
    base(&project, "two")?;
    let ended = build(&project, &["--cache-ttl", "1h"], &[])?;
    says(&ended, "early cutoff: 1 step was kept")?;
    build(&project, &["--cache-ttl", "3s"], &["RUN echo x > /x"])?;
    Ok(Outcome::Passed)
}
