//! Build contexts: what of them is read, what is left of them, and what an archive can and cannot do.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::project::Project;
use kiln_e2e::remote::{Repository, Server};
use kiln_e2e::server::free_port;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure, machine};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("what no step needs is never opened", nothing_else_is_opened),
        ("a named folder counts by its content", named_by_content),
        ("an archive in each compression is one context", compressions),
        ("an archive leaves nothing behind", archive_leaves_nothing),
        ("an archive cannot lead out of its folder", hostile_archive),
        (
            "a build that waits for its archive can be stopped",
            waiting_is_stopped,
        ),
        ("what a killed build unpacked is swept", killed_is_swept),
        ("an image of an OCI layout is a context", layout),
        ("a folder of a repository's branch is the context", repository),
        ("an archive at an address is the context", archive_by_http),
        (
            "a Dockerfile at an address is the whole context",
            dockerfile_by_http,
        ),
        ("-f takes an address", file_by_http),
        (
            "named contexts from repositories and addresses",
            named_from_elsewhere,
        ),
        ("contexts that cannot be had are told", elsewhere_fails),
    ];
    trial::run_all("contexts", tests)
}

/// Watches directories for being opened, and for anything in them being opened.
struct Watch(OwnedFd);

impl Watch {
    fn new(paths: &[&Path]) -> Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for path in paths {
            inotify::add_watch(&fd, *path, WatchFlags::OPEN | WatchFlags::ACCESS)?;
        }
        Ok(Self(fd))
    }

    /// What was opened since the last call.
    fn opened(&self) -> Result<Vec<String>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut opened = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => opened.push(
                    event
                        .file_name()
                        .map_or_else(|| ".".to_owned(), |name| name.to_string_lossy().into_owned()),
                ),
                Err(rustix::io::Errno::AGAIN) => return Ok(opened),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::write(path, text)?)
}

fn nothing_else_is_opened() -> TestResult {
    let dockerfile = "FROM never AS unreachable\nCOPY other/f /\nCOPY --from=unneeded f /\n\
                      FROM busybox:latest\nCOPY wanted/f /\nCOPY --from=named wanted/* /named/\n";
    let mut project = Project::new("narrow", &[("Dockerfile", dockerfile)])?;
    let (named, unneeded, unused) = (
        project.scratch("named"),
        project.scratch("unneeded"),
        project.scratch("unused"),
    );
    for folder in [&project.request.context, &named, &unneeded, &unused] {
        write(&folder.join("wanted/f"), "f")?;
        write(&folder.join("other/f"), "f")?;
        write(&folder.join("big"), "b")?;
    }
    for (name, path) in [("named", &named), ("unneeded", &unneeded), ("unused", &unused)] {
        let value = format!("{name}={}", path.display());
        project
            .request
            .arguments
            .extend(["--build-context".into(), value]);
    }
    let (main, in_named) = (project.path("other"), named.join("other"));
    let watch = Watch::new(&[&main, &in_named, &unneeded, &unused])?;
    for _ in 0..2 {
        project.build(&[])?;
        let opened = watch.opened()?;
        ensure!(opened.is_empty(), "the build opened {opened:?}");
    }
    // The watch does see what is opened.
    drop(File::open(unneeded.join("big"))?);
    ensure!(watch.opened()? == ["big"], "the watch sees nothing");
    Ok(Outcome::Passed)
}

