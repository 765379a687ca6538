//! Caches that travel: what a machine with an empty store takes from a registry, a folder or an image, and what comes
//! of it when these are broken.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("an empty machine is fully cached", empty_machine),
        ("min has the result's steps, max has all", min_and_max),
        ("layers come when their files are needed", lazy),
        ("a cached build makes no request", no_request),
        ("folders", folders),
        ("inline", inline),
        ("an export that brings nothing new changes nothing", settled),
        ("two machines lose nothing of each other", two_writers),
        ("two platforms in one cache", two_platforms),
        ("a missing layer is a miss", missing_layer),
        ("a changed layer is a miss", changed_layer),
        ("a layer that is another one is a miss", swapped_layer),
        ("a broken document is a warning", broken_document),
        ("a cache of BuildKit is left alone", buildkit_cache),
        ("an unreachable registry is a warning", unreachable),
        ("an image is not overwritten", image_stays),
        ("a failed export fails the build, or not", failed_export),
        ("nothing of secrets", secrets),
        ("the recipe of docs/ci.md", ci_recipe),
        ("the recipe without root", ci_recipe_without_root),
    ];
    let with_registry = |&(name, test): &Named| {
        trial::test(format!("remote-cache/{name}"), move || {
            match Registry::obstacle() {
                Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
                None => test(),
            }
        })
    };
    trial::run(tests.iter().map(with_registry).collect())
}

