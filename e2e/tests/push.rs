//! Kiln's pushes to a real registry server, and what other tools find there.

#[path = "push/stream.rs"]
mod stream;

use kiln_e2e::builder::{Kiln, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::oci::{self, Image};
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("what other tools read is what was built", round_trip),
        ("a second push moves nothing", second_push),
        ("blobs are mounted across repositories", mounts),
        ("a lost blob of a base comes back", lost_blob),
        ("pulled images keep their digests", keeps_digests),
        ("several platforms are one index", index),
        ("all tags", all_tags),
        ("login, push, logout", login),
        ("a build pushes and tells the digest", build_push),
        ("outputs of a build", outputs),
        ("errors say what is wrong", errors),
    ];
    let with_registry = |&(name, test): &Named| {
        trial::test(format!("push/{name}"), move || match Registry::obstacle() {
            Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
            None => test(),
        })
    };
    let streams = |&(name, test): &Named| trial::test(format!("push/{name}"), test);
    let tests = tests.iter().map(with_registry);
    trial::run(tests.chain(stream::TESTS.iter().map(streams)).collect())
}

const DOCKERFILE: &str = "FROM busybox:latest\n\
    RUN mkdir /d && echo text > /d/f && chown 12:34 /d/f && chmod 4751 /d/f && ln -s f /d/l && rm /bin/false\n\
    COPY big /big\nENV A=b\nLABEL l=\"x y\"\nCMD [\"sh\"]\n";

/// A project that is built from a base image, with a file of some size.
fn project(name: &str) -> Result<Project> {
    let big = "0123456789abcdef".repeat(100_000);
    let project = Project::new(name, &[("Dockerfile", DOCKERFILE), ("big", &big)])?;
    project.build(&[])?;
    Ok(project)
}

/// Gives the project's image a name in the registry.
fn tag(project: &Project, registry: &Registry, name: &str) -> Result<String> {
    let name = format!("{}/{name}", registry.host);
    project
        .kiln
        .run(["tag", &project.request.tag, &name])?
        .success()?;
    Ok(name)
}

/// What skopeo makes of an image of the registry.
fn by_skopeo(project: &Project, name: &str) -> Result<Image> {
    let archive = project.scratch("skopeo.tar");
    skopeo(
        project,
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("oci-archive:{}:x", archive.display()),
        ],
    )?;
    let image = oci::read(&archive);
    std::fs::remove_file(archive)?;
    image
}

fn skopeo(project: &Project, arguments: &[&str]) -> Result<String> {
    let program = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
    let mut command = machine::command(program, &project.scratch("."));
    command.arg("--insecure-policy").args(arguments);
    Ok(run(&mut command)?.success()?.stdout)
}

fn manifest(project: &Project, name: &str) -> Result<Value> {
    let text = skopeo(
        project,
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ],
    )?;
    Ok(serde_json::from_str(&text)?)
}

fn same(one: &Image, other: &Image) -> Result<()> {
    ensure!(one.id == other.id, "the ids differ: {} and {}", one.id, other.id);
    ensure!(one.config == other.config, "the configurations differ");
    ensure!(one.diff_ids == other.diff_ids, "the DiffIDs differ");
    let (left, right) = (one.tree.lines(true), other.tree.lines(true));
    ensure!(left == right, "the trees differ:\n{left:?}\n{right:?}");
    Ok(())
}

