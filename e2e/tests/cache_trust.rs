//! How far the cache is trusted: never a wrong hit, results that age, results that are made once more and compared,
//! steps that are kept because nothing before them changed; and builds that push what is only in a registry.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::remote::Server;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() -> ExitCode {
    let with_registry: &[Named] = &[
        (
            "a cached build that pushes downloads no layer",
            push_without_layers,
        ),
        (
            "to another registry blobs go on and are not unpacked",
            push_elsewhere,
        ),
        ("a lost blob is a miss", lost_blob),
        ("nothing is downloaded for nothing", cache_only),
        ("an index of layers that are elsewhere", lazy_index),
        ("another form needs the files", forced_compression),
        ("an image below stays where it is", image_below),
    ];
    let others: &[Named] = &[
        ("bytes rewritten in place are seen", rewritten_in_place),
        ("files swapped by rename are seen", swapped_files),
        ("a file that changes while it is read", changing_file),
        ("what a power loss may have torn is made anew", power_loss),
        ("a filter of unknown stages", unknown_stage),
        ("a filter's reasons", filter_reasons),
        ("results age", ttl),
        ("a result that is found again is as old as it is", ttl_of_kept),
        ("a cached step is made once more", verify),
        ("a part of the cached steps", verify_some),
        ("a difference may be a failure", verify_fail),
        ("a damaged layer is told", verify_damage),
        ("what cannot be made once more", verify_secret),
        ("early cutoff after every kind of step", cutoff),
    ];
    let mut trials: Vec<_> = others
        .iter()
        .map(|&(name, test)| trial::test(format!("cache-trust/{name}"), test))
        .collect();
    trials.extend(with_registry.iter().map(|&(name, test)| {
        trial::test(format!("cache-trust/{name}"), move || {
            match Registry::obstacle() {
                Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
                None => test(),
            }
        })
    }));
    trial::run(trials)
}

/// A registry with a base image and the cache of an app, and the machine that made it.
struct Site {
    registry: Registry,
    base: String,
    first: Project,
}

const APP: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\n";
const FILES: [(&str, &str); 2] = [("requirements.txt", "b\na\n"), ("app.py", "one\n")];

impl Site {
    /// `more` are attributes of the cache.
    fn new(more: &str) -> Result<Self> {
        let registry = Registry::start()?;
        let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
        let first = app("first", &base)?;
        let to = format!("type=registry,ref={}/cache:1,mode=max{more}", registry.host);
        first.build(&["--cache-to", &to])?;
        Ok(Self {
            registry,
            base,
            first,
        })
    }

    /// A machine with an empty store whose image has this name.
    fn machine(&self, tag: String) -> Result<Project> {
        let mut project = app("second", &self.base)?;
        project.request.tag = tag;
        Ok(project)
    }

    fn from(&self) -> String {
        format!("type=registry,ref={}/cache:1", self.registry.host)
    }

    /// The digests of the blobs of all layers: the cache's and the base's.
    fn layers(&self) -> Result<Vec<String>> {
        let mut digests = Vec::new();
        for name in [format!("{}/cache:1", self.registry.host), self.base.clone()] {
            let manifest = self.registry.manifest(&name)?;
            let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
            let layers = layers
                .iter()
                .filter(|blob| !text(&blob["mediaType"]).contains("listing"));
            digests.extend(layers.map(|blob| text(&blob["digest"])));
        }
        ensure!(digests.len() == 5, "layers: {digests:?}");
        Ok(digests)
    }

    /// The layers that were downloaded since the requests were taken last.
    fn downloaded(&self) -> Result<Vec<String>> {
        self.downloads(&self.registry.take_requests()?)
    }

    fn downloads(&self, requests: &[String]) -> Result<Vec<String>> {
        let is_download = |digest: &String| {
            requests
                .iter()
                .any(|request| request.starts_with("GET ") && request.ends_with(digest.as_str()))
        };
        Ok(self.layers()?.into_iter().filter(is_download).collect())
    }
}

