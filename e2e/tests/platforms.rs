//! Builds for several platforms: what the index holds, which stages run where, and how the commands treat it.

use kiln_e2e::base::base;
use kiln_e2e::builder::{Kiln, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::oci::{self, Image};
use kiln_e2e::progress::{self, End};
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::tree::Kind;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Copies a file of the target's own name; runs nothing.
const COPY_ONLY: &str = "FROM scratch\nARG TARGETARCH TARGETVARIANT\nCOPY $TARGETARCH$TARGETVARIANT /arch\n";

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("the index holds an image a platform", index_layout),
        ("skopeo and umoci take the index", other_tools),
        ("names, ids and platforms in the commands", commands),
        ("docker archives hold the image of this machine", docker_archives),
        ("stages of the build platform run once", cross_stages),
        ("an index of one platform when it is wanted", forced_index),
        ("two platforms build at the same time", overlap),
        ("FROM takes the platform's image", from_index),
        ("values of --platform", values),
        ("what cannot run fails before anything runs", cannot_run),
        ("programs of another platform run", foreign_programs),
        ("pulls for several platforms stay side by side", pulls),
    ];
    trial::run_all("platforms", tests)
}

fn copy_only(name: &str) -> Result<Project> {
    Project::with_bases(
        name,
        &[],
        &[
            ("Dockerfile", COPY_ONLY),
            ("amd64", "one\n"),
            ("arm64", "two\n"),
            ("armv7", "three\n"),
            ("s390x", "four\n"),
        ],
    )
}

/// Saves an image and gives the archive.
fn save(project: &Project, tag: &str, arguments: &[&str]) -> Result<PathBuf> {
    let archive = project.scratch("saved.tar");
    let mut command = project.kiln.command(["save", "-o"]);
    run(command.arg(&archive).args(arguments).arg(tag))?.success()?;
    Ok(archive)
}

/// The images of an index that is in the store, by platform.
fn index(project: &Project, tag: &str) -> Result<Vec<(String, Image)>> {
    oci::read_index(&save(project, tag, &["--format", "oci"])?)
}

fn file(image: &Image, path: &str) -> Result<String> {
    match image.tree.get(path).map(|node| &node.kind) {
        Some(Kind::File { sha256, .. }) => Ok(sha256.clone()),
        other => bail!("{path} is {other:?}"),
    }
}

fn index_layout() -> TestResult {
    let project = copy_only("layout")?;
    let platforms = [
        "--platform",
        "linux/amd64,linux/arm64/v8",
        "--platform=linux/arm/v7",
    ];
    let ended = project.try_build(&platforms)?.success()?;
    let images = index(&project, &project.request.tag)?;
    let names: Vec<&str> = images.iter().map(|(platform, _)| platform.as_str()).collect();
    ensure!(
        names == ["linux/amd64", "linux/arm64", "linux/arm/v7"],
        "the platforms are {names:?}"
    );
    for ((_, image), content) in images.iter().zip(["one\n", "two\n", "three\n"]) {
        ensure!(image.problems.is_empty(), "{:?}", image.problems);
        ensure!(
            file(image, "/arch")? == oci::sha256(content.as_bytes()),
            "the wrong file was copied where {content:?} should be"
        );
    }
    for step in [
        "[linux/amd64 1/1] COPY amd64 /arch",
        "[linux/arm64 1/1] COPY arm64 /arch",
        "[linux/arm/v7 1/1] COPY armv7 /arch",
    ] {
        ensure!(ended.stderr.contains(step), "no step {step}:\n{}", ended.stderr);
    }
    let again = project.try_build(&platforms)?.success()?;
    ensure!(
        progress::not_cached(&again.stderr).is_empty(),
        "the second build ran steps:\n{}",
        again.stderr
    );
    let again = index(&project, &project.request.tag)?;
    ensure!(
        images
            .iter()
            .map(|(_, image)| &image.id)
            .eq(again.iter().map(|(_, image)| &image.id)),
        "the second build made other images"
    );
    // One of them alone is the same image as in the index.
    project
        .try_build(&["--platform", "linux/arm64", "-t", "alone:1"])?
        .success()?;
    let alone = project.export("alone:1")?;
    ensure!(alone.id == images[1].1.id, "alone it is another image");
    Ok(Outcome::Passed)
}