/// The shape of the tutorials' Python app; the token shows whether a step ran again.
const APP: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\nCMD [\"cat\", \"app.py\"]\n";

/// Two stages; of the first one only a file gets into the result.
const STAGES: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\n\
    FROM BASE\nCOPY --from=build /app/installed /installed\nCOPY app.py /app.py\nRUN wc /installed /app.py > /count\n";

/// A registry with a base image.
struct Site {
    registry: Registry,
    base: String,
}

impl Site {
    fn new() -> Result<Self> {
        let registry = Registry::start()?;
        let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
        Ok(Self { registry, base })
    }

    /// A machine with an empty store, and the app in its context.
    fn machine(&self, name: &str) -> Result<Project> {
        machine_with(name, &format!("FROM {}\n{APP}", self.base))
    }

    /// The same with the app of two stages.
    fn machine_with_stages(&self, name: &str) -> Result<Project> {
        let stages = STAGES.replace("BASE", &self.base);
        machine_with(name, &format!("FROM {} AS build\n{stages}", self.base))
    }

    /// A name of this registry.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host)
    }

    fn to(&self, name: &str, more: &str) -> String {
        format!("type=registry,ref={}{more}", self.name(name))
    }

    fn from(&self, name: &str) -> String {
        format!("type=registry,ref={}", self.name(name))
    }

    /// The digests of the blobs of a cache, the layers' or the listings'.
    fn blobs(&self, name: &str, what: &str) -> Result<Vec<String>> {
        let manifest = self.registry.manifest(&self.name(name))?;
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        let of_kind = layers
            .iter()
            .filter(|blob| text(&blob["mediaType"]).contains(what));
        Ok(of_kind.map(|blob| text(&blob["digest"])).collect())
    }

    /// The document of a cache.
    fn document(&self, name: &str) -> Result<Value> {
        let manifest = self.registry.manifest(&self.name(name))?;
        let path = self.registry.blob_path(&text(&manifest["config"]["digest"]));
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// A machine with an empty store, and this Dockerfile with the app's files in its context.
fn machine_with(name: &str, dockerfile: &str) -> Result<Project> {
    let files = [
        ("Dockerfile", dockerfile),
        ("requirements.txt", "b\na\n"),
        ("app.py", "one\n"),
    ];
    Project::with_bases(name, &[], &files)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn token(project: &Project) -> Result<String> {
    project.shell("cat /app/token")
}

fn id(project: &Project) -> Result<String> {
    let shown = project
        .kiln
        .run(["inspect", &project.request.tag])?
        .success()?
        .stdout;
    let shown: Value = serde_json::from_str(&shown)?;
    let id = text(&shown[0]["Id"]);
    ensure!(id.starts_with("sha256:"), "no id in {shown}");
    Ok(id)
}

/// Builds and demands that the steps which ran are exactly these.
fn build(project: &Project, arguments: &[&str], ran: &[&str]) -> Result<Ended> {
    let ended = project.try_build(arguments)?.success()?;
    let found = progress::not_cached(&ended.stderr);
    ensure!(
        found == ran,
        "not cached: {found:?}, expected {ran:?}\n{}",
        ended.stderr
    );
    Ok(ended)
}

const INSTALL: &str = "RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token";
const ALL: &[&str] = &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."];

fn empty_machine() -> TestResult {
    let site = Site::new()?;
    for (mode, compression) in [("min", "zstd"), ("max", "gzip"), ("max", "uncompressed")] {
        let name = format!("cache:{mode}-{compression}");
        let first = site.machine("first")?;
        let to = site.to(
            &name,
            &format!(",mode={mode},image-manifest=true,compression={compression}"),
        );
        build(&first, &["--cache-to", &to], ALL)?;
        let second = site.machine("second")?;
        build(&second, &["--cache-from", &site.from(&name)], &[])?;
        ensure!(
            token(&first)? == token(&second)?,
            "{name}: the token is another one"
        );
        ensure!(
            id(&first)? == id(&second)?,
            "{name}: the image's id is another one"
        );
        let trees = [first.image()?, second.image()?].map(|image| image.tree.lines(true));
        ensure!(trees[0] == trees[1], "{name}: the trees differ");
        second.kiln.run(["cache", "verify"])?.success()?;
        // What came is the machine's own from now on, and short forms do as well.
        build(&second, &[], &[])?;
        let third = site.machine("third")?;
        build(&third, &["--cache-from", &site.name(&name)], &[])?;
        // The base's blobs are not in the cache.
        let base = site.registry.manifest(&site.base)?;
        let blob = text(&base["layers"][0]["digest"]);
        ensure!(
            !site.blobs(&name, "layer")?.contains(&blob),
            "{name}: the base was exported"
        );
    }
    Ok(Outcome::Passed)
}

fn min_and_max() -> TestResult {
    let site = Site::new()?;
    let first = site.machine_with_stages("first")?;
    let to = [
        site.to("cache:min", ",mode=min"),
        site.to("cache:max", ",mode=max"),
    ];
    first.build(&["--cache-to", &to[0], "--cache-to", &to[1]])?;
    for name in ["cache:min", "cache:max"] {
        let second = site.machine_with_stages("second")?;
        build(&second, &["--cache-from", &site.from(name)], &[])?;
        ensure!(
            id(&first)? == id(&second)?,
            "{name}: the image's id is another one"
        );
    }
    let build_stage = |name: &str, ran: &[&str]| {
        let third = site.machine_with_stages("third")?;
        build(
            &third,
            &["--cache-from", &site.from(name), "--target", "build"],
            ran,
        )
    };
    build_stage("cache:min", &["WORKDIR /app", "COPY requirements.txt .", INSTALL])?;
    build_stage("cache:max", &[])?;
    Ok(Outcome::Passed)
}

fn lazy() -> TestResult {
    let site = Site::new()?;
    let first = site.machine_with_stages("first")?;
    first.build(&["--cache-to", &site.to("cache:lazy", ",mode=max")])?;
    let layers = site.blobs("cache:lazy", "layer")?;
    ensure!(layers.len() == 6, "the cache has {} layers", layers.len());
    let fetched = |site: &Site, what: &str| -> Result<usize> {
        let blobs = site.blobs("cache:lazy", what)?;
        let requests = site.registry.take_requests()?;
        let is_fetch = |digest: &&String| {
            requests
                .iter()
                .any(|request| request.starts_with("GET ") && request.ends_with(digest.as_str()))
        };
        Ok(blobs.iter().filter(is_fetch).count())
    };
    // A changed file: of the first stage nothing is needed, of the second one the layer below.
    site.registry.take_requests()?;
    let second = site.machine_with_stages("second")?;
    second.write("app.py", "two\n")?;
    let ran = ["COPY app.py /app.py", "RUN wc /installed /app.py > /count"];
    build(&second, &["--cache-from", &site.from("cache:lazy")], &ran)?;
    let count = fetched(&site, "layer")?;
    ensure!(count == 1, "{count} layers were fetched for a changed file");
    // A copy that no build has done before: the keys need what is copied, but only from a listing.
    let stages = STAGES
        .replace("BASE", &site.base)
        .replace("/app/installed", "/app/inst*");
    let dockerfile = format!("FROM {} AS build\n{stages}", site.base);
    let third = machine_with("third", &dockerfile)?;
    site.registry.take_requests()?;
    build(&third, &["--cache-from", &site.from("cache:lazy")], &[])?;
    let requests = site.registry.take_requests()?;
    let listings = site.blobs("cache:lazy", "listing")?;
    ensure!(
        listings
            .iter()
            .any(|digest| requests.iter().any(|request| request.ends_with(digest.as_str()))),
        "no listing was read: {requests:#?}"
    );
    let first_stage = first_stage_blobs(&site, "cache:lazy")?;
    ensure!(first_stage.len() == 3, "{first_stage:?}");
    for digest in first_stage {
        let fetch = requests
            .iter()
            .any(|request| request.starts_with("GET ") && request.ends_with(&digest));
        ensure!(!fetch, "a layer of the first stage was fetched: {requests:#?}");
    }
    Ok(Outcome::Passed)
}

/// The blobs of the layers that only the first stage has.
fn first_stage_blobs(site: &Site, name: &str) -> Result<Vec<String>> {
    let document = site.document(name)?;
    let records = document["records"].as_array().cloned().unwrap_or_default();
    let install = records
        .iter()
        .find(|record| text(&record["step"]).contains("sort requirements"));
    let install = install.ok_or("no record of the step")?;
    let positions = install["output"].as_array().cloned().unwrap_or_default();
    let blob = |position: &Value| {
        let at = usize::try_from(position.as_u64()?).ok()?;
        document["layers"][at]["blob"].as_str().map(str::to_owned)
    };
    Ok(positions.iter().filter_map(blob).collect())
}

fn no_request() -> TestResult {
    let site = Site::new()?;
    let project = site.machine("alone")?;
    project.build(&["--cache-to", &site.to("cache:1", ",mode=max")])?;
    site.registry.take_requests()?;
    build(&project, &["--cache-from", &site.from("cache:1")], &[])?;
    let requests = site.registry.take_requests()?;
    ensure!(requests.is_empty(), "requests of a cached build: {requests:#?}");
    Ok(Outcome::Passed)
}

fn folders() -> TestResult {
    let site = Site::new()?;
    let folder = TempFolder::new("cache-folder")?;
    let dest = folder.join("cache");
    let first = site.machine("first")?;
    let to = format!("type=local,dest={},mode=max", dest.display());
    build(&first, &["--cache-to", &to], ALL)?;
    let files = count_blobs(&dest)?;
    let second = site.machine("second")?;
    let from = format!("type=local,src={}", dest.display());
    build(&second, &["--cache-from", &from], &[])?;
    ensure!(id(&first)? == id(&second)?, "the image's id is another one");
    // Another tag in the same folder shares the layers; the first one stays.
    build(&second, &["--cache-to", &format!("{to},tag=other")], &[])?;
    let third = site.machine("third")?;
    build(&third, &["--cache-from", &format!("{from},tag=other")], &[])?;
    build(&site.machine("fourth")?, &["--cache-from", &from], &[])?;
    ensure!(
        count_blobs(&dest)? <= files + 2,
        "the second tag did not share the layers"
    );
    // Other tools see an ordinary layout.
    if let Some(skopeo) = machine::program("skopeo") {
        let layout = format!("oci:{}:latest", dest.display());
        run(machine::command(skopeo, folder.path()).args(["inspect", "--raw", &layout]))?.success()?;
    }
    let nowhere = format!("type=local,src={}", folder.join("nowhere").display());
    let ended = build(&site.machine("fifth")?, &["--cache-from", &nowhere], ALL)?;
    ensure!(ended.stderr.contains("there is no cache at"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}

fn count_blobs(layout: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(layout.join("blobs/sha256"))?.count())
}

/// Pushes a project's image by another tool, which compresses its layers as it likes.
fn push_by_skopeo(project: &Project, name: &str) -> Result<()> {
    let skopeo = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
    let archive = project.scratch("pushed.tar");
    let mut save = project.kiln.command(["save", "--format", "oci", "-o"]);
    run(save.arg(&archive).arg(&project.request.tag))?.success()?;
    let home = project.scratch("skopeo");
    std::fs::create_dir_all(&home)?;
    run(machine::command(skopeo, &home)
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("docker://{name}")))?
    .success()?;
    Ok(())
}

fn inline() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "needs root: skopeo unpacks archives with their owners".to_owned(),
        ));
    }
    let site = Site::new()?;
    let first = site.machine("first")?;
    build(&first, &["--cache-to", "type=inline"], ALL)?;
    push_by_skopeo(&first, &site.name("app:inline"))?;
    let second = site.machine("second")?;
    build(&second, &["--cache-from", &site.name("app:inline")], &[])?;
    ensure!(token(&first)? == token(&second)?, "the token is another one");
    // An image that stands on such a one does not take over its cache.
    let third = machine_with("third", &format!("FROM {}\nRUN true\n", site.name("app:inline")))?;
    third.build(&[])?;
    let shown = third.kiln.run(["inspect", &third.request.tag])?.success()?.stdout;
    ensure!(!shown.contains("kiln.cache"), "{shown}");
    push_by_skopeo(&third, &site.name("app:plain"))?;
    let fourth = site.machine("fourth")?;
    let ended = build(&fourth, &["--cache-from", &site.name("app:plain")], ALL)?;
    ensure!(
        ended.stderr.contains("an image without a cache"),
        "{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn settled() -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    let to = site.to("cache:same", ",mode=max");
    first.build(&["--cache-to", &to])?;
    let digest = site.registry.raw_digest(&site.name("cache:same"))?;
    let second = site.machine("second")?;
    build(
        &second,
        &["--cache-from", &site.from("cache:same"), "--cache-to", &to],
        &[],
    )?;
    ensure!(
        site.registry.raw_digest(&site.name("cache:same"))? == digest,
        "an equal cache has another digest"
    );
    site.registry.take_requests()?;
    build(&first, &["--cache-to", &to], &[])?;
    let requests = site.registry.take_requests()?;
    let sent = requests
        .iter()
        .filter(|request| !request.starts_with("GET ") && !request.starts_with("HEAD "));
    ensure!(sent.count() == 0, "something was sent: {requests:#?}");
    // Handing a cache on to another name moves blobs inside the registry.
    let third = site.machine("third")?;
    let other = site.to("elsewhere:same", ",mode=max");
    build(
        &third,
        &["--cache-from", &site.from("cache:same"), "--cache-to", &other],
        &[],
    )?;
    build(
        &site.machine("fourth")?,
        &["--cache-from", &site.from("elsewhere:same")],
        &[],
    )?;
    Ok(Outcome::Passed)
}