fn named_by_content() -> TestResult {
    let dockerfile = "FROM files\nCOPY --from=files f /copied\n";
    let project = Project::new("named", &[("Dockerfile", dockerfile)])?;
    let build = |folder: &str| {
        let path = project.scratch(folder);
        write(&path.join("f"), "content")?;
        project.build(&["--build-context", &format!("files={}", path.display())])
    };
    build("secret-place-one")?;
    let missed = build("secret-place-two")?;
    ensure!(
        missed.is_empty(),
        "an equal folder elsewhere is not cached: {missed:?}"
    );
    // Neither key nor record may tell where the folder was.
    let found = run(Command::new("grep")
        .args(["-rlF", "secret-place"])
        .arg(project.kiln.root.join("records")))?;
    ensure!(found.code == Some(1), "the place is in {}", found.stdout);
    write(&project.scratch("secret-place-two/f"), "other content")?;
    let missed = project.build(&[
        "--build-context",
        &format!("files={}", project.scratch("secret-place-two").display()),
    ])?;
    ensure!(
        missed == ["COPY --from=files f /copied"],
        "a changed folder was taken for the same: {missed:?}"
    );
    Ok(Outcome::Passed)
}

/// Builds `kiln build … -` with this file as standard input.
fn build_stdin(project: &Project, archive: &Path) -> Result<Ended> {
    let mut request = project.request.clone();
    request.context = "-".into();
    let mut command = project.kiln.build_command(&request);
    run(command.stdin(File::open(archive)?))
}

/// Packs the context with these options of tar.
fn pack(project: &Project, name: &str, options: &[&str]) -> Result<std::path::PathBuf> {
    let archive = project.scratch(name);
    let mut command = Command::new("tar");
    command.arg("-C").arg(&project.request.context);
    command
        .args(["--sort=name", "-cf"])
        .arg(&archive)
        .args(options)
        .arg(".");
    run(&mut command)?.success()?;
    Ok(archive)
}

fn compressions() -> TestResult {
    let dockerfile = "FROM busybox:latest\nCOPY . /context/\n";
    let project = Project::new("compressed", &[("Dockerfile", dockerfile), ("dir/f", "f")])?;
    let mut layers = None;
    let mut tried = 0;
    for (option, program) in [
        ("--no-recursion", "tar"),
        ("--gzip", "gzip"),
        ("--bzip2", "bzip2"),
        ("--xz", "xz"),
        ("--zstd", "zstd"),
    ] {
        if machine::program(program).is_none() {
            continue;
        }
        // Nothing about the plain one asks for a program.
        let options: &[&str] = if program == "tar" { &[] } else { &[option] };
        let archive = pack(&project, &format!("context.{program}"), options)?;
        build_stdin(&project, &archive)?
            .success()
            .map_err(|error| format!("{program}: {error}"))?;
        let image = project.image()?;
        ensure!(
            image.tree.get("context/dir/f").is_some(),
            "{program}: a file is missing"
        );
        let first = layers.get_or_insert_with(|| image.diff_ids.clone());
        ensure!(*first == image.diff_ids, "{program}: other layers");
        tried += 1;
    }
    ensure!(tried >= 2, "no program to compress with");
    Ok(Outcome::Passed)
}

/// What lies in the store's temporary area beside downloads to be resumed, and which file hashes are remembered.
fn leftovers(project: &Project) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in ["tmp", "hashes"] {
        for entry in std::fs::read_dir(project.kiln.root.join(folder))? {
            names.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    names.retain(|name| name != "tmp/partial");
    Ok(names)
}

fn archive_leaves_nothing() -> TestResult {
    let dockerfile = "FROM busybox:latest\nCOPY . /context/\nRUN test -f /context/f\n";
    let project = Project::new("leaves", &[("Dockerfile", dockerfile), ("f", "f")])?;
    let archive = pack(&project, "context.tar", &[])?;
    build_stdin(&project, &archive)?.success()?;
    let left = leftovers(&project)?;
    ensure!(left.is_empty(), "a build left {left:?}");
    project.write("Dockerfile", "FROM busybox:latest\nCOPY missing /\n")?;
    let stderr = build_stdin(&project, &pack(&project, "failing.tar", &[])?)?.failure(1)?;
    ensure!(stderr.contains("not found in the build context"), "{stderr}");
    let left = leftovers(&project)?;
    ensure!(left.is_empty(), "a failed build left {left:?}");
    Ok(Outcome::Passed)
}

/// A tar of entries that a careful program would not write.
fn hostile(entries: &[(&str, tar::EntryType, &str)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        // The safe setters refuse such names.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        let data = if *kind == tar::EntryType::Regular {
            *content
        } else {
            ""
        };
        if data.is_empty() {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes())?;
    }
    Ok(builder.into_inner()?)
}

