//! Runs a row: servers, store, command, and everything that must hold after each.

use crate::case::{Case, Command, World};
use crate::expected;
use kiln_e2e::builder::{self, Kiln};
use kiln_e2e::crafted::Crafted;
use kiln_e2e::hostile_registry::{Answer, HostileRegistry, Request, Reserved, Site, Uploads};
use kiln_e2e::machine::{self, SmallDisk, TempFolder};
use kiln_e2e::measure::{Measured, measure};
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// When a command is given up. The slowest ones wait three times for a server that is silent; none waits for what
/// [`PATIENT`] allows.
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes of errors, warnings and hints that are still an answer.
const TOLD: usize = 4 << 10;
/// Bytes of output, progress included: three lines for each of some hundred layers.
const OUTPUT: usize = 512 << 10;
/// For a server that answers. It is on the same machine, which may be busy with anything: no answer is too late.
const PATIENT: &str = "[network]\nconnect-timeout = \"5m\"\nstall-timeout = \"5m\"\nattempts = 3\n";
/// For one that falls silent: as patient as is bearable in a test.
const SHORT: &str = "[network]\nconnect-timeout = \"3s\"\nstall-timeout = \"2s\"\nattempts = 3\n";
/// The password that must not go anywhere else.
const PASSWORD: &str = "open-sesame";

/// What there is to look at after a command.
pub(crate) struct Ran<'a> {
    pub(crate) world: &'a World,
    pub(crate) registry: &'a HostileRegistry,
    pub(crate) other: &'a HostileRegistry,
    pub(crate) kiln: &'a Kiln,
    pub(crate) output: &'a str,
    pub(crate) measured: Measured,
    folder: &'a TempFolder,
}

impl Ran<'_> {
    /// Writes the pulled image's files into a folder; gives their contents, modes and link targets by path.
    pub(crate) fn files(&self) -> Result<BTreeMap<String, String>> {
        let context = self.folder.join("context");
        std::fs::write(
            context.join("Dockerfile"),
            format!("FROM {}/app:1\n", self.world.host),
        )?;
        let dest = self.folder.join("files");
        let output = format!("type=local,dest={}", dest.display());
        builder::run(self.kiln.command(["build", "--output", &output]).arg(&context))?.success()?;
        let mut files = BTreeMap::new();
        list(&dest, &dest, &mut files)?;
        std::fs::remove_dir_all(dest)?;
        Ok(files)
    }

    /// Fails unless the image has this file, with this content.
    pub(crate) fn has(&self, path: &str, content: &str) -> Result<()> {
        let files = self.files()?;
        let found = files.get(path);
        ensure!(
            found.is_some_and(|found| found.ends_with(&format!(" {content}"))),
            "{path} is {found:?}; there are {files:?}"
        );
        Ok(())
    }
}

/// Kind, mode, time and content of everything below a folder, by path.
fn list(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        let content = if metadata.is_file() && metadata.len() < 1 << 20 {
            String::from_utf8_lossy(&std::fs::read(&path)?).into_owned()
        } else if metadata.is_symlink() {
            format!("-> {}", std::fs::read_link(&path)?.display())
        } else {
            String::new()
        };
        let (mode, uid, time, links) = (
            metadata.mode(),
            metadata.uid(),
            metadata.mtime_nsec(),
            metadata.nlink(),
        );
        let name = path.strip_prefix(root)?.display().to_string();
        into.insert(name, format!("{mode:o} {uid} {time} {links} {content}"));
        if metadata.is_dir() {
            list(root, &path, into)?;
        }
    }
    Ok(())
}

/// What must not change: a folder that links aim at, and what lies beside the store.
fn sentinels(folder: &TempFolder) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let out = folder.join("out");
    list(&out, &out, &mut all)?;
    for entry in std::fs::read_dir(folder.path())? {
        all.insert(
            format!("beside the store: {}", entry?.file_name().display()),
            String::new(),
        );
    }
    Ok(all)
}

fn make_sentinels(folder: &TempFolder) -> Result<()> {
    let out = folder.join("out");
    for directory in ["dir", "empty"] {
        std::fs::create_dir_all(out.join(directory))?;
    }
    for file in ["kept", "dir/kept"] {
        std::fs::write(out.join(file), "kept\n")?;
    }
    std::os::unix::fs::symlink("kept", out.join("link"))?;
    // As the store's folder is there, only its inside may change.
    std::fs::create_dir_all(folder.join("root"))?;
    for file in ["log", "stdout"] {
        std::fs::write(folder.join(file), "")?;
    }
    Ok(())
}

/// Serves a site; the misbehaviour begins when `armed` is set.
fn serve(case: &Case, world: &World, at: Reserved, armed: &Arc<AtomicBool>) -> HostileRegistry {
    let (answer, armed, w) = (case.answer, Arc::clone(armed), world.clone());
    let misbehave = move |request: &Request, site: &mut Site| -> Option<Answer> {
        if armed.load(Ordering::Relaxed) {
            answer(&w, request, site)
        } else {
            None
        }
    };
    let site = (case.site)(world);
    HostileRegistry::start(at, site, Box::new(misbehave), case.uploads, case.accepts)
}

