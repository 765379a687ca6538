//! Large layers go out while they are compressed.

use kiln_e2e::builder::Ended;
use kiln_e2e::hostile_registry::{Answer, HostileRegistry, Request, Reserved, Site, Uploads, digest};
use kiln_e2e::project::Project;
use kiln_e2e::random::Random;
use kiln_e2e::trial::{Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Named] = &[
    ("a large layer goes out while it is compressed", large),
    ("a large layer that is there is abandoned", there),
    ("a registry that takes no streams gets whole blobs", refused),
    ("a registry that stops to read a stream", stalled),
    ("a build's last layer goes out while it is compressed", build),
    ("a build that fails uploads nothing", failed_build),
    ("Ctrl-C ends a stream", interrupted),
];

/// What compresses to nothing smaller, so that it takes its time.
const LARGE: usize = 48 << 20;

type Misbehaviour = fn(&Request, &mut Site) -> Option<Answer>;

fn registry(misbehaviour: Misbehaviour, uploads_to_cut: usize) -> Result<HostileRegistry> {
    let site = Site::default();
    let at = Reserved::new()?;
    Ok(HostileRegistry::start(
        at,
        site,
        Box::new(misbehaviour),
        Uploads::Cut(uploads_to_cut),
        true,
    ))
}

fn honest(_: &Request, _: &mut Site) -> Option<Answer> {
    None
}

/// A project with a large file.
fn project(name: &str, bases: &[&str], dockerfile: &str) -> Result<Project> {
    let project = Project::with_bases(name, bases, &[("Dockerfile", dockerfile)])?;
    let mut random = Random::new(LARGE as u64);
    let bytes: Vec<u8> = (0..LARGE / 8)
        .flat_map(|_| random.number().to_le_bytes())
        .collect();
    std::fs::write(project.path("large"), bytes)?;
    Ok(project)
}

const PLAIN: &str = "FROM scratch\nCOPY Dockerfile /small\nCOPY large /large\n";

fn tag(project: &Project, registry: &HostileRegistry, name: &str) -> Result<String> {
    let name = format!("{}/{name}", registry.host);
    project
        .kiln
        .run(["tag", &project.request.tag, &name])?
        .success()?;
    Ok(name)
}

/// The blobs of the layers of a name; the registry has them with their bytes.
fn layers(registry: &HostileRegistry, tag: &str) -> Result<Vec<String>> {
    let manifest = registry.with_site(|site| site.manifests.get(tag).cloned());
    let manifest: Value = serde_json::from_slice(&manifest.ok_or("no manifest")?.1)?;
    let digests: Vec<String> = manifest["layers"]
        .as_array()
        .ok_or("no layers")?
        .iter()
        .filter_map(|layer| layer["digest"].as_str().map(str::to_owned))
        .collect();
    for blob in &digests {
        let bytes = registry.with_site(|site| site.blobs.get(blob).cloned());
        ensure!(
            digest(&bytes.ok_or("a blob is missing")?) == *blob,
            "{blob} is another"
        );
    }
    Ok(digests)
}

/// Requests that brought so much.
fn bringing(requests: &[Request], least: usize) -> Vec<&Request> {
    let large = |request: &&Request| request.body.len() >= least;
    requests.iter().filter(large).collect()
}

/// The last layer came as a stream, and nothing large in any other way.
fn streamed(registry: &HostileRegistry, layers: &[String]) -> Result<()> {
    let requests = registry.seen();
    let large = bringing(&requests, LARGE / 2);
    ensure!(large.len() == 1, "{} large bodies", large.len());
    ensure!(
        large[0].method == "PATCH"
            && large[0]
                .headers
                .get("transfer-encoding")
                .is_some_and(|how| how == "chunked")
            && layers.last() == Some(&digest(&large[0].body)),
        "the large layer was sent by {} with {:?}",
        large[0].line(),
        large[0].headers
    );
    ensure!(registry.unmeasured() == 1, "{} streams", registry.unmeasured());
    ensure!(registry.count("DELETE ") == 0, "something was abandoned");
    Ok(())
}

/// The lines about a blob say the same whichever way it went.
fn told_once(ended: &Ended, blob: &str) -> Result<()> {
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(blob)).collect();
    ensure!(
        lines.iter().filter(|line| line.contains(" done")).count() == 1,
        "told of {blob}:\n{}",
        ended.stderr
    );
    Ok(())
}