/// Path, kind and link target of an archive's member.
type Member<'a> = (&'a str, tar::EntryType, &'a str);

fn hostile_archive() -> TestResult {
    use tar::EntryType::{Link, Regular, Symlink};
    let project = Project::new("hostile", &[])?;
    let outside = project.scratch("outside");
    write(&outside.join("secret"), "secret")?;
    let (there, secret) = (outside.display().to_string(), outside.join("secret"));
    let secret = secret.display().to_string();
    let dockerfile = ("Dockerfile", Regular, "FROM busybox:latest\nCOPY . /context/\n");
    let absolute = format!("{there}/absolute");
    let attempts: [(&str, Vec<Member<'_>>); 6] = [
        (
            "climbs",
            vec![dockerfile, ("../../../../outside/climbed", Regular, "x")],
        ),
        ("absolute", vec![dockerfile, (&absolute, Regular, "x")]),
        (
            "through a link",
            vec![dockerfile, ("l", Symlink, &there), ("l/through", Regular, "x")],
        ),
        ("hard link", vec![dockerfile, ("h", Link, &secret)]),
        ("Dockerfile is a link", vec![("Dockerfile", Symlink, &secret)]),
        (
            "copies a link",
            vec![
                ("Dockerfile", Regular, "FROM busybox:latest\nCOPY l /copied\n"),
                ("l", Symlink, &secret),
            ],
        ),
    ];
    for (what, entries) in attempts {
        let archive = project.scratch("hostile.tar");
        std::fs::write(&archive, hostile(&entries)?)?;
        let ended = build_stdin(&project, &archive)?;
        ensure!(!ended.stderr.contains("panicked at"), "{what}: {}", ended.stderr);
        let names: Vec<_> = std::fs::read_dir(&outside)?.collect::<std::io::Result<_>>()?;
        ensure!(names.len() == 1, "{what}: something was made outside: {names:?}");
        if ended.code == Some(0) {
            let shown = project.shell("cat /context/h /copied /context/l 2>/dev/null || true")?;
            ensure!(
                !shown.contains("secret"),
                "{what}: a file from outside is in the image"
            );
        }
        ensure!(!ended.stderr.contains("secret\n"), "{what}: {}", ended.stderr);
        ensure!(leftovers(&project)?.is_empty(), "{what}: something is left");
    }
    Ok(Outcome::Passed)
}

/// A build that has got the beginning of an archive and waits for the rest.
fn waiting(project: &Project) -> Result<Child> {
    let mut request = project.request.clone();
    request.context = "-".into();
    let mut command = project.kiln.build_command(&request);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let start = hostile(&[("f", tar::EntryType::Regular, &"f".repeat(100_000))])?;
    let stdin = child.stdin.as_mut().ok_or("no standard input")?;
    stdin.write_all(&start[..60_000])?;
    stdin.flush()?;
    let begun = Instant::now();
    while leftovers(project)?.is_empty() {
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "the build does not begin"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

fn waiting_is_stopped() -> TestResult {
    let project = Project::new("waiting", &[])?;
    let mut child = waiting(&project)?;
    let stdin = child.stdin.take();
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let ended = Ended::from(child.wait_with_output()?);
    drop(stdin);
    ensure!(ended.code == Some(130), "{:?}: {}", ended.code, ended.stderr);
    let left = leftovers(&project)?;
    ensure!(left.is_empty(), "a stopped build left {left:?}");
    Ok(Outcome::Passed)
}

fn killed_is_swept() -> TestResult {
    let project = Project::new("killed", &[("Dockerfile", "FROM busybox:latest\n")])?;
    let mut child = waiting(&project)?;
    child.kill()?;
    child.wait()?;
    ensure!(!leftovers(&project)?.is_empty(), "nothing was left to be swept");
    project.build(&[])?;
    let mut left = leftovers(&project)?;
    left.retain(|name| name.starts_with("tmp/"));
    ensure!(left.is_empty(), "the next build did not sweep {left:?}");
    Ok(Outcome::Passed)
}

fn layout() -> TestResult {
    let dockerfile = "FROM base\nRUN echo on the layout >/out\n";
    let project = Project::new("layout", &[("Dockerfile", dockerfile)])?;
    let (archive, folder) = (project.scratch("layout.tar"), project.scratch("layout"));
    project
        .kiln
        .run(["tag", "busybox:latest", "base:v1"])?
        .success()?;
    let mut save = project.kiln.command(["save", "--format", "oci", "-o"]);
    run(save.arg(&archive).args(["base:v1", "busybox:latest"]))?.success()?;
    std::fs::create_dir(&folder)?;
    let mut unpack = Command::new("tar");
    run(unpack.arg("-C").arg(&folder).arg("-xf").arg(&archive))?.success()?;
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"].as_str().ok_or("no digest")?;

    // A store that does not have the image.
    let other = Project::with_bases("layout-other", &[], &[("Dockerfile", dockerfile)])?;
    let context = |suffix: &str| format!("base=oci-layout://{}{suffix}", folder.display());
    for suffix in [
        ":v1".to_owned(),
        format!("@{digest}"),
        format!(":v1@{digest}"),
        String::new(),
    ] {
        let missed = other.build(&["--build-context", &context(&suffix)])?;
        let first = suffix == ":v1";
        ensure!(missed.is_empty() != first, "{suffix:?}: ran {missed:?}");
        ensure!(
            other.shell("cat /out")? == "on the layout\n",
            "{suffix:?}: a wrong image"
        );
    }
    let images = other.kiln.run(["images"])?.success()?.stdout;
    ensure!(
        !images.contains("base"),
        "the layout's image got a name:\n{images}"
    );
    let stderr = other
        .try_build(&["--build-context", &context(":v9")])?
        .failure(1)?;
    ensure!(stderr.contains("no image \"v9\"; it has latest, v1"), "{stderr}");

    // A blob that is not what its name says does no harm.
    let blobs = folder.join("blobs/sha256");
    for entry in std::fs::read_dir(&blobs)? {
        let path = entry?.path();
        if path.metadata()?.len() > 100_000 {
            let mut file = File::options().append(true).open(&path)?;
            file.write_all(b"more")?;
        }
    }
    let third = Project::with_bases("layout-third", &[], &[("Dockerfile", dockerfile)])?;
    let stderr = third
        .try_build(&["--build-context", &context(":v1")])?
        .failure(1)?;
    ensure!(stderr.contains("Dockerfile:1"), "{stderr}");
    third.kiln.run(["cache", "verify"])?.success()?;
    std::fs::remove_dir_all(&folder)?;
    let stderr = third.try_build(&["--build-context", &context("")])?.failure(1)?;
    ensure!(stderr.contains("OCI layout"), "{stderr}");
    Ok(Outcome::Passed)
}

/// A project that is built from somewhere else than its folder.
fn elsewhere(name: &str, context: &str) -> Result<Project> {
    let mut project = Project::new(name, &[])?;
    project.request.context = context.into();
    Ok(project)
}

fn repository() -> TestResult {
    if machine::program("git").is_none() {
        return Ok(Outcome::Skipped("needs git".to_owned()));
    }
    let repository = Repository::start("contexts-repository")?;
    write(&repository.path("Dockerfile"), "FROM never\n")?;
    write(
        &repository.path("sub/Dockerfile"),
        "FROM busybox\nCOPY . /all/\nRUN cat /all/f\n",
    )?;
    write(&repository.path("sub/other"), "FROM busybox\nCOPY f /other\n")?;
    write(&repository.path("sub/f"), "main\n")?;
    write(&repository.path("sub/.dockerignore"), "*.log\n")?;
    write(&repository.path("sub/x.log"), "x\n")?;
    repository.commit()?;
    repository.git(&["checkout", "-q", "-b", "feature"])?;
    write(&repository.path("sub/f"), "feature\n")?;
    repository.commit()?;
    repository.git(&["checkout", "-q", "main"])?;

    let url = repository.url();
    let project = elsewhere("from-repository", &format!("{url}#feature:sub"))?;
    let first = project.build(&[])?;
    ensure!(first == ["COPY . /all/", "RUN cat /all/f"], "ran {first:?}");
    let shown = project.shell("cd /all && find . | sort && cat f")?;
    ensure!(
        shown == ".\n./.dockerignore\n./Dockerfile\n./f\n./other\nfeature\n",
        "the image holds {shown}"
    );
    // What counts is what the folder holds, not which commit it is of.
    write(&repository.path("beside"), "x\n")?;
    repository.git(&["checkout", "-q", "feature"])?;
    repository.commit()?;
    let again = project.build(&[])?;
    ensure!(
        again.is_empty(),
        "another commit of the same folder ran {again:?}"
    );

    let mut project = elsewhere("from-repository-main", &format!("{url}#main:sub"))?;
    project.request.arguments = vec!["-f".into(), "other".into()];
    project.build(&[])?;
    ensure!(
        project.shell("cat /other")? == "main\n",
        "another branch was built"
    );
    Ok(Outcome::Passed)
}

/// A gzipped tar of regular files.
fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::default(),
    ));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes())?;
    }
    Ok(builder.into_inner()?.finish()?)
}