fn other_tools() -> TestResult {
    let (Some(skopeo), Some(umoci)) = (machine::program("skopeo"), machine::program("umoci")) else {
        return Ok(Outcome::Skipped("needs skopeo and umoci".to_owned()));
    };
    let project = copy_only("tools")?;
    project
        .try_build(&["--platform", "linux/amd64,linux/arm64"])?
        .success()?;
    let archive = save(&project, &project.request.tag, &["--format", "oci"])?;
    let layout = project.scratch("layout");
    std::fs::create_dir(&layout)?;
    let home = project.scratch("home-of-tools");
    std::fs::create_dir(&home)?;
    run(machine::command("tar", &home)
        .args(["--no-same-owner", "-xf"])
        .arg(&archive)
        .arg("-C")
        .arg(&layout))?
    .success()?;
    let image = format!("oci:{}:test", layout.display());
    let raw = run(machine::command(&skopeo, &home).args(["inspect", "--raw", &image]))?.success()?;
    let raw: Value = serde_json::from_str(&raw.stdout)?;
    ensure!(
        raw["manifests"].as_array().map(Vec::len) == Some(2),
        "skopeo sees {raw}"
    );
    for architecture in ["amd64", "arm64"] {
        let mut command = machine::command(&skopeo, &home);
        command.args(["--override-os=linux", &format!("--override-arch={architecture}")]);
        let config = run(command.args(["inspect", "--config", &image]))?.success()?;
        let config: Value = serde_json::from_str(&config.stdout)?;
        ensure!(config["architecture"] == architecture, "skopeo takes {config}");
    }
    // A copy of everything reads and checks every blob.
    let mut copy = machine::command(&skopeo, &home);
    copy.args(["--insecure-policy", "copy", "-q", "--all", &image]);
    run(copy.arg(format!("dir:{}", project.scratch("copy").display())))?.success()?;
    // umoci knows no platforms and wants a manifest under the name.
    let single = save(
        &project,
        &project.request.tag,
        &["--format=oci", "--platform=linux/arm64"],
    )?;
    let layout = project.scratch("single");
    std::fs::create_dir(&layout)?;
    run(machine::command("tar", &home)
        .args(["--no-same-owner", "-xf"])
        .arg(&single)
        .arg("-C")
        .arg(&layout))?
    .success()?;
    let bundle = project.scratch("bundle");
    run(machine::command(&umoci, &home)
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:test", layout.display()))
        .arg(&bundle))?
    .success()?;
    let unpacked = std::fs::read_to_string(bundle.join("rootfs/arch"))?;
    ensure!(unpacked == "two\n", "umoci unpacked {unpacked:?}");
    Ok(Outcome::Passed)
}

/// The output of a command that works.
fn output(project: &Project, arguments: &[&str]) -> Result<String> {
    Ok(project.kiln.run(arguments.iter().copied())?.success()?.stdout)
}