pub(crate) fn run(case: &Case) -> TestResult {
    if case.disk.is_some() && !machine::is_root() {
        return Ok(Outcome::Skipped(
            "needs root, to mount a small file system".to_owned(),
        ));
    }
    let folder = TempFolder::new("hostile-registry")?;
    let (at, other_at) = (Reserved::new()?, Reserved::new()?);
    let world = World {
        host: at.host.clone(),
        other: other_at.host.clone(),
        out: folder.join("out"),
    };
    let armed = Arc::new(AtomicBool::new(false));
    let registry = serve(case, &world, at, &armed);
    let other = serve(
        &Case {
            answer: crate::case::honest,
            accepts: true,
            uploads: Uploads::Read,
            ..*case
        },
        &world,
        other_at,
        &armed,
    );
    let kiln = Kiln::new(&folder)?;
    std::fs::write(kiln.config(), PATIENT)?;
    if case.password {
        log_in(&folder, &world.host)?;
    }
    std::fs::create_dir(folder.join("context"))?;
    std::fs::write(folder.join("context/f"), "f\n")?;
    make_sentinels(&folder)?;
    let small = case.disk.map(|size| SmallDisk::at(&kiln.root, size));
    let _small = small.transpose()?;
    prepare(case, &world, &kiln, &folder)?;
    if let Some(rewrite) = case.rewrite {
        registry.with_site(rewrite)?;
    }
    if case.silent {
        std::fs::write(kiln.config(), SHORT)?;
    }
    let before = sentinels(&folder)?;
    armed.store(true, Ordering::Relaxed);
    registry.forget_seen();

    let log = folder.join("log");
    let mut command = command(case, &world, &kiln, &folder)?;
    command
        .stdout(File::create(folder.join("stdout"))?)
        .stderr(File::create(&log)?);
    let measured = measure(&mut command, PATIENCE)?;
    let output = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    report(case, measured);
    let ran = Ran {
        world: &world,
        registry: &registry,
        other: &other,
        kiln: &kiln,
        output: &output,
        measured,
        folder: &folder,
    };
    answered(case, &ran)?;
    untouched(&before, &folder)?;
    in_order(case, &ran)?;
    (case.check)(&ran).map_err(|error| format!("{error}\n{output}"))?;
    untouched(&before, &folder)?;
    Ok(Outcome::Passed)
}

/// Docker's configuration with a password for a host.
fn log_in(folder: &TempFolder, host: &str) -> Result<()> {
    let docker = folder.join("home/.docker");
    std::fs::create_dir_all(&docker)?;
    // `user:open-sesame`.
    let text = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"dXNlcjpvcGVuLXNlc2FtZQ==\"}}}}}}");
    Ok(std::fs::write(docker.join("config.json"), text)?)
}

/// What happens while the registry is honest.
fn prepare(case: &Case, world: &World, kiln: &Kiln, folder: &TempFolder) -> Result<()> {
    let host = &world.host;
    std::fs::write(folder.join("context/Dockerfile"), "FROM scratch\nCOPY f /f\n")?;
    match case.command {
        Command::Push => {
            // From a server that is gone by the time of the push.
            let honest = HostileRegistry::start(
                Reserved::new()?,
                Crafted::plain().site(),
                Box::new(|_, _| None),
                Uploads::Read,
                true,
            );
            let name = format!("{}/app:1", honest.host);
            kiln.run(["pull", &name])?.success()?;
            kiln.run(["tag", &name, &format!("{host}/pushed:1")])?.success()?;
        }
        Command::PushAgain => {
            let name = format!("{host}/app:1");
            kiln.run(["pull", &name])?.success()?;
            kiln.run(["tag", &name, &format!("{host}/pushed:1")])?.success()?;
        }
        Command::CacheFrom | Command::CacheCopied => {
            let elsewhere = TempFolder::new("hostile-registry-cache")?;
            let other = Kiln::new(&elsewhere)?;
            let to = format!("--cache-to={host}/cache:1");
            builder::run(other.command(["build", &to]).arg(folder.join("context")))?.success()?;
            if case.command == Command::CacheCopied {
                let text = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY --from=a /f /g\n";
                std::fs::write(folder.join("context/Dockerfile"), text)?;
            }
        }
        Command::Build(text) => {
            let text = text.replace("@HOST@", host).replace("@OTHER@", &world.other);
            std::fs::write(folder.join("context/Dockerfile"), text)?;
        }
        Command::Pull | Command::CacheTo | Command::Login => {}
    }
    Ok(())
}