fn round_trip() -> TestResult {
    let registry = Registry::start()?;
    let project = project("roundtrip")?;
    let built = project.image()?;
    for (at, arguments) in [
        &[][..],
        &["--compression", "zstd"],
        &["--compression", "gzip", "--compression-level", "1"],
        &["--compression", "uncompressed", "--force-compression"],
    ]
    .iter()
    .enumerate()
    {
        let name = tag(&project, &registry, &format!("r{at}/app:1"))?;
        let arguments = [&["push"], *arguments, &[&name]].concat();
        let told = project.kiln.run(arguments.clone())?.success()?.stdout;
        let digest = registry.digest(&name)?;
        let line = format!("1: digest: {digest} size: ");
        ensure!(
            told.contains(&line),
            "{arguments:?} told {told:?} and not {line:?}"
        );
        same(&by_skopeo(&project, &name)?, &built)?;
        let manifest = manifest(&project, &name)?;
        ensure!(
            manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json",
            "{manifest}"
        );
        // A store of its own: everything comes from the registry.
        let folder = TempFolder::new("pulled")?;
        let kiln = Kiln::new(&folder)?;
        kiln.run(["pull", &name])?.success()?;
        let archive = folder.join("pulled.tar");
        run(kiln
            .command(["save", "--format", "oci", "-o"])
            .arg(&archive)
            .arg(&name))?
        .success()?;
        same(&oci::read(&archive)?, &built)?;
    }
    let shown = project.kiln.run(["images", "--digests"])?.success()?.stdout;
    let digest = registry.digest(&format!("{}/r0/app:1", registry.host))?;
    ensure!(shown.contains(&digest), "images does not show {digest}:\n{shown}");
    umoci(&project, &format!("{}/r0/app:1", registry.host))
}

/// umoci unpacks what was pushed.
fn umoci(project: &Project, name: &str) -> TestResult {
    let Some(program) = machine::program("umoci") else {
        return Ok(Outcome::Skipped("umoci is not on the PATH".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped("umoci restores owners as root only".to_owned()));
    }
    let layout = project.scratch("layout");
    skopeo(
        project,
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("oci:{}:x", layout.display()),
        ],
    )?;
    let bundle = project.scratch("bundle");
    let mut command = machine::command(program, &project.scratch("."));
    command
        .args(["unpack", "--image", &format!("{}:x", layout.display())])
        .arg(&bundle);
    run(&mut command)?.success()?;
    let file = std::fs::metadata(bundle.join("rootfs/d/f"))?;
    ensure!(
        file.permissions().mode() & 0o7777 == 0o4751,
        "the file has mode {:o}",
        file.permissions().mode()
    );
    ensure!(
        !bundle.join("rootfs/bin/false").exists(),
        "a deleted file is there again"
    );
    Ok(Outcome::Passed)
}

/// The requests that changed something.
fn uploads(requests: &[String]) -> Vec<&String> {
    requests
        .iter()
        .filter(|request| !request.starts_with("GET ") && !request.starts_with("HEAD "))
        .collect()
}

fn second_push() -> TestResult {
    let registry = Registry::start()?;
    let project = project("again")?;
    let name = tag(&project, &registry, "again/app:1")?;
    project.kiln.run(["push", &name])?.success()?;
    let digest = registry.digest(&name)?;
    let before = registry.requests()?.len();
    project.kiln.run(["push", &name])?.success()?;
    let requests = registry.requests()?.split_off(before);
    ensure!(
        requests.len() == 1,
        "a second push asked more than once: {requests:?}"
    );
    ensure!(uploads(&requests).is_empty(), "a second push moved {requests:?}");
    // Another tag of the same: only the tag is new.
    let second = tag(&project, &registry, "again/app:2")?;
    let before = registry.requests()?.len();
    project.kiln.run(["push", &second])?.success()?;
    let requests = registry.requests()?.split_off(before);
    let moved = uploads(&requests);
    ensure!(
        moved.len() == 1 && moved[0].starts_with("PUT /v2/again/app/manifests/2"),
        "a second tag moved {moved:?}"
    );
    ensure!(registry.digest(&second)? == digest, "the digests differ");
    // A store without any memory compresses to the same bytes.
    let other = Project::new(
        "again",
        &[("Dockerfile", "FROM scratch\nCOPY big /\n"), ("big", "text")],
    )?;
    let digests: Vec<String> = (0..2)
        .map(|_| {
            other.build(&["--no-cache"])?;
            let name = tag(&other, &registry, "again/other:1")?;
            other.kiln.run(["push", &name])?.success()?;
            Ok(manifest(&other, &name)?["layers"].to_string())
        })
        .collect::<Result<_>>()?;
    ensure!(digests[0] == digests[1], "the layers differ: {digests:?}");
    Ok(Outcome::Passed)
}

