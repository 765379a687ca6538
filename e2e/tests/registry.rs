//! Kiln against a real registry server, and the tutorials' Python app from there to its HTTP answer.

use kiln_e2e::builder::{Kiln, run};
use kiln_e2e::case::copy_folder;
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::project::Project;
use kiln_e2e::server::{Registry, free_port, wait_for};
use kiln_e2e::tree::{Kind, Tree};
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure, progress};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("pull by tag and digest", pull_by_tag_and_digest),
        ("from a registry, then without it", from_then_without),
        ("zstd layers and docker manifests", layer_formats),
        ("unknown tags and repositories are named", unknown_images),
        ("password from the docker config", private_registry),
        ("a damaged blob is refused", damaged_blob),
        ("a moved tag counts with --pull only", moved_tag),
        ("a mirror stands in for docker.io", mirror),
        ("python app from pull to HTTP", python_app),
    ];
    let with_registry = |&(name, test): &Named| {
        trial::test(format!("registry/{name}"), move || match Registry::obstacle() {
            Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
            None => test(),
        })
    };
    trial::run(tests.iter().map(with_registry).collect())
}

/// A store without images.
fn empty_kiln(name: &str) -> Result<(TempFolder, Kiln)> {
    let folder = TempFolder::new(name)?;
    let kiln = Kiln::new(&folder)?;
    Ok((folder, kiln))
}

fn pull_by_tag_and_digest() -> TestResult {
    let registry = Registry::start()?;
    let name = registry.push_base("busybox:latest", "team/busybox:1.0", &[])?;
    let digest = registry.digest(&name)?;
    let repository = name.trim_end_matches(":1.0");
    for reference in [name.clone(), format!("{repository}@{digest}")] {
        let (_folder, kiln) = empty_kiln("pull")?;
        let pulled = kiln.run(["pull", &reference])?.success()?;
        let told = format!("{}{}", pulled.stdout, pulled.stderr);
        ensure!(
            told.contains(&digest),
            "pull does not tell the digest {digest}: {told}"
        );
        let shown = kiln
            .run(["run", "--rm", &reference, "echo", "runs"])?
            .success()?
            .stdout;
        ensure!(shown == "runs\n", "the container printed {shown:?}");
    }
    Ok(Outcome::Passed)
}