fn commands() -> TestResult {
    let project = copy_only("commands")?;
    let iidfile = project.scratch("iid");
    project
        .try_build(&[
            "--platform",
            "linux/amd64,linux/arm64",
            "--iidfile",
            &iidfile.to_string_lossy(),
        ])?
        .success()?;
    let id = std::fs::read_to_string(iidfile)?;
    let out = |arguments: &[&str]| output(&project, arguments);
    ensure!(
        out(&["images", "-q", "--no-trunc"])?.trim() == id,
        "images has another id"
    );
    let list: Value = serde_json::from_str(out(&["images", "--format", "json"])?.trim())?;
    ensure!(
        list["Platforms"] == serde_json::json!(["linux/amd64", "linux/arm64"]),
        "images says {list}"
    );
    let inspect = |arguments: &[&str]| -> Result<Value> {
        let arguments = [&["inspect"], arguments].concat();
        let found: Value = serde_json::from_str(&out(&arguments)?)?;
        Ok(found[0].clone())
    };
    let whole = inspect(&["commands:test"])?;
    ensure!(whole["Id"] == id, "inspect has another id: {whole}");
    ensure!(
        whole["Index"]["Images"].as_array().map(Vec::len) == Some(2),
        "inspect tells of other images: {whole}"
    );
    let one = inspect(&["--platform", "linux/arm64", &id])?;
    ensure!(
        one["Architecture"] == "arm64" && one["Id"] == whole["Index"]["Images"][1]["Id"],
        "inspect --platform shows {one}"
    );
    let history = out(&[
        "history",
        "-q",
        "--no-trunc",
        "--platform",
        "linux/arm64",
        "commands:test",
    ])?;
    ensure!(
        history.lines().next() == one["Id"].as_str(),
        "history shows another image: {history}"
    );
    let missing = project
        .kiln
        .run(["history", "--platform", "linux/s390x", "commands:test"])?
        .failure(1)?;
    ensure!(
        missing.contains("no image for linux/s390x") && missing.contains("linux/amd64, linux/arm64"),
        "the platforms are not named:\n{missing}"
    );
    // A tag stands for all platforms, and removing the last name takes them all.
    out(&["tag", "commands:test", "other:1"])?;
    ensure!(
        out(&["rmi", "commands:test"])? == "Untagged: commands:test\n",
        "rmi took too much"
    );
    ensure!(index(&project, "other:1")?.len() == 2, "the tag lost platforms");
    let part = project
        .kiln
        .run(["rmi", one["Id"].as_str().unwrap_or_default()])?
        .failure(1)?;
    ensure!(
        part.contains("belongs to the multi-platform image"),
        "rmi says:\n{part}"
    );
    let removed = out(&["rmi", &id])?;
    ensure!(
        removed.matches("Deleted: ").count() == 3,
        "the index and its images are not all gone:\n{removed}"
    );
    ensure!(out(&["images", "-q"])?.is_empty(), "images are left");
    Ok(Outcome::Passed)
}

fn docker_archives() -> TestResult {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::Skipped("needs an amd64 machine".to_owned()));
    }
    let project = copy_only("archives")?;
    project
        .try_build(&["--platform", "linux/arm64,linux/amd64"])?
        .success()?;
    let archive = save(&project, &project.request.tag, &[])?;
    let images = oci::read_index(&archive)?;
    let manifest = run(machine::command("tar", project.scratch("").as_path())
        .arg("-xOf")
        .arg(&archive)
        .arg("manifest.json"))?
    .success()?;
    let manifest: Value = serde_json::from_str(&manifest.stdout)?;
    let config = manifest[0]["Config"].as_str().unwrap_or_default();
    let amd64 = images[1].1.id.trim_start_matches("sha256:");
    ensure!(
        manifest.as_array().map(Vec::len) == Some(1) && config.ends_with(amd64),
        "manifest.json names {manifest}"
    );
    project
        .try_build(&["--platform", "linux/arm64,linux/s390x"])?
        .success()?;
    let stderr = project
        .kiln
        .run([
            "save",
            "-o",
            &project.scratch("x.tar").to_string_lossy(),
            "archives:test",
        ])?
        .failure(1)?;
    ensure!(
        stderr.contains("linux/arm64, linux/s390x") && stderr.contains("--format oci"),
        "the way out is not told:\n{stderr}"
    );
    let picked = oci::read(&save(&project, "archives:test", &["--platform", "linux/s390x"])?)?;
    ensure!(
        picked.config["architecture"] == "s390x",
        "another image was saved"
    );
    Ok(Outcome::Passed)
}

