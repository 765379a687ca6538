//! The Dockerfiles of well-known projects, with sources that package indices have: through Kiln and through a peer, to the
//! same tree and config.
//!
//! Each takes minutes and some hundred megabytes, so they run only when `KILN_E2E_PROJECTS` is set. Peers are the programs
//! of `KILN_E2E_PEERS`, `docker` unless it is set. With `none`, Kiln builds alone: twice, the second time from its cache.

use kiln_e2e::builder::Builder;
use kiln_e2e::case::Case;
use kiln_e2e::differences::{Differences, Facts};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, ensure, progress};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("KILN_E2E_PROJECTS").is_none() {
        let skipped = || {
            Ok(Outcome::Skipped(
                "take minutes: set KILN_E2E_PROJECTS to run them".to_owned(),
            ))
        };
        return trial::run(vec![trial::test("projects/all", skipped)]);
    }
    let peers = std::env::var("KILN_E2E_PEERS").unwrap_or_else(|_| "docker".to_owned());
    let mut tests = Vec::new();
    match Case::all_in("projects") {
        Ok(cases) => {
            for case in cases {
                let peers = peers.clone();
                tests.push(trial::test(format!("projects/{}", case.name), move || {
                    build(&case, &peers)
                }));
            }
        }
        Err(error) => tests.push(trial::test("projects/all can be read", move || Err(error))),
    }
    trial::run(tests)
}

fn build(case: &Case, peers: &str) -> TestResult {
    if let Some(obstacle) = case.obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    let ours = facts(case, "kiln")?;
    ensure!(ours.tree.len() > 4, "the image adds hardly anything to its base");
    let mut compared = false;
    for peer in peers.split_whitespace().filter(|peer| *peer != "none") {
        if machine::program(peer).is_none() {
            return Ok(Outcome::Skipped(format!("{peer} is not on the PATH")));
        }
        let theirs = facts(case, peer)?;
        Differences::load()?.check(peer, case, &ours, &theirs)?;
        compared = true;
    }
    if compared || peers.contains("none") {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped("no peer is named".to_owned()))
}

/// What a builder makes of a project.
fn facts(case: &Case, name: &str) -> Result<Facts> {
    let folder = TempFolder::new(&format!("{}-{name}", case.name))?;
    let builder = Builder::named(name, &folder)?;
    let (request, stdin, ended) = case.build(&builder, &folder)?;
    ended.success().map_err(|error| format!("{name}: {error}"))?;
    if let Builder::Kiln(_) = &builder {
        let again = builder.build(&request, stdin.as_deref())?.success()?;
        progress::check_all_cached(&again.stderr)?;
    }
    let mut facts = Facts::of(&case.export(&builder, &request, &folder)?, case.settings.times);
    facts.blur(&case.settings.volatile);
    Ok(facts)
}