fn from_then_without() -> TestResult {
    let mut registry = Registry::start()?;
    let name = registry.push_base("busybox:latest", "busybox:latest", &[])?;
    let dockerfile = format!("FROM {name}\nRUN echo built > /f\n");
    let project = Project::with_bases("from", &[], &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    ensure!(project.shell("cat /f")? == "built\n", "the image is wrong");
    registry.stop()?;
    ensure!(
        project.build(&[])?.is_empty(),
        "without the registry the second build was not cached"
    );
    let stderr = project.try_build(&["--pull"])?.failure(1)?;
    ensure!(
        stderr.contains(&registry.host),
        "--pull without the registry does not name it:\n{stderr}"
    );
    Ok(Outcome::Passed)
}

fn layer_formats() -> TestResult {
    let registry = Registry::start()?;
    let variants: [(&str, &[&str]); 3] = [
        ("x:zstd", &["--dest-compress-format", "zstd", "--format", "oci"]),
        ("x:docker", &["--format", "v2s2"]),
        ("x:oci", &["--format", "oci"]),
    ];
    let mut trees = Vec::new();
    for (name, arguments) in variants {
        let name = registry.push_base("busybox:latest", name, arguments)?;
        let project = Project::with_bases("formats", &[], &[])?;
        project.kiln.run(["pull", &name])?.success()?;
        trees.push(project.export(&name)?.tree.lines(true));
    }
    ensure!(
        trees.iter().all(|tree| *tree == trees[0]),
        "the formats give different trees"
    );
    ensure!(trees[0].len() > 100, "only {} paths were pulled", trees[0].len());
    Ok(Outcome::Passed)
}

fn unknown_images() -> TestResult {
    let registry = Registry::start()?;
    let name = registry.push_base("busybox:latest", "known:tag", &[])?;
    let (_folder, kiln) = empty_kiln("unknown")?;
    for unknown in [
        format!("{}/known:other", registry.host),
        format!("{}/unknown/image:tag", registry.host),
    ] {
        let stderr = kiln.run(["pull", &unknown])?.failure(1)?;
        ensure!(stderr.contains(&unknown), "{unknown} is not named:\n{stderr}");
        let dockerfile = format!("FROM {unknown}\nRUN true\n");
        let project = Project::with_bases("unknown-from", &[], &[("Dockerfile", &dockerfile)])?;
        let stderr = project.try_build(&[])?.failure(1)?;
        ensure!(
            stderr.contains(&unknown) && stderr.contains("Dockerfile:1"),
            "{unknown} has no place:\n{stderr}"
        );
    }
    kiln.run(["pull", &name])?.success()?;
    Ok(Outcome::Passed)
}

fn private_registry() -> TestResult {
    let registry = Registry::start_private()?;
    let name = registry.push_base("busybox:latest", "private:1", &[])?;
    let (folder, kiln) = empty_kiln("private")?;
    let refused = kiln.run(["pull", &name])?.failure(1)?;
    ensure!(
        refused.contains("401") || refused.to_lowercase().contains("auth"),
        "the cause is not told:\n{refused}"
    );
    let docker = folder.join("home").join(".docker");
    std::fs::create_dir_all(&docker)?;
    // base64 of kiln:wrong and kiln:secret
    for (auth, works) in [("a2lsbjp3cm9uZw==", false), ("a2lsbjpzZWNyZXQ=", true)] {
        let config = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host);
        std::fs::write(docker.join("config.json"), config)?;
        let ended = kiln.run(["pull", &name])?;
        ensure!((ended.code == Some(0)) == works, "with auth {auth}: {ended:?}");
        ensure!(
            !ended.stderr.contains("secret") && !ended.stderr.contains(auth),
            "the password is shown: {ended:?}"
        );
    }
    Ok(Outcome::Passed)
}

fn damaged_blob() -> TestResult {
    let registry = Registry::start()?;
    let name = registry.push_base("busybox:latest", "damaged:1", &[])?;
    let blob = largest_file(&registry.data())?.ok_or("the registry holds no blob")?;
    let mut bytes = std::fs::read(&blob)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&blob, bytes)?;
    let (_folder, kiln) = empty_kiln("damaged")?;
    let stderr = kiln.run(["pull", &name])?.failure(1)?;
    ensure!(stderr.contains("sha256:"), "the blob is not named:\n{stderr}");
    kiln.run(["inspect", &name])?.failure(1)?;
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

/// The largest file below a folder: in a registry of one image, its layer.
fn largest_file(folder: &Path) -> Result<Option<std::path::PathBuf>> {
    let mut largest: Option<(u64, std::path::PathBuf)> = None;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let candidate = if entry.file_type()?.is_dir() {
            largest_file(&entry.path())?
        } else {
            Some(entry.path())
        };
        let Some(candidate) = candidate else { continue };
        let size = candidate.metadata()?.len();
        if largest.as_ref().is_none_or(|(other, _)| size > *other) {
            largest = Some((size, candidate));
        }
    }
    Ok(largest.map(|(_, path)| path))
}

fn moved_tag() -> TestResult {
    let registry = Registry::start()?;
    let name = registry.push_base("busybox:latest", "moving:tag", &[])?;
    let dockerfile = format!(
        "FROM {name}\nRUN test -e /etc/debian_version && echo debian > /kind || echo busybox > /kind\n"
    );
    let project = Project::with_bases("moving", &[], &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    registry.push_base("debian:bookworm-slim", "moving:tag", &[])?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /kind")? == "busybox\n",
        "the tag was resolved again although the image is there"
    );
    project.build(&["--pull"])?;
    ensure!(
        project.shell("cat /kind")? == "debian\n",
        "--pull did not resolve the tag again"
    );
    Ok(Outcome::Passed)
}