fn mounts() -> TestResult {
    let registry = Registry::start()?;
    let base = registry.push_base("busybox:latest", "base/busybox:1", &[])?;
    let dockerfile = format!("FROM {base}\nRUN echo own > /own\n");
    let project = Project::with_bases("mounts", &[], &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    let name = tag(&project, &registry, "team/app:1")?;
    let before = registry.requests()?.len();
    project.kiln.run(["push", &name])?.success()?;
    let requests = registry.requests()?.split_off(before);
    let mounted = |request: &&String| request.contains("mount=") && request.contains("from=base%2Fbusybox");
    ensure!(
        requests.iter().filter(mounted).count() == 1,
        "the base was not mounted: {requests:?}"
    );
    let puts = requests
        .iter()
        .filter(|request| request.starts_with("PUT ") && request.contains("/blobs/uploads/"));
    ensure!(
        puts.count() == 2,
        "not only the own layer and the configuration moved: {requests:?}"
    );
    let layers = |name: &str| -> Result<Vec<Value>> {
        let manifest = manifest(&project, name)?;
        Ok(manifest["layers"].as_array().ok_or("no layers")?.clone())
    };
    let (of_base, of_app) = (layers(&base)?, layers(&name)?);
    ensure!(
        of_base[0]["digest"] == of_app[0]["digest"],
        "the base's blob was compressed anew"
    );
    same(&by_skopeo(&project, &name)?, &project.image()?)?;
    Ok(Outcome::Passed)
}

/// The tar of the base is not one that Kiln would make of its files: nothing but the tar itself will do.
fn lost_blob() -> TestResult {
    let registry = Registry::start()?;
    let base = registry.push_base("busybox:latest", "base/busybox:1", &[])?;
    let dockerfile = format!("FROM {base}\nRUN echo own > /own\n");
    let project = Project::with_bases("lost-blob", &[], &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    let built = project.image()?;
    let blob = text(&manifest(&project, &base)?["layers"][0]["digest"]);
    let blob = project
        .kiln
        .root
        .join("blobs/sha256")
        .join(blob.trim_start_matches("sha256:"));
    // Another registry's repository, so that nothing can be mounted.
    let other = Registry::start()?;
    let name = tag(&project, &other, "team/app:1")?;
    std::fs::remove_file(&blob)?;
    project.kiln.run(["push", &name])?.success()?;
    same(&by_skopeo(&project, &name)?, &built)?;
    std::fs::remove_file(&blob)?;
    same(&project.image()?, &built)?;
    std::fs::remove_file(&blob)?;
    let cache = format!("type=registry,ref={}/team/cache,mode=max", other.host);
    project.build(&["--cache-to", &cache])?;
    // Nobody knows any more where it came from: an error that says what to do, and that helps.
    std::fs::remove_file(&blob).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    std::fs::remove_dir_all(project.kiln.root.join("variants"))?;
    let elsewhere = tag(&project, &other, "elsewhere/app:1")?;
    let stderr = project.kiln.run(["push", &elsewhere])?.failure(1)?;
    ensure!(stderr.contains("pull or load its image anew"), "{stderr}");
    project.kiln.run(["pull", &base])?.success()?;
    project.kiln.run(["push", &elsewhere])?.success()?;
    same(&by_skopeo(&project, &elsewhere)?, &built)?;
    Ok(Outcome::Passed)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn keeps_digests() -> TestResult {
    let registry = Registry::start()?;
    for (name, arguments) in [
        ("keep/gzip:1", &[][..]),
        (
            "keep/zstd:1",
            &["--dest-compress-format", "zstd", "--dest-compress"],
        ),
        ("keep/docker:1", &["--format", "v2s2"]),
    ] {
        let base = registry.push_base("busybox:latest", name, arguments)?;
        let folder = TempFolder::new("keep")?;
        let kiln = Kiln::new(&folder)?;
        kiln.run(["pull", &base])?.success()?;
        let copy = format!("{}/copy/{name}", registry.host);
        kiln.run(["tag", &base, &copy])?.success()?;
        kiln.run(["push", &copy])?.success()?;
        let (one, other) = (registry.digest(&base)?, registry.digest(&copy)?);
        ensure!(one == other, "{name} became {other} from {one}");
    }
    Ok(Outcome::Passed)
}

fn index() -> TestResult {
    let registry = Registry::start()?;
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nCOPY both /both\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("amd64", "a"),
        ("arm64", "b"),
        ("both", "c"),
    ];
    let project = Project::with_bases("index", &[], &files)?;
    project.build(&["--platform", "linux/amd64,linux/arm64"])?;
    let name = tag(&project, &registry, "multi/app:1")?;
    project.kiln.run(["push", &name])?.success()?;
    let index = manifest(&project, &name)?;
    ensure!(
        index["mediaType"] == "application/vnd.oci.image.index.v1+json",
        "{index}"
    );
    let platforms: Vec<String> = index["manifests"]
        .as_array()
        .ok_or("an index without manifests")?
        .iter()
        .map(|entry| entry["platform"]["architecture"].to_string())
        .collect();
    ensure!(platforms == ["\"amd64\"", "\"arm64\""], "{index}");
    let archive = project.scratch("index.tar");
    skopeo(
        &project,
        &[
            "copy",
            "-q",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("oci-archive:{}:x", archive.display()),
        ],
    )?;
    ensure!(oci::read_index(&archive)?.len() == 2, "an image is missing");
    // One of them alone is a plain image.
    let one = tag(&project, &registry, "multi/one:1")?;
    project
        .kiln
        .run(["push", "--platform", "linux/arm64", &one])?
        .success()?;
    ensure!(manifest(&project, &one)?["layers"].is_array(), "not one image");
    let refused = project
        .kiln
        .run(["push", "--platform", "linux/s390x", &one])?
        .failure(1)?;
    ensure!(
        refused.contains("linux/s390x") && refused.contains("linux/arm64"),
        "{refused}"
    );
    Ok(Outcome::Passed)
}

fn all_tags() -> TestResult {
    let registry = Registry::start()?;
    let project = Project::with_bases(
        "tags",
        &[],
        &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")],
    )?;
    project.build(&[])?;
    for name in ["tags/app:1", "tags/app:2", "tags/other:3"] {
        tag(&project, &registry, name)?;
    }
    let repository = format!("{}/tags/app", registry.host);
    let told = project
        .kiln
        .run(["push", "--all-tags", &repository])?
        .success()?
        .stdout;
    ensure!(
        told.lines()
            .filter(|line| line.contains(": digest: sha256:"))
            .count()
            == 2,
        "{told}"
    );
    let tags = skopeo(
        &project,
        &[
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{repository}"),
        ],
    )?;
    ensure!(
        tags.contains("\"1\"") && tags.contains("\"2\"") && !tags.contains("\"3\""),
        "{tags}"
    );
    let both = project
        .kiln
        .run(["push", "-a", &format!("{repository}:1")])?
        .failure(2)?;
    ensure!(both.contains("tag can't be used with --all-tags/-a"), "{both}");
    Ok(Outcome::Passed)
}

/// `kiln login` with a password on standard input.
fn log_in(
    kiln: &Kiln,
    folder: &TempFolder,
    registry: &Registry,
    password: &str,
) -> Result<kiln_e2e::builder::Ended> {
    let input = folder.join("password");
    std::fs::write(&input, password)?;
    let mut command = kiln.command(["login", "-u", "kiln", "--password-stdin", &registry.host]);
    command.stdin(Stdio::from(std::fs::File::open(&input)?));
    let ended = run(&mut command);
    std::fs::remove_file(input)?;
    ended
}

fn login() -> TestResult {
    let registry = Registry::start_private()?;
    let project = Project::with_bases(
        "login",
        &[],
        &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")],
    )?;
    project.build(&[])?;
    let folder = TempFolder::new("login")?;
    let name = tag(&project, &registry, "private/app:1")?;
    let kiln = &project.kiln;
    let refused = kiln.run(["push", &name])?.failure(1)?;
    ensure!(refused.contains("401"), "the cause is not told:\n{refused}");

    let config = project.scratch("home").join(".docker/config.json");
    let wrong = log_in(kiln, &folder, &registry, "wrong-secret\n")?;
    let told = format!("{}{}", wrong.stdout, wrong.stderr);
    ensure!(
        wrong.code == Some(1) && told.contains("401") && !told.contains("wrong-secret"),
        "{told}"
    );
    ensure!(!config.exists(), "refused credentials were kept");

    let ended = log_in(kiln, &folder, &registry, "secret\n")?.success()?;
    ensure!(
        ended.stdout == "Login Succeeded\n",
        "login said {:?}",
        ended.stdout
    );
    ensure!(ended.stderr.contains("stored unencrypted"), "{}", ended.stderr);
    let mode = std::fs::metadata(&config)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "the file has mode {mode:o}");
    let again = kiln.run(["login", &registry.host])?.success()?.stdout;
    ensure!(again.contains("existing credentials"), "{again}");
    kiln.run(["push", &name])?.success()?;

    let gone = kiln.run(["logout", &registry.host])?.success()?.stdout;
    ensure!(
        gone == format!("Removing login credentials for {}\n", registry.host),
        "{gone}"
    );
    let none = kiln.run(["logout", &registry.host])?.success()?.stdout;
    ensure!(none == format!("Not logged in to {}\n", registry.host), "{none}");
    kiln.run(["push", &name])?.failure(1)?;
    with_helper(&project, &folder, &registry, &config)?;
    Ok(Outcome::Passed)
}

/// The same with a credential helper: the file has no secret.
fn with_helper(project: &Project, folder: &TempFolder, registry: &Registry, config: &Path) -> Result<()> {
    let kept = folder.join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat > {0};; get) cat {0} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};; \
         erase) rm {0};; esac\n",
        kept.display()
    );
    let helper = folder.join("docker-credential-kilntest");
    std::fs::write(&helper, script)?;
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(config, r#"{"credsStore":"kilntest","proxies":{"default":{}}}"#)?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let with_path = |arguments: &[&str]| {
        let mut command = project.kiln.command(arguments.iter().copied());
        command.env("PATH", &path);
        command
    };
    let password = folder.join("password");
    std::fs::write(&password, "secret")?;
    let mut command = with_path(&["login", "-u", "kiln", "--password-stdin", &registry.host]);
    command.stdin(Stdio::from(std::fs::File::open(&password)?));
    let ended = run(&mut command)?.success()?;
    ensure!(!ended.stderr.contains("unencrypted"), "{}", ended.stderr);
    let text = std::fs::read_to_string(config)?;
    ensure!(
        text.contains("proxies") && text.contains(&registry.host) && !text.contains("auth\""),
        "the file is {text}"
    );
    run(&mut with_path(&[
        "push",
        &format!("{}/private/app:1", registry.host),
    ]))?
    .success()?;
    run(&mut with_path(&["logout", &registry.host]))?.success()?;
    ensure!(!kept.exists(), "the helper still has the secret");
    Ok(())
}