/// Several machines export at the same time, each a step of its own; all are there in the end.
fn two_writers() -> TestResult {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 3;
    let site = Site::new()?;
    let dockerfile =
        |writer: usize, round: usize| format!("FROM {}\nRUN echo {writer} of {round} > /f\n", site.base);
    let to = site.to("cache:all", ",mode=max");
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (dockerfile, to, site) = (&dockerfile, &to, &site);
                scope.spawn(move || -> Result<()> {
                    let project = site.machine(&format!("writer{writer}"))?;
                    for round in 0..ROUNDS {
                        project.write("Dockerfile", &dockerfile(writer, round))?;
                        project.build(&["--cache-to", to])?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a writer panicked".into())))
            .collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let reader = site.machine("reader")?;
    for writer in 0..WRITERS {
        for round in 0..ROUNDS {
            reader.write("Dockerfile", &dockerfile(writer, round))?;
            build(&reader, &["--cache-from", &site.from("cache:all")], &[])?;
        }
    }
    Ok(Outcome::Passed)
}

fn two_platforms() -> TestResult {
    let site = Site::new()?;
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let machine = |name: &str| {
        let files = [("Dockerfile", dockerfile), ("amd64", "one\n"), ("arm64", "two\n")];
        Project::with_bases(name, &[], &files)
    };
    for platform in ["linux/amd64", "linux/arm64"] {
        let one = machine("one")?;
        let to = site.to("cache:platforms", ",mode=min");
        one.build(&["--platform", platform, "--cache-to", &to])?;
    }
    let both = machine("both")?;
    let arguments = [
        "--platform",
        "linux/amd64,linux/arm64",
        "--cache-from",
        &site.from("cache:platforms"),
    ];
    build(&both, &arguments, &[])?;
    Ok(Outcome::Passed)
}

/// A cache of which `harm` damages something; the build must go on without, do it right, and say `told`.
fn broken(told: &str, ran: Option<&[&str]>, harm: impl Fn(&Site) -> Result<()>) -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    first.build(&["--cache-to", &site.to("cache:broken", ",mode=max")])?;
    harm(&site)?;
    let second = site.machine("second")?;
    let ended = second
        .try_build(&["--cache-from", &site.from("cache:broken")])?
        .success()?;
    ensure!(
        ended.stderr.contains(told),
        "it does not say {told:?}:\n{}",
        ended.stderr
    );
    let found = progress::not_cached(&ended.stderr);
    if let Some(ran) = ran {
        ensure!(
            found == ran,
            "not cached: {found:?}, expected {ran:?}\n{}",
            ended.stderr
        );
    }
    let files = second.shell("cat /app/installed /app/app.py")?;
    ensure!(files == "a\nb\none\n", "the image has {files:?}");
    second.kiln.run(["cache", "verify"])?.success()?;
    // What is broken can be replaced.
    second.build(&["--cache-to", &site.to("cache:broken", ",mode=max")])?;
    Ok(Outcome::Passed)
}

/// The blob of the layer that the install step made.
fn install_blob(site: &Site) -> Result<PathBuf> {
    let blobs = first_stage_blobs(site, "cache:broken")?;
    let last = blobs.last().ok_or("the step has no layer of its own")?;
    Ok(site.registry.blob_path(last))
}

fn missing_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        Ok(std::fs::remove_file(install_blob(site)?)?)
    })
}