fn mirror() -> TestResult {
    let registry = Registry::start()?;
    registry.push_base("busybox:latest", "library/busybox:latest", &[])?;
    let dockerfile = "FROM busybox:latest\nRUN echo mirrored > /f\n";
    let project = Project::with_bases("mirror", &[], &[("Dockerfile", dockerfile)])?;
    let config = format!(
        "[registry.\"docker.io\"]\nmirrors = [\"http://{}\"]\n",
        registry.host
    );
    std::fs::write(project.kiln.config(), config)?;
    project.build(&[])?;
    ensure!(project.shell("cat /f")? == "mirrored\n", "the image is wrong");
    let listed = project.kiln.run(["images"])?.success()?.stdout;
    ensure!(
        !listed.contains(&registry.host),
        "the mirror's name became the image's:\n{listed}"
    );
    Ok(Outcome::Passed)
}

/// A container that is stopped when the value goes away, as Ctrl-C does: Python heeds that even as process 1.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(raw) = self.0.id().try_into()
            && let Some(pid) = Pid::from_raw(raw)
        {
            let _ = kill_process(pid, Signal::INT);
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python_app() -> TestResult {
    if std::env::var_os("KILN_E2E_OFFLINE").is_some() {
        return Ok(Outcome::Skipped(
            "needs the Python package index, and KILN_E2E_OFFLINE is set".into(),
        ));
    }
    let registry = Registry::start()?;
    let name = registry.push_base("python:3.11-slim", "python:3.11-slim", &[])?;
    let mut project = Project::with_bases("python", &[], &[])?;
    let context = project.scratch("app");
    copy_folder(&machine::testdata().join("python-app"), &context)?;
    let dockerfile = std::fs::read_to_string(context.join("Dockerfile"))?;
    std::fs::write(
        context.join("Dockerfile"),
        dockerfile.replace("FROM python:3.11-slim", &format!("FROM {name}")),
    )?;
    project.request.context = context;
    let build = |project: &Project| -> Result<Vec<String>> {
        let mut command = project.kiln.command([
            "--ca-bundle",
            "host",
            "build",
            "--progress",
            "plain",
            "-t",
            "python:test",
        ]);
        Ok(progress::not_cached(
            &run(command.arg(&project.request.context))?.success()?.stderr,
        ))
    };
    ensure!(build(&project)?.len() == 4, "the first build had cached steps");
    ensure!(build(&project)?.is_empty(), "the second build was not cached");
    let app = std::fs::read_to_string(project.path("app.py"))?;
    project.write(
        "app.py",
        &app.replace("Hello from a container", "Changed in a container"),
    )?;
    let redone = build(&project)?;
    ensure!(
        redone == ["COPY . ."],
        "after a change of app.py these ran: {redone:?}"
    );
    let base = kiln_e2e::oci::read_root_tar(&kiln_e2e::base::base("python:3.11-slim")?.tar)?;
    let image = project.image()?;
    let certificates = |tree: &Tree| match tree
        .get("etc/ssl/certs/ca-certificates.crt")
        .map(|node| &node.kind)
    {
        Some(Kind::File { sha256, .. }) => Ok(sha256.clone()),
        other => Err(format!("the certificates are {other:?}")),
    };
    ensure!(
        certificates(&image.tree)? == certificates(&base)?,
        "the host's certificates reached the image"
    );
    serve(&project)
}

/// Runs the app and asks it for its page.
fn serve(project: &Project) -> TestResult {
    let port = free_port()?;
    let mut command = project.kiln.command([
        "run",
        "--rm",
        "-e",
        "HOST=127.0.0.1",
        "-e",
        &format!("PORT={port}"),
        "python:test",
    ]);
    let mut served = Served(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let address = format!("127.0.0.1:{port}");
    if let Err(error) = wait_for(&address, Duration::from_mins(2)) {
        bail!("{error}; the container: {:?}", served.0.try_wait());
    }
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.contains(" 200 ") && answer.contains("Changed in a container!"),
        "the answer is {answer:?}"
    );
    drop(served);
    ensure!(
        TcpStream::connect(&address).is_err(),
        "the app still serves after the container was stopped"
    );
    Ok(Outcome::Passed)
}