fn build_push() -> TestResult {
    let registry = Registry::start()?;
    let mut project = Project::new("buildpush", &[("Dockerfile", DOCKERFILE), ("big", "text")])?;
    let name = format!("{}/team/built:1", registry.host);
    project.request.tag.clone_from(&name);
    let file = project.scratch("metadata.json");
    let path = file.display().to_string();
    project.build(&["--push", "--metadata-file", &path])?;
    let metadata: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let digest = registry.digest(&name)?;
    ensure!(
        metadata["containerimage.digest"] == digest,
        "{metadata} and not {digest}"
    );
    ensure!(
        metadata["containerimage.descriptor"]["digest"] == digest
            && metadata["containerimage.config.digest"] == project.image()?.id
            && metadata["image.name"]
                .as_str()
                .is_some_and(|names| names.contains(&name))
            && metadata["buildx.build.ref"].is_string(),
        "{metadata}"
    );
    same(&by_skopeo(&project, &name)?, &project.image()?)?;
    let before = registry.requests()?.len();
    project.build(&["--push"])?;
    let requests = registry.requests()?.split_off(before);
    ensure!(
        uploads(&requests)
            .iter()
            .all(|request| !request.contains("team/built")),
        "the second build moved {requests:?}"
    );
    Ok(Outcome::Passed)
}

