//! Images go to other tools and come back, through a registry and in archives: trees, configurations and DiffIDs stay as
//! they are, digests where nobody writes a manifest anew.

mod archives;
mod fixture;
mod hostile;
mod peers;
mod schemas;

use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome};
use std::process::ExitCode;

fn main() -> ExitCode {
    let with_registry: &[Named] = &[
        ("skopeo takes and gives every form", peers::skopeo),
        ("podman pulls, saves, loads and pushes", peers::podman),
        ("dockerd pulls, saves, loads and pushes", peers::dockerd),
        ("umoci unpacks and repacks", peers::umoci),
        ("an index keeps its digest", peers::index),
        ("the schemas of the specification hold", schemas::hold),
    ];
    let alone: &[Named] = &[
        ("several images in one archive", archives::several),
        (
            "compressed archives, standard input and output",
            archives::streams,
        ),
        ("platforms of an archive", archives::platforms),
        ("folders", archives::folders),
        ("what a user is told", archives::told),
        ("hostile archives change nothing", hostile::refused),
        (
            "a fault in the last image changes no name",
            hostile::all_or_nothing,
        ),
        ("a layer that pretends to be known", hostile::pretending),
        ("a killed load leaves nothing", hostile::killed),
        ("a load that waits can be ended", hostile::ended),
    ];
    let mut trials: Vec<_> = with_registry
        .iter()
        .map(|&(name, test)| {
            trial::test(format!("roundtrip/{name}"), move || match Registry::obstacle() {
                Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
                None => test(),
            })
        })
        .collect();
    let named = alone
        .iter()
        .map(|&(name, test)| trial::test(format!("roundtrip/{name}"), test));
    trials.extend(named);
    trial::run(trials)
}