fn app(name: &str, base: &str) -> Result<Project> {
    let dockerfile = format!("FROM {base}\n{APP}");
    let mut files = vec![
        ("Dockerfile", dockerfile.as_str()),
        (".dockerignore", "Dockerfile\n"),
    ];
    files.extend(FILES);
    Project::with_bases(name, &[], &files)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Builds and demands that the steps which ran are exactly these.
fn build(project: &Project, arguments: &[&str], ran: &[&str]) -> Result<Ended> {
    let ended = project.try_build(arguments)?.success()?;
    let mut found = progress::not_cached(&ended.stderr);
    // Steps that do not need each other run in any order.
    let mut ran = ran.to_vec();
    found.sort_unstable();
    ran.sort_unstable();
    ensure!(
        found == ran,
        "not cached: {found:?}, expected {ran:?}\n{}",
        ended.stderr
    );
    Ok(ended)
}

fn says(ended: &Ended, told: &str) -> Result<()> {
    ensure!(
        ended.stderr.contains(told),
        "it does not say {told:?}:\n{}",
        ended.stderr
    );
    Ok(())
}

/// The layers of a store.
fn stored_layers(project: &Project) -> Result<usize> {
    let folder = project.kiln.root.join("layers");
    if !folder.exists() {
        return Ok(0);
    }
    Ok(std::fs::read_dir(folder)?.count())
}

fn id(project: &Project) -> Result<String> {
    let ended = project.kiln.run(["inspect", &project.request.tag])?.success()?;
    let shown: Value = serde_json::from_str(&ended.stdout)?;
    Ok(text(&shown[0]["Id"]))
}

fn push_without_layers() -> TestResult {
    let site = Site::new("")?;
    let name = format!("{}/app:1", site.registry.host);
    let second = site.machine(name.clone())?;
    // An image of that name that is here, and is not what the name will stand for.
    let old = TempFolder::new("old")?;
    std::fs::write(old.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /old\n")?;
    let mut request = second.request.clone();
    old.path().clone_into(&mut request.context);
    run(&mut second.kiln.build_command(&request))?.success()?;
    let layers = stored_layers(&second)?;
    site.registry.take_requests()?;
    let ended = build(&second, &["--push", "--cache-from", &site.from()], &[])?;
    says(&ended, "not kept here: 5 layers are only in a registry")?;
    let requests = site.registry.take_requests()?;
    let downloaded = site.downloads(&requests)?;
    ensure!(downloaded.is_empty(), "downloaded: {downloaded:?}");
    // One after the other of the layers is mounted; what is uploaded is the configuration.
    let count = |start: &str, part: &str| {
        let found = requests.iter().filter(|request| request.starts_with(start));
        found.filter(|request| request.contains(part)).count()
    };
    ensure!(
        count("POST /v2/app/", "?mount=") == 5 && count("PUT /v2/app/blobs/", "digest=") == 1,
        "{requests:#?}"
    );
    ensure!(
        stored_layers(&second)? == layers,
        "layers are in the store: {}",
        stored_layers(&second)?
    );
    // It is the very image, whole, and the same as where its layers are.
    let manifest = site.registry.manifest(&name)?;
    ensure!(
        text(&manifest["config"]["digest"]) == id(&site.first)?,
        "the pushed image is another one: {manifest}"
    );
    // The name is not that of the old image any more: whoever wants the new one gets it.
    second
        .kiln
        .run(["run", "--rm", "--pull", "never", &name, "true"])?
        .failure(125)?;
    let told = second.kiln.run(["save", "-o", "/dev/null", &name])?.failure(1)?;
    ensure!(told.contains("kiln pull"), "{told}");
    let token = second.shell("cat /app/token")?;
    ensure!(token == site.first.shell("cat /app/token")?, "another token");
    second.kiln.run(["cache", "verify"])?.success()?;
    // Again, from what is here now.
    site.registry.take_requests()?;
    build(&second, &["--push", "--cache-from", &site.from()], &[])?;
    ensure!(site.downloaded()?.is_empty(), "layers were downloaded");
    Ok(Outcome::Passed)
}

fn push_elsewhere() -> TestResult {
    let site = Site::new("")?;
    let other = Registry::start()?;
    let second = site.machine(format!("{}/deep/app:1", other.host))?;
    site.registry.take_requests()?;
    let metadata = second.scratch("metadata");
    let metadata = metadata.to_string_lossy();
    let arguments = [
        "--push",
        "--metadata-file",
        &metadata,
        "--cache-from",
        &site.from(),
    ];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.len() == 5, "not all layers were copied");
    ensure!(stored_layers(&second)? == 0, "layers were unpacked");
    let written: Value = serde_json::from_slice(&std::fs::read(&*metadata)?)?;
    let digest = other.raw_digest(&second.request.tag)?;
    ensure!(
        text(&written["containerimage.digest"]) == digest,
        "{digest}: {written}"
    );
    let token = second.shell("cat /app/token")?;
    ensure!(token == site.first.shell("cat /app/token")?, "another token");
    second.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn lost_blob() -> TestResult {
    let site = Site::new("")?;
    let cache = format!("{}/cache:1", site.registry.host);
    let manifest = site.registry.manifest(&cache)?;
    let document = site.registry.blob_path(&text(&manifest["config"]["digest"]));
    let document: Value = serde_json::from_slice(&std::fs::read(document)?)?;
    let records = document["records"].as_array().cloned().unwrap_or_default();
    let install = records
        .iter()
        .find(|record| text(&record["step"]).contains("sort requirements"))
        .ok_or("no record of the step")?;
    let last = install["output"].as_array().and_then(|output| output.last());
    let at = usize::try_from(last.and_then(Value::as_u64).ok_or("no layer")?)?;
    let blob = text(&document["layers"][at]["blob"]);
    std::fs::remove_file(site.registry.blob_path(&blob))?;
    let name = format!("{}/app:1", site.registry.host);
    let second = site.machine(name.clone())?;
    let ended = second
        .try_build(&["--push", "--cache-from", &site.from()])?
        .success()?;
    says(&ended, "cannot be used")?;
    let third = site.machine(name)?;
    ensure!(
        third.shell("cat /app/token")? != site.first.shell("cat /app/token")?,
        "the step did not run"
    );
    let shown = third.shell("cat /app/installed /app/app.py")?;
    ensure!(shown == "a\nb\none\n", "the pushed image has {shown:?}");
    Ok(Outcome::Passed)
}

fn cache_only() -> TestResult {
    let site = Site::new("")?;
    let second = site.machine("app:1".to_owned())?;
    site.registry.take_requests()?;
    let id_file = second.scratch("id");
    let id_file = id_file.to_string_lossy();
    let arguments = [
        "-o",
        "type=cacheonly",
        "--iidfile",
        &id_file,
        "--cache-from",
        &site.from(),
    ];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.is_empty(), "layers were downloaded");
    ensure!(
        std::fs::read_to_string(&*id_file)? == id(&site.first)?,
        "another image"
    );
    // With an output that has files, they come.
    let out = second.scratch("out");
    let dest = format!("type=local,dest={}", out.display());
    build(
        &second,
        &["-o", "type=cacheonly", "-o", &dest, "--cache-from", &site.from()],
        &[],
    )?;
    ensure!(
        std::fs::read_to_string(out.join("app/app.py"))? == "one\n",
        "no file"
    );
    Ok(Outcome::Passed)
}

fn lazy_index() -> TestResult {
    let registry = Registry::start()?;
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let files = [("Dockerfile", dockerfile), ("amd64", "one\n"), ("arm64", "two\n")];
    let cache = format!("type=registry,ref={}/cache:1", registry.host);
    let platforms = "linux/amd64,linux/arm64";
    let first = Project::with_bases("first", &[], &files)?;
    first.build(&["--platform", platforms, "--cache-to", &cache])?;
    let mut second = Project::with_bases("second", &[], &files)?;
    second.request.tag = format!("{}/app:1", registry.host);
    let arguments = ["--platform", platforms, "--push", "--cache-from", &cache];
    let ended = build(&second, &arguments, &[])?;
    says(&ended, "not kept here: 2 layers are only in a registry")?;
    ensure!(stored_layers(&second)? == 0, "layers are here");
    let index = registry.manifest(&second.request.tag)?;
    ensure!(
        index["manifests"].as_array().map_or(0, Vec::len) == 2,
        "no index of two: {index}"
    );
    let arguments = ["pull", "--platform", "linux/arm64", &second.request.tag];
    second.kiln.run(arguments)?.success()?;
    let image = second.image()?;
    let lines = image.tree.lines(false);
    ensure!(lines.contains_key(b"arch".as_slice()), "{lines:?}");
    Ok(Outcome::Passed)
}

fn forced_compression() -> TestResult {
    let site = Site::new("")?;
    let second = site.machine(format!("{}/app:1", site.registry.host))?;
    site.registry.take_requests()?;
    let output = "type=image,push=true,compression=zstd,force-compression=true";
    let arguments = ["-o", output, "--cache-from", &site.from()];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.len() == 5, "the files were not fetched");
    let manifest = site.registry.manifest(&second.request.tag)?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    ensure!(
        layers
            .iter()
            .all(|layer| text(&layer["mediaType"]).ends_with("zstd")),
        "{manifest}"
    );
    // An image whose files were needed is kept.
    ensure!(id(&second)? == id(&site.first)?, "another image, or none");
    Ok(Outcome::Passed)
}