fn changed_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        let path = install_blob(site)?;
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(std::fs::write(path, bytes)?)
    })
}

/// Puts another document in the place of a cache's, with a manifest that names it.
fn replace_document(site: &Site, change: impl Fn(&mut Value)) -> Result<()> {
    let mut document = site.document("cache:broken")?;
    change(&mut document);
    replace(site, &serde_json::to_vec(&document)?)
}

fn replace(site: &Site, document: &[u8]) -> Result<()> {
    let mut manifest = site.registry.manifest(&site.name("cache:broken"))?;
    let digest = site.registry.put_blob("cache", document)?;
    manifest["config"]["digest"] = Value::String(digest);
    manifest["config"]["size"] = Value::from(document.len());
    site.registry.put_manifest(
        "cache",
        "broken",
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    )
}

/// The document says of a layer that it is another one: right blobs, wrong content.
fn swapped_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        let blobs = first_stage_blobs(site, "cache:broken")?;
        replace_document(site, |document| {
            let Some(layers) = document["layers"].as_array_mut() else {
                return;
            };
            let at = |digest: &String, layers: &[Value]| {
                layers.iter().position(|layer| text(&layer["blob"]) == *digest)
            };
            let (Some(one), Some(other)) = (at(&blobs[1], layers), at(&blobs[2], layers)) else {
                return;
            };
            for field in ["blob", "diff_id", "listing"] {
                let value = layers[one][field].clone();
                layers[one][field] = layers[other][field].clone();
                layers[other][field] = value;
            }
        })
    })
}