fn cross_stages() -> TestResult {
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox:latest AS build\nRUN echo tools > /tools\n\
                      ARG TARGETARCH\nRUN echo $TARGETARCH > /out\n\
                      FROM scratch\nCOPY --from=build /tools /out /\nCOPY shared /shared\n";
    let project = Project::new("cross", &[("Dockerfile", dockerfile), ("shared", "x\n")])?;
    let ended = project
        .try_build(&["--platform", "linux/arm64,linux/s390x,linux/riscv64"])?
        .success()?;
    let steps = progress::not_cached(&ended.stderr);
    let count = |text: &str| steps.iter().filter(|step| step.as_str() == text).count();
    ensure!(
        count("RUN echo tools > /tools") == 1,
        "the tools were made more than once: {steps:?}"
    );
    let names = progress::vertices(&ended.stderr);
    for target in ["arm64", "s390x", "riscv64"] {
        ensure!(
            count(&format!("RUN echo {target} > /out")) == 1,
            "steps: {steps:?}"
        );
        let host = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let arrow = if host == target {
            String::new()
        } else {
            format!("->{target}")
        };
        let name = format!("[linux/{host}{arrow} build 3/3] RUN echo {target} > /out");
        ensure!(
            names.iter().any(|vertex| vertex.name == name),
            "no step {name}:\n{}",
            ended.stderr
        );
    }
    let contexts = names
        .iter()
        .filter(|vertex| vertex.name == "[internal] load build context");
    ensure!(contexts.count() == 1, "the context was read more than once");
    for (platform, image) in index(&project, &project.request.tag)? {
        let target = platform.trim_start_matches("linux/");
        ensure!(
            file(&image, "/out")? == oci::sha256(format!("{target}\n").as_bytes())
                && file(&image, "/tools")? == oci::sha256(b"tools\n"),
            "{platform} has the wrong files"
        );
    }
    Ok(Outcome::Passed)
}

fn forced_index() -> TestResult {
    let project = copy_only("forced")?;
    let build = |arguments: &[&str]| project.try_build(arguments);
    build(&[
        "--platform",
        "linux/arm64",
        "--build-arg",
        "BUILDKIT_MULTI_PLATFORM=1",
    ])?
    .success()?;
    let images = index(&project, &project.request.tag)?;
    ensure!(
        images.len() == 1 && images[0].0 == "linux/arm64",
        "the index holds {} images",
        images.len()
    );
    let both = [
        "--platform=linux/arm64,linux/amd64",
        "--build-arg=BUILDKIT_MULTI_PLATFORM=0",
    ];
    let stderr = build(&both)?.failure(1)?;
    ensure!(
        stderr.contains("BUILDKIT_MULTI_PLATFORM"),
        "the cause is not told:\n{stderr}"
    );
    // The same platform twice is one platform, and no index.
    build(&[
        "--platform",
        "linux/arm64,linux/aarch64",
        "--platform",
        "linux/arm64/v8",
    ])?
    .success()?;
    let image = project.image()?;
    ensure!(image.config["architecture"] == "arm64", "{}", image.config);
    Ok(Outcome::Passed)
}

/// When a vertex of the JSON progress began and ended.
fn interval(stderr: &str, name: &str) -> Result<(String, String)> {
    let (mut started, mut completed) = (None, None);
    for line in stderr.lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        for vertex in value["vertexes"].as_array().into_iter().flatten() {
            if vertex["name"] == name {
                started = vertex["started"].as_str().map(str::to_owned).or(started);
                completed = vertex["completed"].as_str().map(str::to_owned).or(completed);
            }
        }
    }
    match (started, completed) {
        (Some(started), Some(completed)) => Ok((started, completed)),
        times => bail!("{name} has the times {times:?}:\n{stderr}"),
    }
}

fn overlap() -> TestResult {
    let dockerfile =
        "FROM --platform=$BUILDPLATFORM busybox:latest\nARG TARGETARCH\nRUN sleep 2; echo $TARGETARCH > /f\n";
    let project = Project::new("overlap", &[("Dockerfile", dockerfile)])?;
    let mut command = project.kiln.command([
        "build",
        "--progress",
        "rawjson",
        "--platform",
        "linux/riscv64,linux/s390x",
    ]);
    let ended = run(command.arg(&project.request.context))?.success()?;
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let of = |target: &str| {
        let name = format!("[linux/{host}->{target} 2/2] RUN sleep 2; echo {target} > /f");
        interval(&ended.stderr, &name)
    };
    let (one, other) = (of("riscv64")?, of("s390x")?);
    ensure!(
        one.0 < other.1 && other.0 < one.1,
        "they ran one after the other: {one:?} {other:?}"
    );
    Ok(Outcome::Passed)
}