/// What stands on an image and does not look at it needs nothing of it, whether it is cached or not.
fn image_below() -> TestResult {
    let registry = Registry::start()?;
    let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
    let layers = registry.manifest(&base)?["layers"].clone();
    let layers: Vec<String> = layers
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| text(&layer["digest"]))
        .collect();
    ensure!(!layers.is_empty(), "the base has no layer");
    let table = [
        ("labels", format!("FROM {base}\nLABEL a=b\n"), &[][..]),
        (
            "linked",
            format!("FROM {base}\nCOPY --link app.py /app.py\nCOPY --link --chmod=600 app.py /other\n"),
            &[
                "COPY --link app.py /app.py",
                "COPY --link --chmod=600 app.py /other",
            ][..],
        ),
    ];
    for (name, dockerfile, ran) in table {
        let files = [("Dockerfile", dockerfile.as_str()), ("app.py", "one\n")];
        let mut project = Project::with_bases(name, &[], &files)?;
        project.request.tag = format!("{}/{name}:1", registry.host);
        registry.take_requests()?;
        build(&project, &["--push"], ran)?;
        let requests = registry.take_requests()?;
        let fetched = requests.iter().any(|request| {
            request.starts_with("GET ") && layers.iter().any(|layer| request.ends_with(layer.as_str()))
        });
        ensure!(!fetched, "{name}: the base was downloaded: {requests:#?}");
        // It runs, from the registry; and where its files are needed they come.
        project.shell("true")?;
        let local = Project::with_bases(name, &[], &files)?;
        build(&local, &[], ran)?;
        let (pushed, kept) = (id(&project)?, id(&local)?);
        ensure!(
            !ran.is_empty() || pushed == kept,
            "{name}: {pushed} was pushed, {kept} is kept"
        );
        local.shell("true")?;
        // On the image a step that looks at it runs as ever.
        project.write(
            "Dockerfile",
            &format!("{dockerfile}RUN cat /etc/passwd > /copy\n"),
        )?;
        build(&project, &["--push"], &["RUN cat /etc/passwd > /copy"])?;
        project.shell("cat /copy")?;
    }
    Ok(Outcome::Passed)
}