fn broken_document() -> TestResult {
    for (what, change) in [
        (
            "truncated",
            (|bytes: &[u8]| bytes[..bytes.len() / 2].to_vec()) as fn(&[u8]) -> Vec<u8>,
        ),
        ("newer", |bytes| {
            String::from_utf8_lossy(bytes)
                .replace("\"version\":1", "\"version\":9")
                .into_bytes()
        }),
        ("empty", |_| b"{}".to_vec()),
    ] {
        broken("no cache is taken from", Some(ALL), |site| {
            let manifest = site.registry.manifest(&site.name("cache:broken"))?;
            let path = site.registry.blob_path(&text(&manifest["config"]["digest"]));
            replace(site, &change(&std::fs::read(path)?))
        })
        .map_err(|error| format!("{what}: {error}"))?;
    }
    // The registry's file itself is cut.
    broken("no cache is taken from", Some(ALL), |site| {
        let manifest = site.registry.manifest(&site.name("cache:broken"))?;
        let path = site.registry.blob_path(&text(&manifest["config"]["digest"]));
        let bytes = std::fs::read(&path)?;
        Ok(std::fs::write(path, &bytes[..bytes.len() / 2])?)
    })
}

fn buildkit_cache() -> TestResult {
    let kind = "application/vnd.buildkit.cacheconfig.v0";
    broken("a cache of BuildKit", Some(ALL), |site| {
        let mut manifest = site.registry.manifest(&site.name("cache:broken"))?;
        manifest["config"]["mediaType"] = Value::from(kind);
        site.registry.put_manifest(
            "cache",
            "broken",
            "application/vnd.oci.image.manifest.v1+json",
            &manifest,
        )
    })
}

