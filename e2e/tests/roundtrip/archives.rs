//! `save` and `load` without anybody else.

use crate::fixture::{Fresh, fixture, same};
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::oci;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::path::PathBuf;

/// A project with an image for two platforms; nothing runs in it.
fn two_platforms(name: &str) -> Result<Project> {
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let files = [("Dockerfile", dockerfile), ("amd64", "one\n"), ("arm64", "two\n")];
    let project = Project::with_bases(name, &[], &files)?;
    project.build(&["--platform", "linux/amd64,linux/arm64"])?;
    Ok(project)
}

fn save(project: &Project, arguments: &[&str]) -> Result<PathBuf> {
    let archive = project.scratch("saved.tar");
    run(project.kiln.command(["save", "-o"]).arg(&archive).args(arguments))?.success()?;
    Ok(archive)
}

pub(crate) fn several() -> TestResult {
    let fixture = fixture("several")?;
    let kiln = &fixture.project.kiln;
    let tag = fixture.project.request.tag.as_str();
    kiln.run(["tag", tag, "registry.example/team/app:2"])?.success()?;
    let base = fixture.project.export("busybox:latest")?;
    for format in ["docker", "oci"] {
        let archive = save(
            &fixture.project,
            &[
                "--format",
                format,
                tag,
                "busybox:latest",
                "registry.example/team/app:2",
            ],
        )?;
        let fresh = Fresh::new()?;
        let told = run(fresh.kiln.command(["load", "-i"]).arg(&archive))?
            .success()?
            .stdout;
        ensure!(
            told == format!(
                "Loaded image: {tag}\nLoaded image: registry.example/team/app:2\nLoaded image: busybox:latest\n"
            ),
            "load of the {format} archive told {told:?}"
        );
        for (name, expected) in [
            (tag, &fixture.built),
            ("registry.example/team/app:2", &fixture.built),
            ("busybox", &base),
        ] {
            let image = fresh.image(name)?;
            ensure!(
                image.id == expected.id,
                "{name} is {} instead of {}",
                image.id,
                expected.id
            );
            same(&image, expected)?;
        }
        // What Kiln packs again to the same tar is not kept twice.
        let kept = std::fs::read_dir(fresh.kiln.root.join("blobs/sha256"))?;
        let sizes: Vec<u64> = kept
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .collect();
        ensure!(
            sizes.iter().all(|size| *size < 20_000),
            "blobs of {sizes:?} bytes are kept"
        );
        // And once more: nothing changes, and the bytes are the same.
        run(fresh.kiln.command(["load", "-i"]).arg(&archive))?.success()?;
        let again = fresh.folder.join("again.tar");
        run(fresh
            .kiln
            .command(["save", "--format", format, "-o"])
            .arg(&again)
            .args([tag, "busybox:latest", "registry.example/team/app:2"]))?
        .success()?;
        ensure!(
            std::fs::read(&again)? == std::fs::read(&archive)?,
            "the {format} archives differ"
        );
    }
    // By its id an image has no name.
    let archive = save(&fixture.project, &[&fixture.built.id])?;
    let fresh = Fresh::new()?;
    let told = fresh.load(&archive, &[])?.success()?.stdout;
    ensure!(
        told == format!("Loaded image ID: {}\n", fixture.built.id),
        "load of an image without a name told {told:?}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn streams() -> TestResult {
    let fixture = fixture("streams")?;
    let archive = fixture.save("docker")?;
    let piped = fixture.project.scratch("piped.tar");
    let status = fixture
        .project
        .kiln
        .command(["save", &fixture.project.request.tag])
        .stdout(std::fs::File::create(&piped)?)
        .status()?;
    ensure!(status.success(), "save to standard output: {status}");
    ensure!(
        std::fs::read(&piped)? == std::fs::read(&archive)?,
        "the archives differ"
    );
    let mut missing = Vec::new();
    for name in ["cat", "gzip", "zstd", "xz", "bzip2"] {
        let Some(program) = machine::program(name) else {
            missing.push(name);
            continue;
        };
        let compressed = fixture.project.scratch("compressed");
        let status = fixture
            .tool(program)
            .stdin(std::fs::File::open(&archive)?)
            .stdout(std::fs::File::create(&compressed)?)
            .args(if name == "cat" { &[][..] } else { &["-c"] })
            .status()?;
        ensure!(status.success(), "{name}: {status}");
        let fresh = Fresh::new()?;
        let ended = fresh.load(&compressed, &["-q"])?.success()?;
        ensure!(ended.stderr.is_empty(), "load -q of {name} told {}", ended.stderr);
        same(&fresh.image(&fixture.project.request.tag)?, &fixture.built)?;
    }
    let Some(script) = machine::program("script") else {
        return Ok(Outcome::Skipped(
            "script is not on the PATH: no terminal".to_owned(),
        ));
    };
    let kiln = &fixture.project.kiln;
    for (command, expected) in [
        ("load".to_owned(), "an archive is not read from a terminal"),
        (
            format!("save {}", fixture.project.request.tag),
            "an archive is not written to a terminal",
        ),
    ] {
        let line = format!(
            "'{}' --root '{}' {command}",
            machine::kiln()?.display(),
            kiln.root.display()
        );
        let ended = run(fixture
            .tool(&script)
            .env("KILN_CONFIG", kiln.config())
            .env("TERM", "dumb")
            .args(["-q", "-e", "-c", &line, "/dev/null"]))?;
        ensure!(
            ended.code != Some(0) && ended.stdout.contains(expected),
            "{command} at a terminal: {:?} {}",
            ended.code,
            ended.stdout
        );
    }
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped(format!(
        "{} not on the PATH",
        missing.join(", ")
    )))
}