fn from_index() -> TestResult {
    let project = copy_only("from")?;
    project
        .try_build(&["--platform", "linux/amd64,linux/arm64", "-t", "base:1"])?
        .success()?;
    project.write(
        "Dockerfile",
        "FROM base:1\nCOPY s390x /more\nCOPY --from=base:1 /arch /copied\n",
    )?;
    for (platform, content) in [("linux/amd64", "one\n"), ("linux/arm64", "two\n")] {
        project.try_build(&["--platform", platform])?.success()?;
        let image = project.image()?;
        let expected = oci::sha256(content.as_bytes());
        ensure!(
            file(&image, "/arch")? == expected && file(&image, "/copied")? == expected,
            "{platform} stands on another base"
        );
        ensure!(
            platform.ends_with(image.config["architecture"].as_str().unwrap_or("?")),
            "{platform} has the config {}",
            image.config
        );
    }
    let stderr = project
        .try_build(&["--platform", "linux/amd64,linux/s390x"])?
        .failure(1)?;
    for word in [
        "Dockerfile:1",
        "base:1 does not exist for linux/s390x",
        "linux/amd64, linux/arm64",
    ] {
        ensure!(stderr.contains(word), "{word} is not told:\n{stderr}");
    }
    Ok(Outcome::Passed)
}

fn values() -> TestResult {
    let project = copy_only("values")?;
    let stderr = project
        .try_build(&["--platform", "linux/amd64,nonsense/a/b/c"])?
        .failure(2)?;
    ensure!(
        stderr.contains("nonsense/a/b/c") && stderr.contains("linux/arm64"),
        "neither the value nor an example:\n{stderr}"
    );
    project.try_build(&["--platform", "local"])?.success()?;
    let own = project.image()?;
    project.try_build(&[])?.success()?;
    ensure!(
        own.id == project.image()?.id,
        "local is not this machine's platform"
    );
    Ok(Outcome::Passed)
}

fn cannot_run() -> TestResult {
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox:latest AS own\nRUN echo ran\n\
                      FROM scratch\nCOPY --from=own / /\nRUN true\n";
    let project = Project::new("cannot", &[("Dockerfile", dockerfile)])?;
    let stderr = project
        .try_build(&["--platform", "linux/pdp11,linux/vax"])?
        .failure(1)?;
    for word in [
        "[linux/pdp11 stage-1 2/2] RUN true",
        "cannot run programs of linux/pdp11",
        "Dockerfile:5",
        "hint:",
    ] {
        ensure!(stderr.contains(word), "{word} is not told:\n{stderr}");
    }
    let ran = progress::vertices(&stderr)
        .into_iter()
        .filter(|vertex| vertex.step().is_some() && vertex.end == Some(End::Done));
    ensure!(ran.count() == 0, "steps ran before the failure:\n{stderr}");
    // Nothing but COPY needs no emulator.
    project.write("Dockerfile", &dockerfile.replace("RUN true\n", ""))?;
    project
        .try_build(&["--platform", "linux/pdp11,linux/vax"])?
        .success()?;
    let images = index(&project, &project.request.tag)?;
    ensure!(images[1].0 == "linux/vax", "the platform is {}", images[1].0);
    Ok(Outcome::Passed)
}