/// What a build of `FROM scratch, COPY data` has in that file.
fn built_data(project: &Project) -> Result<String> {
    let out = project.scratch("out");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let dest = format!("type=local,dest={}", out.display());
    project.try_build(&["-o", &dest])?.success()?;
    Ok(std::fs::read_to_string(out.join("data"))?)
}

fn data_project(name: &str) -> Result<(Project, PathBuf)> {
    let dockerfile = "FROM scratch\nCOPY data /data\n";
    let project = Project::with_bases(name, &[], &[("Dockerfile", dockerfile), ("data", "bytes 00\n")])?;
    let path = project.path("data");
    Ok((project, path))
}

/// The same file, the same size, the same modification time, other bytes; at once after a build, when the clock of the
/// file system may not have moved, and later, when what is known of the file is believed.
fn rewritten_in_place() -> TestResult {
    let (project, path) = data_project("in-place")?;
    let before = path.metadata()?;
    for round in 0..12 {
        let bytes = format!("bytes {round:02}\n");
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(bytes.as_bytes())?;
        file.set_modified(before.modified()?)?;
        drop(file);
        let now = path.metadata()?;
        ensure!(
            (now.ino(), now.size(), now.mtime(), now.mtime_nsec())
                == (before.ino(), before.size(), before.mtime(), before.mtime_nsec()),
            "the file is not what it was but for its bytes"
        );
        let found = built_data(&project)?;
        ensure!(found == bytes, "round {round}: {found:?} was built of {bytes:?}");
        if round % 4 == 3 {
            // Long enough for the file to have settled.
            std::thread::sleep(Duration::from_millis(2_500));
            let again = built_data(&project)?;
            ensure!(again == bytes, "round {round}, later: {again:?}");
        }
    }
    Ok(Outcome::Passed)
}