fn unreachable() -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    let from = "type=registry,ref=127.0.0.1:1/no/cache:here";
    let ended = build(
        &first,
        &["--cache-from", from, "--cache-from", &site.from("none:yet")],
        ALL,
    )?;
    for told in [
        "no cache is taken from 127.0.0.1:1/no/cache:here",
        "there is no cache at",
    ] {
        ensure!(
            ended.stderr.contains(told),
            "it does not say {told:?}:\n{}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

fn image_stays() -> TestResult {
    let site = Site::new()?;
    let digest = site.registry.digest(&site.base)?;
    let first = site.machine("first")?;
    let stderr = first
        .try_build(&["--cache-to", &format!("type=registry,ref={}", site.base)])?
        .failure(1)?;
    ensure!(stderr.contains("it is an image"), "{stderr}");
    ensure!(
        site.registry.digest(&site.base)? == digest,
        "the image was overwritten"
    );
    Ok(Outcome::Passed)
}

fn failed_export() -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    let to = "type=registry,ref=127.0.0.1:1/no/cache:here";
    let stderr = first.try_build(&["--cache-to", to])?.failure(1)?;
    ensure!(
        stderr.contains("export") && stderr.contains("127.0.0.1:1/no/cache:here"),
        "{stderr}"
    );
    let ended = first
        .try_build(&["--cache-to", &format!("{to},ignore-error=true")])?
        .success()?;
    ensure!(
        ended.stderr.contains("the cache is not exported"),
        "{}",
        ended.stderr
    );
    // The image is there all the same.
    ensure!(first.shell("cat /app/app.py")? == "one\n", "no image");
    Ok(Outcome::Passed)
}

fn secrets() -> TestResult {
    const SECRET: &str = "correct-horse-battery-staple";
    let site = Site::new()?;
    let dockerfile = format!(
        "FROM {}\nARG TOKEN\nRUN --mount=type=secret,id=s,env=S test -n \"$S\" && cat /run/secrets/s 2>/dev/null; \
         echo done > /done\n",
        site.base
    );
    let first = machine_with("first", &dockerfile)?;
    let file = first.scratch("secret");
    std::fs::write(&file, SECRET)?;
    let secret = format!("id=s,src={}", file.display());
    let to = site.to("cache:secret", ",mode=max,compression=uncompressed");
    // The value of a build argument is part of a key, of which only the hash travels.
    let arguments = [
        "--secret",
        &secret,
        "--build-arg",
        "TOKEN=argument-value",
        "--cache-to",
        &to,
    ];
    first.build(&arguments)?;
    let second = machine_with("second", &dockerfile)?;
    let arguments = [
        "--secret",
        &secret,
        "--build-arg",
        "TOKEN=argument-value",
        "--cache-from",
        &site.from("cache:secret"),
    ];
    build(&second, &arguments, &[])?;
    for word in [SECRET, "argument-value"] {
        let found = run(machine::command("grep", Path::new("/"))
            .args(["-rlaF", word])
            .arg(site.registry.data()))?;
        if found.code != Some(1) {
            bail!("{word} is in the registry: {}", found.stdout);
        }
    }
    Ok(Outcome::Passed)
}

/// The script of docs/ci.md, as it stands there.
fn recipe() -> Result<String> {
    let page = std::fs::read_to_string(machine::checkout().join("docs/ci.md"))?;
    let (_, after) = page
        .split_once("runs the block after this line. -->\n```sh\n")
        .ok_or("docs/ci.md has no recipe for this test")?;
    let (script, _) = after.split_once("```\n").ok_or("the recipe does not end")?;
    Ok(script.to_owned())
}

/// Runs the recipe in the project's folder, on a machine that has nothing but kiln.
fn run_recipe(site: &Site, project: &Project, version: &str, user: Option<&str>) -> Result<Ended> {
    let script = project.scratch("recipe.sh");
    std::fs::write(&script, recipe()?)?;
    let kiln = project.kiln.command(["version"]);
    let folder = project.scratch("bin");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join("kiln");
    if !link.exists() {
        std::os::unix::fs::symlink(kiln.get_program(), &link)?;
    }
    let mut command = match user {
        None => machine::command("sh", &project.scratch("home")),
        Some(user) => {
            let mut command = machine::command("setpriv", &project.scratch("home"));
            command.args(["--reuid", user, "--regid", user, "--init-groups", "sh"]);
            command
        }
    };
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    command
        .arg(&script)
        .current_dir(project.path(""))
        .env("PATH", path)
        .env("KILN_CONFIG", project.kiln.config())
        .env("KILN_ROOT", &project.kiln.root)
        .env("REGISTRY", &site.registry.host)
        .env("IMAGE", "team/app")
        .env("VERSION", version);
    run(&mut command)
}

fn ci_recipe() -> TestResult {
    recipe_runs(None)
}

fn ci_recipe_without_root() -> TestResult {
    const USER: &str = "kiln-test";
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "the other test of the recipe is this one already".to_owned(),
        ));
    }
    let users = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    if !users.lines().any(|line| line.starts_with(&format!("{USER}:")))
        || machine::program("setpriv").is_none()
    {
        return Ok(Outcome::Skipped(format!(
            "needs setpriv and a user {USER} with a range in /etc/subuid"
        )));
    }
    recipe_runs(Some(USER))
}