fn command(case: &Case, world: &World, kiln: &Kiln, folder: &TempFolder) -> Result<std::process::Command> {
    let host = &world.host;
    let build = |argument: Option<String>| {
        let mut command = kiln.command(["build", "--progress", "plain", "-t", "built:1"]);
        command.args(argument).arg(folder.join("context"));
        command
    };
    Ok(match case.command {
        Command::Pull => kiln.command(["pull", &format!("{host}/app:1")]),
        Command::Build(_) => build(None),
        // What was built must be wanted as files, so that layers are fetched.
        Command::CacheFrom | Command::CacheCopied => {
            let mut command = build(Some(format!("--cache-from={host}/cache:1")));
            command.arg("--output=type=docker,dest=/dev/null");
            command
        }
        Command::CacheTo => build(Some(format!("--cache-to={host}/cache:1"))),
        Command::Push | Command::PushAgain => kiln.command(["push", &format!("{host}/pushed:1")]),
        Command::Login => {
            let path = folder.join("home/password");
            File::create(&path)?.write_all(PASSWORD.as_bytes())?;
            let mut command = kiln.command(["login", "-u", "user", "--password-stdin", host]);
            command.stdin(File::open(path)?);
            command
        }
    })
}

/// Time and memory, for who wants to know (`KILN_E2E_FIGURES` names a file).
fn report(case: &Case, measured: Measured) {
    let Some(path) = std::env::var_os("KILN_E2E_FIGURES") else {
        return;
    };
    let line = format!(
        "{:6} KiB {:6.2} s {}\n",
        measured.peak,
        measured.elapsed.as_secs_f64(),
        case.name
    );
    let file = File::options().create(true).append(true).open(path);
    // Figures are no part of the test.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// The exit code, the text, memory.
fn answered(case: &Case, ran: &Ran<'_>) -> Result<()> {
    let output = ran.output;
    let start = &output[..output.floor_char_boundary(3000)];
    let expected = i32::from(!case.succeeds);
    ensure!(
        ran.measured.code == Some(expected) && !output.contains("panicked at"),
        "exit code {:?} instead of {expected}\n{start}",
        ran.measured.code
    );
    ensure!(
        output.len() <= OUTPUT,
        "{} bytes of output\n{start}",
        output.len()
    );
    let controls = output.chars().find(|c| c.is_control() && *c != '\n');
    ensure!(controls.is_none(), "{controls:?} in the output\n{start}");
    ensure!(!output.contains(PASSWORD), "the password is told\n{start}");
    let told = expected::told(output, ran.world);
    ensure!(told.len() <= TOLD, "{} bytes of errors\n{start}", told.len());
    // A failed step of a build has its place in the Dockerfile instead.
    if !case.succeeds && !matches!(case.command, Command::Build(_)) {
        ensure!(told.contains("REGISTRY"), "which registry?\n{told}");
    }
    if told.trim().is_empty() {
        ensure!(case.succeeds, "an error without a text\n{start}");
    } else {
        expected::compare(case.name, &told)?;
    }
    let peak = ran.measured.peak >> 10;
    ensure!(
        peak <= case.memory,
        "{peak} MiB of memory; {} MiB are allowed",
        case.memory
    );
    for request in ran.other.seen() {
        ensure!(
            !request.headers.contains_key("authorization"),
            "credentials went to another host: {}",
            request.line()
        );
    }
    Ok(())
}

fn untouched(before: &BTreeMap<String, String>, folder: &TempFolder) -> Result<()> {
    let after = sentinels(folder)?;
    ensure!(
        *before == after,
        "something outside of the store was touched:\n{before:#?}\n{after:#?}"
    );
    Ok(())
}

/// The store is in order, has no leftovers, and knows a name only if the command succeeded.
fn in_order(case: &Case, ran: &Ran<'_>) -> Result<()> {
    let left = leftovers(&ran.kiln.root, case.resumable)?;
    ensure!(left.is_empty(), "left in the store: {left:?}\n{}", ran.output);
    ran.kiln
        .run(["cache", "verify"])?
        .success()
        .map_err(|error| format!("cache verify: {error}"))?;
    if case.command == Command::Pull && !case.succeeds {
        let images = ran.kiln.run(["images"])?.success()?.stdout;
        ensure!(!images.contains("app"), "the image has a name:\n{images}");
    }
    Ok(())
}

/// The files in the store's folder of unfinished things.
fn leftovers(root: &Path, resumable: bool) -> Result<Vec<String>> {
    let mut all = BTreeMap::new();
    let temp = root.join("tmp");
    if temp.exists() {
        list(&temp, &temp, &mut all)?;
    }
    // A process that ends while its upkeep still works leaves its lock in its folder; the next one takes it away.
    let folder_of_lock = |name: &String| name.ends_with("/lock") || all.contains_key(&format!("{name}/lock"));
    let unexpected = |name: &&String| {
        let partial = name.starts_with("partial/");
        *name != "partial" && !(partial && resumable) && !folder_of_lock(name)
    };
    Ok(all.keys().filter(unexpected).cloned().collect())
}