/// Two files of equal size and time trade their names, and one takes the inode number of the other.
fn swapped_files() -> TestResult {
    let (project, path) = data_project("swapped")?;
    let other = project.path("other");
    std::fs::write(&other, "bytes 01\n")?;
    let time = path.metadata()?.modified()?;
    File::options().write(true).open(&other)?.set_modified(time)?;
    ensure!(built_data(&project)? == "bytes 00\n", "the first build");
    // Files settle, and are remembered.
    std::thread::sleep(Duration::from_millis(2_500));
    ensure!(built_data(&project)? == "bytes 00\n", "the second build");
    let aside = project.path("aside");
    std::fs::rename(&path, &aside)?;
    std::fs::rename(&other, &path)?;
    std::fs::rename(&aside, &other)?;
    let found = built_data(&project)?;
    ensure!(found == "bytes 01\n", "after the swap: {found:?}");
    // Gone and made anew: most file systems give the number of the inode that was freed last.
    for round in 2..8 {
        let bytes = format!("bytes {round:02}\n");
        std::fs::remove_file(&path)?;
        std::fs::write(&path, &bytes)?;
        File::options().write(true).open(&path)?.set_modified(time)?;
        let found = built_data(&project)?;
        ensure!(found == bytes, "round {round}: {found:?}");
    }
    Ok(Outcome::Passed)
}

/// Somebody writes to a file all the time. A build may give up, and must not keep what it did not read.
fn changing_file() -> TestResult {
    let dockerfile = "FROM scratch\nCOPY data /data\n";
    let project = Project::with_bases("changing", &[], &[("Dockerfile", dockerfile)])?;
    let path = project.path("data");
    let blocks = [vec![b'a'; 1 << 20], vec![b'b'; 1 << 20]];
    std::fs::write(&path, &blocks[0])?;
    let stop = AtomicBool::new(false);
    let (mut built, mut refused) = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let file = OpenOptions::new().write(true).open(&path)?;
            for block in blocks.iter().cycle() {
                for (at, piece) in block.chunks(4096).enumerate() {
                    file.write_all_at(piece, at as u64 * 4096)?;
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            Ok(())
        });
        let mut builds = || -> Result<()> {
            for _ in 0..8 {
                let ended = project.try_build(&[])?;
                if ended.code == Some(0) {
                    built += 1;
                    continue;
                }
                let told = ended.failure(1)?;
                ensure!(told.contains("chang"), "it fails for something else:\n{told}");
                refused += 1;
            }
            Ok(())
        };
        let result = builds();
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        result
    })?;
    ensure!(built + refused == 8, "{built} and {refused}");
    // Every layer has the files that its listing, and so its key, speaks of.
    project.kiln.run(["cache", "verify"])?.success()?;
    let now = std::fs::read_to_string(&path)?;
    ensure!(built_data(&project)? == now, "the last build has other bytes");
    Ok(Outcome::Passed)
}