fn recipe_runs(user: Option<&str>) -> TestResult {
    let site = Site::new()?;
    let machine = |name: &str| -> Result<Project> {
        let project = site.machine(name)?;
        if let Some(user) = user {
            // The folder as this user's own; the store is made by the user.
            let folder = project.scratch("");
            run(machine::command("chown", &folder)
                .arg("-R")
                .arg(format!("{user}:{user}"))
                .arg(&folder))?
            .success()?;
        }
        Ok(project)
    };
    let first = machine("ci-first")?;
    let ended = run_recipe(&site, &first, "1", user)?.success()?;
    ensure!(progress::not_cached(&ended.stderr) == ALL, "{}", ended.stderr);
    let second = machine("ci-second")?;
    let ended = run_recipe(&site, &second, "2", user)?.success()?;
    let ran = progress::not_cached(&ended.stderr);
    ensure!(
        ran.is_empty(),
        "not cached on a fresh machine: {ran:?}\n{}",
        ended.stderr
    );
    let digest = |version: &str| {
        site.registry
            .raw_digest(&site.name(&format!("team/app:{version}")))
    };
    ensure!(
        digest("1")? == digest("2")?,
        "the two machines pushed different images"
    );
    // A changed file runs what depends on it, and the next machine has that, too.
    for (name, expected) in [("ci-third", &["COPY . ."][..]), ("ci-fourth", &[])] {
        let project = machine(name)?;
        project.write("app.py", "two\n")?;
        let ended = run_recipe(&site, &project, "3", user)?.success()?;
        let ran = progress::not_cached(&ended.stderr);
        ensure!(ran == expected, "{name}: not cached: {ran:?}\n{}", ended.stderr);
    }
    Ok(Outcome::Passed)
}
