//! skopeo and umoci.

use super::COMPRESSIONS;
use crate::fixture::{Fixture, fixture, same, tar_of};
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::oci::{self, sha256};
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::path::Path;

fn run_skopeo(project: &Project, arguments: &[&str]) -> Result<String> {
    let program = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
    let mut command = machine::command(program, &project.scratch("."));
    command.arg("--insecure-policy").args(arguments);
    Ok(run(&mut command)?.success()?.stdout)
}

/// `skopeo copy` between an image of the registry and something else.
fn copy(project: &Project, arguments: &[&str], from: &str, to: &str) -> Result<()> {
    let verify = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let of = |name: &str, option| name.starts_with("docker://").then_some(option);
    let options: Vec<&str> = [of(from, verify[0]), of(to, verify[1])]
        .into_iter()
        .flatten()
        .collect();
    run_skopeo(
        project,
        &[&["copy", "-q"], arguments, &options, &[from, to]].concat(),
    )?;
    Ok(())
}

/// The digest of the only image of a layout.
fn digest_in_layout(layout: &Path) -> Result<String> {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"].as_str();
    Ok(digest.ok_or("the layout has no image")?.to_owned())
}

pub(crate) fn skopeo() -> TestResult {
    let registry = Registry::start()?;
    let fixture = fixture("skopeo")?;
    let project = &fixture.project;
    for (at, (compression, transports)) in COMPRESSIONS.iter().enumerate() {
        let (name, digest) = fixture.push(&registry, &format!("s{at}/app:1"), compression)?;
        let inspected: Value = serde_json::from_str(&run_skopeo(
            project,
            &["inspect", "--tls-verify=false", &format!("docker://{name}")],
        )?)?;
        ensure!(inspected["Digest"] == *digest, "skopeo tells {inspected}");
        let config = run_skopeo(
            project,
            &[
                "inspect",
                "--config",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{name}"),
            ],
        )?;
        ensure!(
            format!("sha256:{}", sha256(config.as_bytes())) == fixture.built.id,
            "skopeo shows another configuration: {config}"
        );
        let layout = project.scratch(&format!("layout{at}"));
        copy(
            project,
            &[],
            &format!("docker://{name}"),
            &format!("oci:{}:app:9", layout.display()),
        )?;
        ensure!(
            digest_in_layout(&layout)? == digest,
            "skopeo wrote another manifest"
        );
        let tar = project.scratch("layout.tar");
        tar_of(&layout, &tar)?;
        fixture.is_in(&tar)?;
        let back = fixture.comes_back_in(&layout)?;
        ensure!(back.name == "app:9", "the folder's image is called {}", back.name);
        // Nothing was written anew: what came from a registry goes to one under the same digest.
        // A blob that came in an archive can be had nowhere else: no pruning takes it from its image.
        back.kiln.run(["cache", "prune", "--all", "--force"])?.success()?;
        let again = format!("{}/s{at}/again:1", registry.host);
        back.kiln.run(["tag", &back.name, &again])?.success()?;
        back.kiln.run(["push", &again])?.success()?;
        ensure!(
            registry.raw_digest(&again)? == digest,
            "load and push changed the digest"
        );
        for transport in *transports {
            let archive = project.scratch(&format!("{transport}{at}.tar"));
            copy(
                project,
                &[],
                &format!("docker://{name}"),
                &format!("{transport}:{}:app:9", archive.display()),
            )?;
            fixture.is_in(&archive)?;
            let back = fixture.comes_back_in(&archive)?;
            ensure!(
                back.name == "app:9",
                "the image of {transport} is called {}",
                back.name
            );
        }
    }
    long_ago(&fixture, &project.scratch("docker-archive0.tar"))?;
    // And from Kiln's own archives into a registry.
    for (format, transport) in [("docker", "docker-archive"), ("oci", "oci-archive")] {
        let archive = fixture.save(format)?;
        let name = format!("{}/saved/{format}:1", registry.host);
        copy(
            project,
            &[],
            &format!("{transport}:{}", archive.display()),
            &format!("docker://{name}"),
        )?;
        fixture.comes_back_from(&name)?;
    }
    Ok(Outcome::Passed)
}

/// The files that Docker wrote before 2016 are in skopeo's archives, too, and are enough for the same layers.
fn long_ago(fixture: &Fixture, archive: &Path) -> Result<()> {
    let folder = fixture.project.scratch("long-ago");
    std::fs::create_dir(&folder)?;
    let tar = |arguments: &[&str]| {
        let mut command = fixture.tool("tar");
        command.arg("-C").arg(&folder).args(arguments).arg(archive);
        run(&mut command)
    };
    tar(&["--no-same-owner", "-xf"])?.success()?;
    std::fs::remove_file(folder.join("manifest.json"))?;
    let old = fixture.project.scratch("long-ago.tar");
    tar_of(&folder, &old)?;
    let fresh = crate::fixture::Fresh::new()?;
    let told = fresh.load(&old, &[])?.success()?.stdout;
    ensure!(
        told == "Loaded image: app:9\n",
        "load of an old archive told {told:?}"
    );
    let image = fresh.image("app:9")?;
    ensure!(
        image.diff_ids == fixture.built.diff_ids,
        "the DiffIDs differ: {:?}",
        image.diff_ids
    );
    let changes = image.tree.changes_since(&fixture.built.tree, true);
    ensure!(changes.is_empty(), "the trees differ: {changes:#?}");
    let [left, right] = [&image, &fixture.built].map(|image| image.config["config"]["Entrypoint"].clone());
    ensure!(left == right, "the entrypoint is {left} instead of {right}");
    Ok(())
}