/// A layer that was not on disk when the power went: what is left of it may be anything, and is not looked at.
fn power_loss() -> TestResult {
    let Some(unshare) = machine::program("unshare") else {
        return Ok(Outcome::Skipped("needs unshare".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root".to_owned()));
    }
    // A build that fails leaves its good steps behind, and nobody waits for the disk.
    let dockerfile = "FROM busybox:latest\nRUN echo right > /made\nRUN false\n";
    let project = Project::new("power-loss", &[("Dockerfile", dockerfile)])?;
    project.try_build(&[])?.failure(1)?;
    let good = "FROM busybox:latest\nRUN echo right > /made\n";
    project.write("Dockerfile", good)?;
    let mut torn = 0;
    for layer in std::fs::read_dir(project.kiln.root.join("layers"))? {
        let file = layer?.path().join("diff/made");
        if file.exists() {
            std::fs::write(&file, "\0\0\0\0\0\0")?;
            torn += 1;
        }
    }
    ensure!(torn == 1, "{torn} layers have the file");
    // The same kernel, of which a file says that it was started anew.
    let boot = project.scratch("boot-id");
    std::fs::write(&boot, "01234567-89ab-cdef-0123-456789abcdef\n")?;
    let rebooted = |command: &Command| -> Result<Ended> {
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let mut outer = Command::new(&unshare);
        outer.args(["--mount", "sh", "-c", script]).arg(&boot);
        outer.arg(command.get_program()).args(command.get_args());
        outer.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                outer.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        run(&mut outer)
    };
    let ended = rebooted(&project.kiln.build_command(&project.request))?.success()?;
    let ran = progress::not_cached(&ended.stderr);
    ensure!(
        ran == ["RUN echo right > /made"],
        "ran: {ran:?}\n{}",
        ended.stderr
    );
    says(&ended, "may not have reached the disk before a power loss")?;
    let arguments = ["run", "--rm", &project.request.tag, "cat", "/made"];
    let shown = rebooted(&project.kiln.command(arguments))?.success()?.stdout;
    ensure!(shown == "right\n", "the image has {shown:?}");
    rebooted(&project.kiln.command(["cache", "verify"]))?.success()?;
    Ok(Outcome::Passed)
}

const STAGES: &str = "FROM busybox:latest AS gen\nCOPY in.txt /in\nRUN head -c1 /in > /out\n\
    FROM busybox:latest\nCOPY --from=gen /out /out\nRUN sleep 1; cp /out /copy\n";

fn stages(name: &str) -> Result<Project> {
    let project = Project::new(name, &[("Dockerfile", STAGES), ("in.txt", "one\n")])?;
    project.build(&[])?;
    Ok(project)
}

fn why(project: &Project) -> Result<String> {
    Ok(project.kiln.run(["why"])?.success()?.stdout)
}

fn unknown_stage() -> TestResult {
    let project = stages("unknown-stage")?;
    let ended = build(&project, &["--no-cache-filter", "GEN2,7"], &[])?;
    says(&ended, "--no-cache-filter GEN2: no stage is called that")?;
    says(&ended, "--no-cache-filter 7: no stage is called that")?;
    let both = ["COPY in.txt /in", "RUN head -c1 /in > /out"];
    for stage in ["Gen", "0"] {
        let ended = build(&project, &["--no-cache-filter", stage], &both)?;
        ensure!(!ended.stderr.contains("no stage is called"), "{}", ended.stderr);
    }
    Ok(Outcome::Passed)
}

/// A step after one that was made anew to another content ran for that, although its definition is what it was.
fn filter_reasons() -> TestResult {
    let dockerfile = "FROM busybox:latest AS gen\nRUN head -c 8 /dev/urandom | od -x > /out\n\
        FROM busybox:latest\nCOPY --from=gen /out /out\nRUN cp /out /copy\n";
    let project = Project::new("filter-reasons", &[("Dockerfile", dockerfile)])?;
    project.build(&[])?;
    project.build(&["--no-cache-filter", "gen"])?;
    let expected = "[gen 2/2] RUN head -c 8 /dev/urandom | od -x > /out  (Dockerfile:2)\n    --no-cache-filter\n\
        [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:4)\n    \
        out changed in [gen 2/2] RUN head -c 8 /dev/urandom | od -x > /out\n\
        [stage-1 3/3] RUN cp /out /copy  (Dockerfile:5)\n    after [stage-1 2/3] COPY --from=gen /out /out\n";
    let found = why(&project)?;
    ensure!(found == expected, "found:\n{found}\nexpected:\n{expected}");
    Ok(Outcome::Passed)
}

fn ttl() -> TestResult {
    let project = stages("ttl")?;
    build(&project, &["--cache-ttl", "1h"], &[])?;
    std::thread::sleep(Duration::from_millis(20));
    // Of a copy the key has all that decides; it does not age. The step after it does, on its own.
    let old = ["RUN head -c1 /in > /out", "RUN sleep 1; cp /out /copy"];
    let ended = build(&project, &["--cache-ttl", "10ms"], &old)?;
    says(&ended, " old, and --cache-ttl is 10ms")?;
    let found = why(&project)?;
    ensure!(
        found.matches(" old, and --cache-ttl is 10ms").count() == 2,
        "{found}"
    );
    // What was made anew is young.
    build(&project, &["--cache-ttl", "1h"], &[])?;
    // A result that comes of too old a step is not found by its definition alone.
    let dockerfile = "FROM busybox:latest AS gen\nRUN head -c 8 /dev/urandom | od -x > /out\n\
        FROM scratch\nCOPY --from=gen /out /out\n";
    project.write("Dockerfile", dockerfile)?;
    project.build(&[])?;
    std::thread::sleep(Duration::from_millis(20));
    let both = [
        "RUN head -c 8 /dev/urandom | od -x > /out",
        "COPY --from=gen /out /out",
    ];
    build(&project, &["--cache-ttl", "10ms"], &both)?;
    let usage = project.try_build(&["--cache-ttl", "soon"])?.failure(2)?;
    ensure!(usage.contains("--cache-ttl soon"), "{usage}");
    Ok(Outcome::Passed)
}

/// Makes the image `base:1`, with a label.
fn base(project: &Project, label: &str) -> Result<()> {
    let context = project.scratch("base");
    std::fs::create_dir_all(&context)?;
    let dockerfile = format!("FROM busybox:latest\nRUN echo base > /base\nLABEL l={label}\n");
    std::fs::write(context.join("Dockerfile"), dockerfile)?;
    let mut request = project.request.clone();
    (request.context, request.tag) = (context, "base:1".to_owned());
    run(&mut project.kiln.build_command(&request))?.success()?;
    Ok(())
}

fn ttl_of_kept() -> TestResult {
    let dockerfile = "FROM base:1\nRUN echo x > /x\n";
    let project = Project::new("ttl-of-kept", &[("Dockerfile", dockerfile)])?;
    base(&project, "one")?;
    project.build(&[])?;
    std::thread::sleep(Duration::from_secs(4));
    base(&project, "two")?;
    let ended = build(&project, &["--cache-ttl", "1h"], &[])?;
    says(&ended, "early cutoff: 1 step was kept")?;
    build(&project, &["--cache-ttl", "3s"], &["RUN echo x > /x"])?;
    Ok(Outcome::Passed)
}

const VERIFIED: &str = "FROM busybox:latest\nCOPY in.txt /in\nRUN wc -c < /in > /count\n\
    RUN head -c 8 /dev/urandom | od -x > /token && ln -s /$(cut -c 9-12 /token | head -n 1) /link\nCOPY --link in.txt /copy\n";

fn verified(name: &str) -> Result<Project> {
    let project = Project::new(name, &[("Dockerfile", VERIFIED), ("in.txt", "one\n")])?;
    project.build(&[])?;
    Ok(project)
}

fn verify() -> TestResult {
    let project = verified("verify")?;
    let (before, token) = (id(&project)?, project.shell("cat /token")?);
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(
        &ended,
        "cache verification: 4 cached steps were run again: 1 gave another result",
    )?;
    says(
        &ended,
        "another result: /link links elsewhere; /token has other bytes",
    )?;
    says(&ended, "the same result, only times differ (1)")?;
    // The cached result stays, and so do the keys.
    ensure!(id(&project)? == before, "the image is another one");
    ensure!(project.shell("cat /token")? == token, "another token");
    let found = why(&project)?;
    ensure!(
        found.contains("RUN head -c 8") && found.contains("    run again: another result: /link"),
        "{found}"
    );
    let arguments = ["builds", "show", "--format", "json"];
    let shown = project.kiln.run(arguments)?.success()?.stdout;
    let shown: Value = serde_json::from_str(&shown)?;
    let steps = shown["steps"].as_array().cloned().unwrap_or_default();
    let step = steps
        .iter()
        .find(|step| text(&step["name"]).contains("urandom"))
        .ok_or("no step")?;
    ensure!(
        text(&step["verified"]["result"]) == "differs"
            && step["verified"]["paths"] == 2
            && text(&step["verified"]["first"][1]["path"]) == "token"
            && text(&step["verified"]["first"][1]["aspects"][0]) == "bytes",
        "{step}"
    );
    // The same for machines.
    let mut command = project.kiln.command(["build", "--progress", "rawjson"]);
    let ended = run(command.arg("--verify-cache=100").arg(&project.request.context))?.success()?;
    let summary = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| line.get("summary").cloned())
        .ok_or("no summary")?;
    let results: Vec<String> = summary["verified"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| text(&step["result"]))
        .collect();
    ensure!(results == ["same", "same", "differs", "same"], "{summary}");
    build(&project, &[], &[])?;
    project.kiln.run(["cache", "verify"])?.success()?;
    // What did not come from the cache is not made twice.
    let ended = project.try_build(&["--no-cache", "--verify-cache"])?.success()?;
    ensure!(!ended.stderr.contains("cache verification"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}

fn verify_some() -> TestResult {
    let project = verified("verify-some")?;
    let ended = build(&project, &["--verify-cache=1"], &[])?;
    says(&ended, "cache verification: 1 cached step was run again")?;
    let ended = build(&project, &["--verify-cache=50"], &[])?;
    says(&ended, "cache verification: 2 cached steps were run again")?;
    for wrong in ["--verify-cache=0", "--verify-cache=101", "--verify-cache=x"] {
        let told = project.try_build(&[wrong])?.failure(2)?;
        ensure!(told.contains("from 1 to 100"), "{told}");
    }
    Ok(Outcome::Passed)
}

fn verify_fail() -> TestResult {
    let project = verified("verify-fail")?;
    let out = project.scratch("out");
    let dest = format!("type=local,dest={}", out.display());
    let told = project
        .try_build(&["--verify-cache=fail", "-o", &dest])?
        .failure(1)?;
    ensure!(
        told.contains("1 cached step gives another result when run again"),
        "{told}"
    );
    ensure!(!out.exists(), "it was exported");
    // Nothing to complain of: a build as any other.
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nCOPY in.txt /in\nRUN wc /in > /out\n",
    )?;
    project.build(&[])?;
    let ended = build(&project, &["--verify-cache=100,fail", "-o", &dest], &[])?;
    says(
        &ended,
        "cache verification: 2 cached steps were run again: the same results",
    )?;
    ensure!(out.join("out").exists(), "it was not exported");
    Ok(Outcome::Passed)
}

fn verify_damage() -> TestResult {
    let project = verified("verify-damage")?;
    let layers = project.kiln.root.join("layers");
    let mut harmed = 0;
    for layer in std::fs::read_dir(layers)? {
        let file = layer?.path().join("diff/count");
        if file.exists() {
            std::fs::write(&file, "9\n")?;
            harmed += 1;
        }
    }
    ensure!(harmed == 1, "{harmed} layers have the file");
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(&ended, "the cached layer is damaged")?;
    says(&ended, "/count: has other bytes")?;
    Ok(Outcome::Passed)
}

fn verify_secret() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN --mount=type=secret,id=s,required=true wc -c /run/secrets/s > /n\n\
        RUN --mount=type=secret,id=s,target=/s test -f /s; echo x > /x\n";
    let project = Project::new("verify-secret", &[("Dockerfile", dockerfile), ("s", "secret\n")])?;
    let secret = format!("id=s,src={}", project.path("s").display());
    project.build(&["--secret", &secret])?;
    let ended = build(&project, &["--verify-cache"], &[])?;
    says(&ended, "not run again: secret s: not found")?;
    says(
        &ended,
        "cache verification: 1 cached step was run again: the same results; 1 could not be run",
    )?;
    let ended = build(&project, &["--verify-cache", "--secret", &secret], &[])?;
    says(
        &ended,
        "cache verification: 2 cached steps were run again: the same results",
    )?;
    Ok(Outcome::Passed)
}

/// For each kind of step: it is made anew, its content is the same, and what follows is kept and counted.
fn cutoff() -> TestResult {
    // A process, then copies from a stage that was made anew; the last step took a second.
    let project = stages("cutoff-run")?;
    project.write("in.txt", "only the first byte counts\n")?;
    let ended = build(&project, &[], &["COPY in.txt /in", "RUN head -c1 /in > /out"])?;
    says(
        &ended,
        "early cutoff: 2 steps were kept, their inputs came out the same (saved 1.",
    )?;
    // A copy of a file whose name does not count.
    let dockerfile = "FROM busybox:latest AS gen\nCOPY a /x\nRUN wc /x > /y\nFROM gen\nRUN cp /y /z\n";
    let files = [("Dockerfile", dockerfile), ("a", "same\n"), ("b", "same\n")];
    let project = Project::new("cutoff-copy", &files)?;
    project.build(&[])?;
    project.write(
        "Dockerfile",
        &dockerfile.replace("wc /x", "wc < /x > /dev/null; wc /x"),
    )?;
    let ended = build(&project, &[], &["RUN wc < /x > /dev/null; wc /x > /y"])?;
    says(&ended, "early cutoff: 1 step was kept")?;
    // A file by HTTP with another tag and the same bytes.
    let server = Server::start()?;
    server.put("/f", "one\n", &[("ETag", "\"v1\"")]);
    let dockerfile = format!("FROM busybox:latest\nADD {} /f\nRUN cp /f /g\n", server.url("/f"));
    let project = Project::new("cutoff-http", &[("Dockerfile", &dockerfile)])?;
    project.build(&[])?;
    let ended = project.try_build(&[])?.success()?;
    ensure!(
        !ended.stderr.contains("early cutoff"),
        "nothing was downloaded:\n{}",
        ended.stderr
    );
    server.put("/f", "one\n", &[("ETag", "\"v2\"")]);
    let ended = project.try_build(&[])?.success()?;
    says(&ended, "early cutoff: 2 steps were kept")?;
    // A base that was built again: another digest, the same layers.
    let dockerfile = "FROM base:1\nRUN echo x > /x\nCOPY Dockerfile /d\n";
    let project = Project::new("cutoff-base", &[("Dockerfile", dockerfile)])?;
    base(&project, "one")?;
    project.build(&[])?;
    base(&project, "two")?;
    let ended = build(&project, &[], &[])?;
    says(&ended, "early cutoff: 2 steps were kept")?;
    let found = why(&project)?;
    ensure!(found.contains("early cutoff: 2 steps were kept"), "{found}");
    // Found by their definitions from now on: nothing to tell.
    let ended = build(&project, &[], &[])?;
    ensure!(!ended.stderr.contains("early cutoff"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}
