//! How far the cache is trusted: never a wrong hit, results that age, results that are made once more and compared,
//! steps that are kept because nothing before them changed; and builds that push what is only in a registry.

mod age;
mod cutoff;
mod hits;
mod lazy;
mod verified;

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    let with_registry: &[Named] = &[
        (
            "a cached build that pushes downloads no layer",
            lazy::push_without_layers,
        ),
        (
            "to another registry blobs go on and are not unpacked",
            lazy::push_elsewhere,
        ),
        ("a lost blob is a miss", lazy::lost_blob),
        ("nothing is downloaded for nothing", lazy::cache_only),
        ("an index of layers that are elsewhere", lazy::lazy_index),
        ("another form needs the files", lazy::forced_compression),
        ("an image below stays where it is", lazy::image_below),
    ];
    let others: &[Named] = &[
        ("bytes rewritten in place are seen", hits::rewritten_in_place),
        ("files swapped by rename are seen", hits::swapped_files),
        ("a file that changes while it is read", hits::changing_file),
        ("what a power loss may have torn is made anew", hits::power_loss),
        ("a filter of unknown stages", age::unknown_stage),
        ("a filter's reasons", age::filter_reasons),
        ("results age", age::ttl),
        (
            "a result that is found again is as old as it is",
            age::ttl_of_kept,
        ),
        ("a cached step is made once more", verified::verify),
        ("a part of the cached steps", verified::verify_some),
        ("a difference may be a failure", verified::verify_fail),
        ("a damaged layer is told", verified::verify_damage),
        ("what cannot be made once more", verified::verify_secret),
        ("early cutoff after every kind of step", cutoff::cutoff),
    ];
    let mut trials: Vec<_> = others
        .iter()
        .map(|&(name, test)| trial::test(format!("cache-trust/{name}"), test))
        .collect();
    trials.extend(with_registry.iter().map(|&(name, test)| {
        trial::test(format!("cache-trust/{name}"), move || {
            match Registry::obstacle() {
                Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
                None => test(),
            }
        })
    }));
    trial::run(trials)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Builds and demands that the steps which ran are exactly these.
fn build(project: &Project, arguments: &[&str], ran: &[&str]) -> Result<Ended> {
    let ended = project.try_build(arguments)?.success()?;
    let mut found = progress::not_cached(&ended.stderr);
    // Steps that do not need each other run in any order.
    let mut ran = ran.to_vec();
    found.sort_unstable();
    ran.sort_unstable();
    ensure!(
        found == ran,
        "not cached: {found:?}, expected {ran:?}\n{}",
        ended.stderr
    );
    Ok(ended)
}

fn says(ended: &Ended, told: &str) -> Result<()> {
    ensure!(
        ended.stderr.contains(told),
        "it does not say {told:?}:\n{}",
        ended.stderr
    );
    Ok(())
}

/// The layers of a store.
fn stored_layers(project: &Project) -> Result<usize> {
    let folder = project.kiln.root.join("layers");
    if !folder.exists() {
        return Ok(0);
    }
    Ok(std::fs::read_dir(folder)?.count())
}

fn id(project: &Project) -> Result<String> {
    let ended = project.kiln.run(["inspect", &project.request.tag])?.success()?;
    let shown: Value = serde_json::from_str(&ended.stdout)?;
    Ok(text(&shown[0]["Id"]))
}

const STAGES: &str = "FROM busybox:latest AS gen\nCOPY in.txt /in\nRUN head -c1 /in > /out\n\
    FROM busybox:latest\nCOPY --from=gen /out /out\nRUN sleep 1; cp /out /copy\n";

fn stages(name: &str) -> Result<Project> {
    let project = Project::new(name, &[("Dockerfile", STAGES), ("in.txt", "one\n")])?;
    project.build(&[])?;
    Ok(project)
}

fn why(project: &Project) -> Result<String> {
    Ok(project.kiln.run(["why"])?.success()?.stdout)
}

/// Makes the image `base:1`, with a label.
fn base(project: &Project, label: &str) -> Result<()> {
    let context = project.scratch("base");
    std::fs::create_dir_all(&context)?;
    let dockerfile = format!("FROM busybox:latest\nRUN echo base > /base\nLABEL l={label}\n");
    std::fs::write(context.join("Dockerfile"), dockerfile)?;
    let mut request = project.request.clone();
    (request.context, request.tag) = (context, "base:1".to_owned());
    run(&mut project.kiln.build_command(&request))?.success()?;
    Ok(())
}