fn archive_by_http() -> TestResult {
    let server = Server::start()?;
    let tag = [("ETag", "\"v1\"")];
    let files = |content| {
        archive(&[
            ("Dockerfile", "FROM busybox\nCOPY dir/f /f\n"),
            ("dir/f", content),
            ("docker/second", "FROM busybox\nCOPY dir /second\n"),
        ])
    };
    server.put("/context.tar.gz", files("one\n")?, &tag);
    let project = elsewhere("from-archive", &server.url("/context.tar.gz"))?;
    let first = project.build(&[])?;
    ensure!(first == ["COPY dir/f /f"], "ran {first:?}");
    ensure!(project.shell("cat /f")? == "one\n", "the image has another file");
    drop(server.requests());
    let again = project.build(&[])?;
    ensure!(again.is_empty(), "the second build ran {again:?}");
    let requests = server.requests();
    ensure!(
        requests == ["HEAD /context.tar.gz"],
        "the second build asked for {requests:?}"
    );
    project.build(&["-f", "docker/second"])?;
    ensure!(
        project.shell("cat /second/f")? == "one\n",
        "-f names no file of the archive"
    );
    server.put("/context.tar.gz", files("two\n")?, &[("ETag", "\"v2\"")]);
    let changed = project.build(&[])?;
    ensure!(changed == ["COPY dir/f /f"], "another archive: {changed:?}");
    ensure!(project.shell("cat /f")? == "two\n", "the image has the old file");
    let mut left = leftovers(&project)?;
    left.retain(|name| name.starts_with("tmp/"));
    ensure!(left.is_empty(), "a build left {left:?}");
    Ok(Outcome::Passed)
}

