//! What is exported where: folders, images, and several machines at a time.

use super::{ALL, Site, build, id, machine_with, token};
use kiln_e2e::builder::run;
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use std::path::Path;

pub(super) fn folders() -> TestResult {
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

pub(super) fn inline() -> TestResult {
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

pub(super) fn settled() -> TestResult {
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
pub(super) fn two_writers() -> TestResult {
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

pub(super) fn two_platforms() -> TestResult {
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

pub(super) fn image_stays() -> TestResult {
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

pub(super) fn failed_export() -> TestResult {
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

pub(super) fn secrets() -> TestResult {
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