pub(crate) fn umoci() -> TestResult {
    let Some(program) = machine::program("umoci") else {
        return Ok(Outcome::Skipped("umoci is not on the PATH".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped("umoci restores owners as root only".to_owned()));
    }
    let registry = Registry::start()?;
    let fixture = fixture("umoci")?;
    let project = &fixture.project;
    // Debian's version knows no zstd.
    let (name, _) = fixture.push(&registry, "u/app:1", &[])?;
    let layout = project.scratch("layout");
    copy(
        project,
        &[],
        &format!("docker://{name}"),
        &format!("oci:{}:x", layout.display()),
    )?;
    let image = format!("{}:x", layout.display());
    let bundle = project.scratch("bundle");
    run(fixture
        .tool(&program)
        .args(["unpack", "--image", &image])
        .arg(&bundle))?
    .success()?;
    let tar = project.scratch("bundle.tar");
    tar_of(&bundle.join("rootfs"), &tar)?;
    let unpacked = oci::read_root_tar(&tar)?;
    let changes = unpacked.changes_since(&fixture.built.tree, true);
    ensure!(changes.is_empty(), "umoci unpacked other files: {changes:#?}");
    // And one layer more.
    std::fs::write(bundle.join("rootfs/by-umoci"), "new")?;
    std::fs::remove_file(bundle.join("rootfs/d/soft"))?;
    let new = format!("{}:app:new", layout.display());
    let new = new.replace(":app:new", ":new");
    run(fixture
        .tool(&program)
        .args(["repack", "--image", &new])
        .arg(&bundle))?
    .success()?;
    let single = project.scratch("single");
    copy(
        project,
        &[],
        &format!("oci:{new}"),
        &format!("oci:{}:app:2", single.display()),
    )?;
    let fresh = crate::fixture::Fresh::new()?;
    let told = run(fresh.kiln.command(["load", "-i"]).arg(&single))?
        .success()?
        .stdout;
    ensure!(told == "Loaded image: app:2\n", "load told {told:?}");
    let image = fresh.image("app:2")?;
    let changes = image.tree.changes_since(&fixture.built.tree, true);
    let expected =
        |line: &String| line.starts_with("/by-umoci file 0644 0:0 3 ") || line == "deleted /d/soft";
    ensure!(
        changes.len() == 2 && changes.iter().all(expected),
        "umoci's layer came as {changes:#?}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn index() -> TestResult {
    let registry = Registry::start()?;
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let project = Project::with_bases(
        "index",
        &[],
        &[("Dockerfile", dockerfile), ("amd64", "one\n"), ("arm64", "two\n")],
    )?;
    project.build(&["--platform", "linux/amd64,linux/arm64"])?;
    let name = format!("{}/index/app:1", registry.host);
    project
        .kiln
        .run(["tag", &project.request.tag, &name])?
        .success()?;
    project.kiln.run(["push", &name])?.success()?;
    let digest = registry.raw_digest(&name)?;
    // The way of the whole index through skopeo, in an archive and in a folder.
    let layout = project.scratch("layout");
    let archive = project.scratch("index.tar");
    for target in [
        format!("oci:{}:app:1", layout.display()),
        format!("oci-archive:{}:app:1", archive.display()),
    ] {
        copy(&project, &["--all"], &format!("docker://{name}"), &target)?;
    }
    ensure!(digest_in_layout(&layout)? == digest, "skopeo wrote another index");
    let saved = project.scratch("saved.tar");
    run(project.kiln.command(["save", "-o"]).arg(&saved).arg(&name))?.success()?;
    let built = oci::read_index(&saved)?;
    for source in [&layout, &archive, &saved] {
        let fresh = crate::fixture::Fresh::new()?;
        run(fresh.kiln.command(["load", "-q", "-i"]).arg(source))?.success()?;
        let tag = if source == &saved { name.as_str() } else { "app:1" };
        let there = fresh.folder.join("there.tar");
        run(fresh
            .kiln
            .command(["save", "--format", "oci", "-o"])
            .arg(&there)
            .arg(tag))?
        .success()?;
        let images = oci::read_index(&there)?;
        ensure!(
            images.len() == 2,
            "{} images came from {}",
            images.len(),
            source.display()
        );
        for ((platform, image), (expected, other)) in images.iter().zip(&built) {
            ensure!(platform == expected, "{platform} instead of {expected}");
            same(image, other)?;
        }
        if source == &saved {
            continue;
        }
        let again = format!("{}/index/again:1", registry.host);
        fresh.kiln.run(["tag", tag, &again])?.success()?;
        fresh.kiln.run(["push", &again])?.success()?;
        let now = registry.raw_digest(&again)?;
        ensure!(now == digest, "the index {digest} became {now}");
        run_skopeo(
            &project,
            &["delete", "--tls-verify=false", &format!("docker://{again}")],
        )?;
    }
    // One that another tool wrote: pulled for all its platforms, it stays what it is, too.
    let fresh = crate::fixture::Fresh::new()?;
    fresh
        .kiln
        .run(["pull", "--platform", "linux/amd64,linux/arm64", &name])?
        .success()?;
    let again = format!("{}/index/pulled:1", registry.host);
    fresh.kiln.run(["tag", &name, &again])?.success()?;
    fresh.kiln.run(["push", &again])?.success()?;
    ensure!(
        registry.raw_digest(&again)? == digest,
        "pull and push changed the index"
    );
    Ok(Outcome::Passed)
}