fn large() -> TestResult {
    for compression in ["gzip", "zstd", "uncompressed"] {
        let registry = registry(honest, 0)?;
        let project = project("stream", &[], PLAIN)?;
        project.build(&[])?;
        let name = tag(&project, &registry, "stream/app:1")?;
        let ended = project
            .kiln
            .run(["push", "--compression", compression, &name])?
            .success()?;
        let layers = layers(&registry, "1")?;
        ensure!(layers.len() == 2, "{layers:?}");
        streamed(&registry, &layers).map_err(|error| format!("{compression}: {error}"))?;
        for layer in &layers {
            told_once(&ended, layer)?;
        }
        // Another tag: nothing moves.
        let before = registry.seen().len();
        let second = tag(&project, &registry, "stream/app:2")?;
        project
            .kiln
            .run(["push", "--compression", compression, &second])?
            .success()?;
        let requests = registry.seen().split_off(before);
        ensure!(
            !requests.iter().any(Request::is_upload),
            "{compression}: a second push moved something"
        );
    }
    Ok(Outcome::Passed)
}

fn there() -> TestResult {
    let registry = registry(honest, 0)?;
    let project = project("stream-there", &[], PLAIN)?;
    project.build(&[])?;
    let name = tag(&project, &registry, "stream/app:1")?;
    project.kiln.run(["push", &name])?.success()?;
    let layers = layers(&registry, "1")?;
    let large = layers.last().ok_or("no layer")?;
    // The store forgets the blob: what it is, is known only after it was compressed once more.
    let hex = large.trim_start_matches("sha256:");
    std::fs::remove_file(project.kiln.root.join("blobs/sha256").join(hex))?;
    registry.forget_seen();
    let second = tag(&project, &registry, "stream/app:2")?;
    let ended = project.kiln.run(["push", &second])?.success()?;
    ensure!(registry.unmeasured() == 2, "there was no second stream");
    ensure!(
        ended.stderr.contains(&format!("{large} already exists")),
        "{}",
        ended.stderr
    );
    let requests = registry.seen();
    let ends = requests
        .iter()
        .filter(|request| request.method == "DELETE")
        .count();
    ensure!(ends == 1, "{ends} uploads were abandoned");
    let puts = requests
        .iter()
        .filter(|request| request.method == "PUT" && request.is_upload())
        .count();
    ensure!(puts == 0, "{puts} uploads were ended as if something was missing");
    Ok(Outcome::Passed)
}

/// The store does not know any more what was compressed.
fn forget_blobs(project: &Project) -> Result<()> {
    std::fs::remove_dir_all(project.kiln.root.join("variants")).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error.into()),
    })
}