fn outputs() -> TestResult {
    let dockerfile = "FROM scratch\nCOPY f /d/f\nCOPY --chmod=4755 f /s\n";
    let project = Project::with_bases("outputs", &[], &[("Dockerfile", dockerfile), ("f", "text")])?;
    let at = |name: &str| project.scratch(name).display().to_string();
    project.build(&["-o", &at("files")])?;
    ensure!(
        std::fs::read_to_string(project.scratch("files/d/f"))? == "text",
        "not the file"
    );
    let mode = std::fs::metadata(project.scratch("files/s"))?
        .permissions()
        .mode();
    ensure!(mode & 0o7777 == 0o4755, "mode {mode:o}");
    // A link in the destination leads nowhere outside.
    let (evil, outside) = (project.scratch("evil"), project.scratch("outside"));
    std::fs::create_dir(&evil)?;
    std::fs::create_dir(&outside)?;
    std::os::unix::fs::symlink(&outside, evil.join("d"))?;
    project.try_build(&["-o", &at("evil")])?.failure(1)?;
    ensure!(
        std::fs::read_dir(&outside)?.next().is_none(),
        "something was written outside"
    );

    let image = |archive: &str| oci::read(&project.scratch(archive));
    let several = [
        "-o",
        &format!("type=oci,dest={}", at("oci.tar")),
        "-o",
        &format!("type=oci,compression=zstd,dest={}", at("zstd.tar")),
        "-o",
        &format!("type=tar,dest={}", at("files.tar")),
        "--load",
    ];
    project.build(&several)?;
    let stored = project.image()?;
    same(&image("oci.tar")?, &stored)?;
    same(&image("zstd.tar")?, &stored)?;
    let tar = oci::read_root_tar(&project.scratch("files.tar"))?;
    ensure!(
        tar.lines(true) == stored.tree.lines(true),
        "the tar has other files"
    );
    Ok(Outcome::Passed)
}