pub(crate) fn platforms() -> TestResult {
    let project = two_platforms("platforms")?;
    let tag = project.request.tag.as_str();
    let archive = save(&project, &["--format", "oci", tag])?;
    let built = oci::read_index(&archive)?;
    let fresh = Fresh::new()?;
    let told = fresh
        .load(&archive, &["--platform", "linux/arm64"])?
        .success()?
        .stdout;
    ensure!(told == format!("Loaded image: {tag}\n"), "load told {told:?}");
    let image = fresh.image(tag)?;
    ensure!(
        image.config["architecture"] == "arm64",
        "it is for {}",
        image.config["architecture"]
    );
    same(&image, &built[1].1)?;
    let fresh = Fresh::new()?;
    let told = fresh
        .load(&archive, &["--platform", "linux/arm64,linux/s390x"])?
        .failure(1)?;
    ensure!(
        told.contains("has no image for linux/s390x")
            && told.contains("it has images for linux/amd64, linux/arm64"),
        "load told {told:?}"
    );
    ensure!(
        fresh.images()?.is_empty(),
        "there are images: {}",
        fresh.images()?
    );
    // An archive of Docker's form alone has one image.
    let single = save(&project, &["--platform", "linux/amd64", tag])?;
    let told = fresh.load(&single, &["--platform", "linux/arm64"])?.failure(1)?;
    ensure!(
        told.contains("has no image for linux/arm64"),
        "load told {told:?}"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn folders() -> TestResult {
    let fixture = fixture("folders")?;
    for format in ["docker", "oci"] {
        let folder = fixture.project.scratch(&format!("folder-{format}"));
        std::fs::create_dir(&folder)?;
        let archive = fixture.save(format)?;
        run(fixture
            .tool("tar")
            .args(["--no-same-owner", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(&folder))?
        .success()?;
        if format == "docker" {
            // As Docker alone had it before it knew layouts.
            std::fs::remove_file(folder.join("oci-layout"))?;
            std::fs::remove_file(folder.join("index.json"))?;
        }
        let fresh = fixture.comes_back_in(&folder)?;
        ensure!(
            fresh.name == fixture.project.request.tag,
            "the folder's image is called {}",
            fresh.name
        );
        ensure!(folder.join("blobs/sha256").is_dir(), "the folder was emptied");
        // The image's only document that is no blob names a file that is not there.
        let blobs = folder.join("blobs/sha256");
        let config = blobs.join(fixture.built.id.trim_start_matches("sha256:"));
        std::fs::remove_file(config)?;
        let told = run(Fresh::new()?.kiln.command(["load", "-i"]).arg(&folder))?.failure(1)?;
        ensure!(
            told.contains("the archive has no blobs/sha256/"),
            "load told {told:?}"
        );
    }
    Ok(Outcome::Passed)
}

pub(crate) fn told() -> TestResult {
    let project = Project::new("told", &[("Dockerfile", "FROM busybox:latest\nLABEL a=1\n")])?;
    project.build(&[])?;
    let tag = project.request.tag.as_str();
    let first = project.image()?.id;
    let fresh = Fresh::new()?;
    fresh.load(&save(&project, &[tag])?, &[])?.success()?;
    project.write("Dockerfile", "FROM busybox:latest\nLABEL a=2\n")?;
    project.build(&[])?;
    let second = save(&project, &[tag])?;
    let told = fresh.load(&second, &[])?.success()?.stdout;
    ensure!(
        told == format!(
            "The image {tag} already exists, renaming the old one with ID {first} to empty string\nLoaded image: {tag}\n"
        ),
        "load told {told:?}"
    );
    let told = fresh.load(&second, &[])?.success()?.stdout;
    ensure!(
        told == format!("Loaded image: {tag}\n"),
        "the second load told {told:?}"
    );
    let root = kiln_e2e::base::base("busybox:latest")?.tar;
    let told = fresh.load(&root, &[])?.failure(1)?;
    ensure!(
        told.contains("the archive holds no images") && told.contains("kiln import"),
        "load of a root file system told {told:?}"
    );
    let told = fresh.load(&project.path("Dockerfile"), &[])?.failure(1)?;
    ensure!(
        told.contains("this is no tar archive"),
        "load of a text told {told:?}"
    );
    let told = fresh.kiln.run(["load"])?.failure(1)?;
    ensure!(
        told.contains("the archive is empty"),
        "load of nothing told {told:?}"
    );
    let told = fresh.kiln.run(["load", "-i", "/no/such/file"])?.failure(1)?;
    ensure!(
        told.contains("/no/such/file"),
        "load of a missing file told {told:?}"
    );
    Ok(Outcome::Passed)
}
