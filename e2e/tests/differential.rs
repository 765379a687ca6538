//! The same Dockerfiles through Kiln and through a peer: both fail, or the images are equal, file by file and field by
//! field, but for what `testdata/peer-differences.toml` explains.
//!
//! Peers are the programs of `KILN_E2E_PEERS` (`buildah` unless it is set) that are on the PATH. `docker` works too,
//! with a daemon whose images of the bases' names may be replaced.

use kiln_e2e::builder::Builder;
use kiln_e2e::case::Case;
use kiln_e2e::differences::{Differences, Facts};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, bail};
use std::collections::BTreeSet;
use std::process::ExitCode;

fn main() -> ExitCode {
    let peers = std::env::var("KILN_E2E_PEERS").unwrap_or_else(|_| "buildah".to_owned());
    let mut tests = Vec::new();
    for peer in peers.split_whitespace().map(str::to_owned) {
        if machine::program(&peer).is_none() {
            let reason = format!("{peer} is not on the PATH: nothing is compared with it");
            tests.push(trial::test(format!("differential/{peer}"), || {
                Ok(Outcome::Skipped(reason))
            }));
            continue;
        }
        match Case::all() {
            Ok(cases) => tests.extend(cases.into_iter().map(|case| {
                let peer = peer.clone();
                trial::test(format!("differential/{peer}/{}", case.name), move || {
                    compare(&case, &peer)
                })
            })),
            Err(error) => tests.push(trial::test("differential/all cases can be read", move || {
                Err(error)
            })),
        }
    }
    trial::run(tests)
}

fn compare(case: &Case, peer: &str) -> TestResult {
    if let Some(obstacle) = case.obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    if let Some(reason) = case.settings.differs.get(peer) {
        return Ok(Outcome::Skipped(format!("{peer} differs on purpose: {reason}")));
    }
    if std::env::var_os("KILN_E2E_PEERS").is_none() && !vetted()?.contains(&case.name) {
        let reason = "not compared with Buildah yet: KILN_E2E_PEERS=buildah tries it";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    let (ours, theirs) = match (facts(case, "kiln")?, facts(case, peer)?) {
        (Made::Image(ours), Made::Image(theirs)) => (ours, theirs),
        (Made::Nothing(_), Made::Nothing(_)) => return Ok(Outcome::Passed),
        (Made::Image(_), Made::Nothing(why)) => bail!("{peer} fails where kiln builds\n{why}"),
        (Made::Nothing(why), Made::Image(_)) => bail!("kiln fails where {peer} builds\n{why}"),
    };
    Differences::load()?.check(peer, case, &ours, &theirs)?;
    Ok(Outcome::Passed)
}

/// The cases that somebody has compared with the Buildah of Debian 12, which is older than much of the language.
fn vetted() -> Result<BTreeSet<String>> {
    let file = machine::testdata().join("buildah-cases.txt");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What came of a build.
enum Made {
    /// An image.
    Image(Facts),
    /// A failure, and what was said.
    Nothing(String),
}

/// What a builder makes of a case. The folders are told apart by the builder's name.
fn facts(case: &Case, name: &str) -> Result<Made> {
    let folder = TempFolder::new(&format!("{}-{name}", case.name))?;
    let builder = Builder::named(name, &folder)?;
    let (request, _, ended) = case.build(&builder, &folder)?;
    if ended.code != Some(0) {
        return Ok(Made::Nothing(ended.stderr));
    }
    let built = case.export(&builder, &request, &folder)?;
    Ok(Made::Image(Facts::of(&built, case.settings.times)))
}