fn dockerfile_by_http() -> TestResult {
    let server = Server::start()?;
    server.put("/build", "FROM busybox\nCOPY <<E /f\nplain\nE\n", &[]);
    let project = elsewhere("from-dockerfile", &server.url("/build"))?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /f")? == "plain\n",
        "the image has another file"
    );
    server.put("/build", "FROM busybox\nCOPY f /f\n", &[]);
    let stderr = project.try_build(&[])?.failure(1)?;
    ensure!(stderr.contains("not found in the build context"), "{stderr}");
    Ok(Outcome::Passed)
}

fn file_by_http() -> TestResult {
    let server = Server::start()?;
    server.put("/d/Dockerfile", "FROM busybox\nCOPY f /from-url\n", &[]);
    let files = [("Dockerfile", "FROM never\n"), ("f", "local\n")];
    let project = Project::new("file-by-http", &files)?;
    project.build(&["-f", &server.url("/d/Dockerfile")])?;
    ensure!(project.shell("cat /from-url")? == "local\n", "another file");
    let gone = server.url("/none");
    let stderr = project.try_build(&["-f", &gone])?.failure(1)?;
    ensure!(
        stderr.contains("not found (status 404)") && stderr.contains(&gone),
        "{stderr}"
    );
    Ok(Outcome::Passed)
}

