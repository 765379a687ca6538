//! Ctrl-C while a layer comes and is unpacked: the next pull goes on where this one ended.

use kiln_e2e::builder::{Kiln, drafts};
use kiln_e2e::crafted::{Crafted, Layer, Tar};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Body, HostileRegistry, Request, Reserved, Uploads, digest};
use kiln_e2e::machine::TempFolder;
use kiln_e2e::trial::{Outcome, TestResult};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What may pass between the signal and the end: far less than the rest of the layer takes.
const SOON: Duration = Duration::from_secs(20);
/// What may pass until a layer comes.
const BEGIN: Duration = Duration::from_mins(1);

/// The drafts of layers in a store.
fn layer_drafts(root: &Path) -> usize {
    drafts(root)
        .filter(|draft| draft.join("layer/diff").exists())
        .count()
}

/// Bytes of blobs that are not complete.
fn came(root: &Path) -> u64 {
    let partial = std::fs::read_dir(root.join("tmp/partial"))
        .into_iter()
        .flatten()
        .flatten();
    partial
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// A pull ends with the first signal although a layer comes and is unpacked; nothing of that stays but the bytes
/// that came, with which the next pull goes on.
pub(crate) fn while_a_layer_comes() -> TestResult {
    let folder = TempFolder::new("hostile-registry-layer")?;
    let tar = Tar::new().file("f", &b"x".repeat(500_000)).end();
    let size = tar.len();
    let image = Crafted::new(&[Layer {
        diff_id: digest(&tar),
        blob: tar,
        media_type: "application/vnd.oci.image.layer.v1.tar",
    }]);
    let registry = HostileRegistry::start(
        Reserved::new()?,
        image.site(),
        Box::new(move |request, site| {
            let answer = site.answer(request);
            let bytes = answer.bytes();
            let first = request.nth == 0 && bytes.len() == size;
            first.then(|| answer.body(Body::Dripping(bytes, Duration::from_micros(200))))
        }),
        Uploads::Cut(0),
        true,
    );
    let kiln = Kiln::new(&folder)?;
    std::fs::write(kiln.config(), "[network]\nstall-timeout = \"5m\"\n")?;
    let name = format!("{}/app:1", registry.host);
    let child = kiln
        .command(["pull", &name])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let asked = Instant::now();
    while layer_drafts(&kiln.root) == 0 || came(&kiln.root) == 0 {
        ensure!(asked.elapsed() < BEGIN, "nothing is unpacked");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let began = Instant::now();
    kill_process(pid.ok_or("no process")?, Signal::INT)?;
    let output = child.wait_with_output()?;
    let (taken, told) = (began.elapsed(), String::from_utf8_lossy(&output.stderr));
    ensure!(taken < SOON, "it took {taken:?} to end\n{told}");
    ensure!(
        output.status.code() == Some(130),
        "it ended with {:?}\n{told}",
        output.status
    );
    ensure!(layer_drafts(&kiln.root) == 0, "a draft stays");
    kiln.run(["pull", &name])?.success()?;
    let ranges: Vec<Option<usize>> = registry
        .seen()
        .iter()
        .filter(|request| request.nth == 1 && request.blob().is_some())
        .map(Request::range)
        .collect();
    ensure!(
        matches!(ranges[..], [Some(start)] if start > 0),
        "the rest was asked for by {ranges:?}"
    );
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}