fn foreign_programs() -> TestResult {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::Skipped("needs an amd64 machine".to_owned()));
    }
    let foreign = match base("busybox-arm64:latest") {
        Ok(foreign) => foreign,
        Err(error) => return Ok(Outcome::Skipped(format!("needs busybox for arm64: {error}"))),
    };
    let dockerfile = "FROM busybox:latest\nRUN uname -m > /machine && sh -c 'cat /machine'\nUSER 1000\n\
                      RUN id -u > /tmp/id; cat /proc/self/status | grep -q Name && true | cat\nCMD [\"cat\", \"/machine\"]\n";
    let project = Project::new("foreign", &[("Dockerfile", dockerfile)])?;
    let mut import = project.kiln.command(["import", "--platform", "linux/arm64"]);
    for change in &foreign.changes {
        import.arg("--change").arg(change);
    }
    run(import.arg(&foreign.tar).arg("busybox:latest"))?.success()?;
    let ended = project.try_build(&["--platform", "linux/amd64,linux/arm64"])?;
    if ended.stderr.contains("cannot run programs of linux/arm64") {
        return Ok(Outcome::Skipped(format!(
            "needs qemu for arm64: {}",
            ended.stderr
        )));
    }
    ended.success()?;
    for (platform, machine) in [("linux/amd64", "x86_64\n"), ("linux/arm64", "aarch64\n")] {
        let ran = project
            .kiln
            .run(["run", "--rm", "--platform", platform, "foreign:test"])?
            .success()?;
        ensure!(ran.stdout == machine, "{platform} printed {:?}", ran.stdout);
    }
    let images = index(&project, &project.request.tag)?;
    for (platform, image) in &images {
        ensure!(image.problems.is_empty(), "{platform}: {:?}", image.problems);
        ensure!(image.tree.get("/tmp/id").is_some(), "{platform} misses a file");
        ensure!(
            image.tree.get("/proc/sys").is_none(),
            "{platform} holds mountpoints"
        );
    }
    // Nothing is left with the kernel.
    let formats = Path::new("/proc/sys/fs/binfmt_misc");
    let left = std::fs::read_dir(formats)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kiln-"));
    ensure!(left.count() == 0, "a registration is left on the host");
    Ok(Outcome::Passed)
}

fn pulls() -> TestResult {
    if let Some(obstacle) = Registry::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    let skopeo = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
    let mut registry = Registry::start()?;
    let project = copy_only("pulls")?;
    let name = format!("{}/team/app:1", registry.host);
    let publish = |platforms: &str| -> Result<()> {
        project.try_build(&["--platform", platforms])?.success()?;
        let archive = save(&project, &project.request.tag, &["--format", "oci"])?;
        let folder = TempFolder::new("publish")?;
        run(machine::command("tar", folder.path())
            .args(["--no-same-owner", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(folder.path()))?
        .success()?;
        let mut copy = machine::command(&skopeo, folder.path());
        copy.args([
            "--insecure-policy",
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
        ]);
        copy.arg(format!("oci:{}:test", folder.path().display()));
        run(copy.arg(format!("docker://{name}")))?.success()?;
        Ok(())
    };
    publish("linux/amd64,linux/arm64,linux/s390x")?;
    let folder = TempFolder::new("puller")?;
    let kiln = Kiln::new(&folder)?;
    let architecture = |platform: &str| -> Result<String> {
        let found = kiln.run(["inspect", "--platform", platform, &name])?.success()?;
        let found: Value = serde_json::from_str(&found.stdout)?;
        Ok(found[0]["Architecture"].as_str().unwrap_or_default().to_owned())
    };
    kiln.run(["pull", "--platform", "linux/arm64", &name])?
        .success()?;
    kiln.run(["pull", "--platform", "linux/amd64,linux/s390x", &name])?
        .success()?;
    for wanted in ["arm64", "amd64", "s390x"] {
        let found = architecture(&format!("linux/{wanted}"))?;
        ensure!(found == wanted, "{wanted} turned into {found}");
    }
    let listed = kiln.run(["images", "-q"])?.success()?.stdout;
    ensure!(listed.lines().count() == 1, "images lists {listed}");
    // A platform that the name has no more is not kept under it.
    publish("linux/amd64,linux/arm64")?;
    kiln.run(["pull", "--platform", "linux/arm64", &name])?
        .success()?;
    kiln.run(["inspect", "--platform", "linux/s390x", &name])?
        .failure(1)?;
    ensure!(
        architecture("linux/amd64")? == "amd64",
        "the other platform is gone"
    );
    // All that was pulled is there without the registry, for FROM and by digest.
    let digest = registry.digest(&name)?;
    registry.stop()?;
    let pinned = format!("{}@{digest}", name.trim_end_matches(":1"));
    std::fs::create_dir(folder.join("context"))?;
    for (from, platforms) in [(&name, "linux/amd64,linux/arm64"), (&pinned, "linux/arm64")] {
        std::fs::write(
            folder.join("context/Dockerfile"),
            format!("FROM {from}\nCOPY Dockerfile /d\n"),
        )?;
        let mut build = kiln.command(["build", "--progress", "plain", "--platform", platforms]);
        run(build.arg(folder.join("context")))?.success()?;
    }
    Ok(Outcome::Passed)
}
