//! What the store takes of the disk: what Kiln says of it, giving it back, and limits that hold.

mod gate;
mod in_use;
mod limits;
mod measured;
mod pruned;

use kiln_e2e::Result;
use kiln_e2e::builder::Kiln;
use kiln_e2e::trial::{self, Named};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        (
            "du agrees with the disk over fifty builds and prunes",
            measured::fifty,
        ),
        (
            "du agrees over fifty builds, pushes and prunes in any order",
            measured::any_order,
        ),
        ("a dry run changes nothing", pruned::dry_run),
        ("without an answer nothing is deleted", pruned::answers),
        ("image prune removes what Docker would", pruned::image_prune),
        ("filters by label", pruned::labels),
        ("four builds under a ceiling", in_use::four_under_ceiling),
        ("what a killed process used can go", in_use::killed_holder),
        (
            "everything can be deleted, whoever owns it",
            pruned::everything_goes,
        ),
        ("the ceiling holds during a build", || limits::ceiling("with")),
        ("the ceiling holds without the index", || {
            limits::ceiling("without")
        }),
        ("what is in use is not deleted", in_use::in_use),
        ("a container keeps its layers", in_use::container),
        ("system prune removes what nothing needs", pruned::system_prune),
        ("wrong sizes and filters are refused", pruned::refused),
    ];
    trial::run_all("disk", tests)
}

/// What the program `du` finds. Only root may look into all of it.
fn du(path: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split('\t').next().unwrap_or_default().parse()?)
}

fn json(kiln: &Kiln, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(
        &kiln.run(arguments.iter().copied())?.success()?.stdout,
    )?)
}

fn total(kiln: &Kiln) -> Result<u64> {
    let value = json(kiln, &["cache", "du", "--format", "json"])?;
    value["Total"].as_u64().ok_or_else(|| "no total".into())
}

/// A Dockerfile whose steps depend on `seed`.
fn dockerfile(seed: u64) -> String {
    format!(
        "FROM busybox:latest\n\
         RUN mkdir /d && dd if=/dev/urandom of=/d/f bs=1k count={} && ln /d/f /d/hard && chown 1000:1000 /d && chmod 700 /d\n\
         RUN for i in $(seq {}); do echo $i > /file$i; done; dd if=/dev/zero of=/hole bs=1 count=1 seek=4M\n\
         RUN --mount=type=cache,target=/cache dd if=/dev/zero of=/cache/{} bs=1k count=40\n\
         COPY . /context\n",
        100 + (seed % 7) * 50,
        1 + seed % 40,
        seed % 3,
    )
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}