fn named_from_elsewhere() -> TestResult {
    let server = Server::start()?;
    server.put("/files.tgz", archive(&[("dir/f", "of an archive\n")])?, &[]);
    server.put("/lone", "of a file\n", &[]);
    let dockerfile = "FROM busybox\nCOPY --from=files dir/f /archive\nCOPY --from=lone lone /lone\n\
        RUN --mount=from=files,target=/m cat /m/dir/f > /mounted\n";
    let project = Project::new("named-elsewhere", &[("Dockerfile", dockerfile)])?;
    let (files, lone) = (
        format!("files={}", server.url("/files.tgz")),
        format!("lone={}", server.url("/lone")),
    );
    let unused = format!("unused={}", server.url("/unused"));
    let contexts = ["--build-context", &files, "--build-context", &lone];
    project.build(&[&contexts[..], &["--build-context", &unused]].concat())?;
    let shown = project.shell("cat /archive /lone /mounted")?;
    ensure!(
        shown == "of an archive\nof a file\nof an archive\n",
        "the image holds {shown}"
    );
    let requests = server.requests();
    ensure!(
        requests.iter().all(|request| !request.contains("/unused")),
        "what no step needs was fetched: {requests:?}"
    );
    let again = project.build(&contexts)?;
    ensure!(again.is_empty(), "the second build ran {again:?}");
    if machine::program("git").is_none() {
        return Ok(Outcome::Skipped(
            "needs git for named contexts from repositories".to_owned(),
        ));
    }
    let repository = Repository::start("named-repository")?;
    write(&repository.path("sub/f"), "of a repository\n")?;
    repository.commit()?;
    project.write("Dockerfile", "FROM busybox\nCOPY --from=code f /f\n")?;
    let code = format!("code={}#main:sub", repository.url());
    project.build(&["--build-context", &code])?;
    ensure!(project.shell("cat /f")? == "of a repository\n", "another file");
    Ok(Outcome::Passed)
}

fn elsewhere_fails() -> TestResult {
    let server = Server::start()?;
    server.put(
        "/damaged.tgz",
        &archive(&[("Dockerfile", "FROM busybox\n")])?[..40],
        &[],
    );
    server.put("/empty.tgz", archive(&[("f", "f")])?, &[]);
    let gone = format!("git://127.0.0.1:{}/r.git", free_port()?);
    for (context, words) in [
        (server.url("/none"), "not found (status 404)"),
        (server.url("/damaged.tgz"), "/damaged.tgz"),
        (server.url("/empty.tgz"), "no Dockerfile"),
        (gone.clone(), gone.as_str()),
    ] {
        if context.starts_with("git:") && machine::program("git").is_none() {
            return Ok(Outcome::Skipped(
                "needs git for a repository that is not there".to_owned(),
            ));
        }
        let project = elsewhere("elsewhere-fails", &context)?;
        let stderr = project.try_build(&[])?.failure(1)?;
        ensure!(stderr.contains(words), "{context}: {stderr}");
        let left = leftovers(&project)?;
        ensure!(left.is_empty(), "{context}: a failed build left {left:?}");
    }
    Ok(Outcome::Passed)
}