fn errors() -> TestResult {
    let folder = TempFolder::new("errors")?;
    let kiln = Kiln::new(&folder)?;
    for (arguments, code, message) in [
        (
            &["push", "nosuch:1"][..],
            1,
            "An image does not exist locally with the tag: nosuch",
        ),
        (
            &["push", "-a", "nosuch"],
            1,
            "An image does not exist locally with the tag: docker.io/library/nosuch",
        ),
        (&["push", "a@sha256:00"], 2, "invalid name"),
        (
            &["push", "--compression", "lzma", "a"],
            2,
            "expected uncompressed, gzip or zstd",
        ),
        (
            &["push", "--compression-level", "10", "a"],
            2,
            "gzip has levels 0 to 9",
        ),
        (&["login", "--password-stdin"], 2, "requires --username"),
        (&["login", "-u", "u", "127.0.0.1:1"], 1, "non TTY device"),
        (
            &["login", "-u", "u", "-p", "hunter2", "127.0.0.1:1"],
            1,
            "login attempt to 127.0.0.1:1 failed",
        ),
    ] {
        let told = kiln.run(arguments.iter().copied())?.failure(code)?;
        ensure!(told.contains(message), "{arguments:?} told:\n{told}");
        ensure!(!told.contains("hunter2"), "the secret is told:\n{told}");
    }
    Ok(Outcome::Passed)
}
