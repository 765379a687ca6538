//! Registries that lie, stall, loop and send what no tool makes: each case is one row of a table, through the real
//! binary.
//!
//! Of each case is shown: the exit code; the text of errors, warnings and hints (`testdata/hostile-registry.txt`,
//! rewritten with `KILN_E2E_BLESS`); that nothing beside the store was touched, neither around it nor where links aim;
//! that the store is in order and holds no leftovers; that the answer came in bounded time and memory; and that no
//! credentials went to another host.

mod auth;
mod caches;
mod case;
mod documents;
mod expected;
mod headers;
mod interrupted;
mod layers;
mod meanwhile;
mod push;
mod redirects;
mod runner;
mod streams;
mod transfer;

use kiln_e2e::trial;
use std::process::ExitCode;

fn main() -> ExitCode {
    let tables = [
        transfer::cases(),
        meanwhile::cases(),
        redirects::cases(),
        auth::cases(),
        documents::cases(),
        caches::cases(),
        streams::cases(),
        layers::cases(),
        headers::cases(),
        push::cases(),
    ];
    let tests = tables.into_iter().flatten().map(|case| {
        trial::test(format!("hostile-registry/{}", case.name), move || {
            runner::run(&case)
        })
    });
    let more = [
        trial::test(
            "hostile-registry/Ctrl-C while a registry asks for patience",
            interrupted::while_waiting,
        ),
        trial::test(
            "hostile-registry/Ctrl-C while a layer comes",
            interrupted::while_a_layer_comes,
        ),
    ];
    trial::run(tests.chain(more).collect())
}