fn refused() -> TestResult {
    fn of(request: &Request, method: &str) -> bool {
        request.method == method && request.is_upload()
    }
    let ways: [(&str, Misbehaviour, usize); 5] = [
        (
            "411",
            |request, _| of(request, "PATCH").then(|| Answer::status(411)),
            0,
        ),
        (
            "500",
            |request, _| of(request, "PATCH").then(|| Answer::status(500)),
            0,
        ),
        (
            "fewer bytes",
            |request, site| of(request, "PATCH").then(|| site.answer(request).with("Range", "0-7")),
            0,
        ),
        (
            "no end",
            |request, _| (of(request, "PUT") && request.body.is_empty()).then(|| Answer::status(404)),
            0,
        ),
        ("a cut", honest, 1),
    ];
    let project = project("stream-refused", &[], "FROM scratch\nCOPY large /large\n")?;
    for (name, misbehaviour, cut) in ways {
        let registry = registry(misbehaviour, cut)?;
        project.build(&["--no-cache"])?;
        forget_blobs(&project)?;
        let pushed = tag(&project, &registry, "stream/app:1")?;
        let ended = project.kiln.run(["push", &pushed])?.success()?;
        let layers = layers(&registry, "1").map_err(|error| format!("{name}: {error}"))?;
        told_once(&ended, layers.last().ok_or("no layer")?)?;
        ensure!(
            registry.unmeasured() == 1,
            "{name}: {} streams",
            registry.unmeasured()
        );
        let requests = registry.seen();
        let whole = bringing(&requests, LARGE / 2)
            .iter()
            .any(|request| request.method == "PUT" && layers.last() == Some(&digest(&request.body)));
        ensure!(whole, "{name}: the blob did not come whole");
        ensure!(
            !ended.stderr.to_lowercase().contains("warn") && !ended.stderr.to_lowercase().contains("error"),
            "{name}: told\n{}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

/// What is true of a stalled stream is true of Ctrl-C then, too: nobody waits for the registry.
fn stalled() -> TestResult {
    let project = project("stream-stalled", &[], "FROM scratch\nCOPY large /large\n")?;
    project.build(&[])?;
    let registry = registry(honest, 0)?;
    registry.stall_unmeasured();
    let name = tag(&project, &registry, "stream/app:1")?;
    std::fs::write(project.kiln.config(), "[network]\nstall-timeout = \"5m\"\n")?;
    // Nothing is left to do then but to wait for the registry.
    let compressed = || large_blobs(&project);
    let (taken, ended) = interrupt(&project, &registry, &["push", &name], compressed)?;
    ensure!(taken < SOON, "it took {taken:?} to end\n{}", ended.stderr);
    ended.failure(130)?;
    // With less patience, the blob goes as one of known length.
    forget_blobs(&project)?;
    std::fs::write(project.kiln.config(), "[network]\nstall-timeout = \"8s\"\n")?;
    project.kiln.run(["push", &name])?.success()?;
    ensure!(registry.unmeasured() == 2, "{} streams", registry.unmeasured());
    layers(&registry, "1")?;
    Ok(Outcome::Passed)
}

/// What may pass between the signal and the end.
const SOON: Duration = Duration::from_secs(20);

/// Whether the store has the compressed layer.
fn large_blobs(project: &Project) -> Result<bool> {
    for blob in std::fs::read_dir(project.kiln.root.join("blobs/sha256"))? {
        if blob?.metadata()?.len() > LARGE as u64 / 2 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs a command and ends it by Ctrl-C when a stream has begun and all is `ready`. Gives how long that took.
fn interrupt(
    project: &Project,
    registry: &HostileRegistry,
    arguments: &[&str],
    ready: impl Fn() -> Result<bool>,
) -> Result<(Duration, Ended)> {
    let mut command = project.kiln.command(arguments);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let asked = Instant::now();
    while registry.unmeasured() == 0 || !ready()? {
        ensure!(asked.elapsed() < Duration::from_mins(2), "there was no stream");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let began = Instant::now();
    kill_process(pid.ok_or("no process")?, Signal::INT)?;
    let output = child.wait_with_output()?;
    Ok((began.elapsed(), output.into()))
}

fn build() -> TestResult {
    let registry = registry(honest, 0)?;
    let mut project = project("stream-build", &[], PLAIN)?;
    project.request.tag = format!("{}/stream/built:1", registry.host);
    let ended = project.try_build(&["--push"])?.success()?;
    let layers = layers(&registry, "1")?;
    streamed(&registry, &layers)?;
    told_once(&ended, layers.last().ok_or("no layer")?)?;
    let requests = registry.seen();
    let at = |what: &dyn Fn(&Request) -> bool| requests.iter().position(what);
    let stream = at(&|request| request.method == "PATCH");
    let named = at(&|request| request.method == "PUT" && request.manifest().is_some());
    ensure!(stream < named, "the image had its name before its layers");
    Ok(Outcome::Passed)
}

fn failed_build() -> TestResult {
    let registry = registry(honest, 0)?;
    let dockerfile = "FROM busybox:latest\nCOPY large /large\nRUN sleep 1; exit 3\n";
    let mut project = project("stream-failed", &["busybox:latest"], dockerfile)?;
    project.request.tag = format!("{}/stream/built:1", registry.host);
    project.try_build(&["--push"])?.failure(1)?;
    let requests = registry.seen();
    ensure!(
        registry.unmeasured() == 0 && !requests.iter().any(Request::is_upload),
        "something was uploaded"
    );
    Ok(Outcome::Passed)
}

fn interrupted() -> TestResult {
    let registry = registry(honest, 0)?;
    let project = project("stream-interrupted", &[], PLAIN)?;
    project.build(&[])?;
    let name = tag(&project, &registry, "stream/app:1")?;
    // It takes many times as long as anybody here may be late.
    let slowly = [
        "push",
        "--compression",
        "zstd",
        "--compression-level",
        "22",
        &name,
    ];
    let (taken, ended) = interrupt(&project, &registry, &slowly, || Ok(true))?;
    ensure!(taken < SOON, "it took {taken:?} to end\n{}", ended.stderr);
    ended.failure(130)?;
    let named = registry
        .seen()
        .iter()
        .any(|request| request.method == "PUT" && request.manifest().is_some());
    ensure!(!named, "the image got its name");
    // Nothing stays in the way of the next one.
    project.kiln.run(["push", &name])?.success()?;
    layers(&registry, "1")?;
    Ok(Outcome::Passed)
}
