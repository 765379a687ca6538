//! The first Ctrl-C while a command waits for a server: it ends soon, with the code of the signal, and the store goes on.

use kiln_e2e::builder::{self, Kiln};
use kiln_e2e::crafted::{Crafted, Tar};
use kiln_e2e::hostile_registry::{Answer, Body, HostileRegistry, Request, Reserved, Site, Uploads};
use kiln_e2e::machine::TempFolder;
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What may pass between the signal and the end.
const SOON: Duration = Duration::from_secs(20);
/// Servers are waited for far longer than that.
const NETWORK: &str = "[network]\nconnect-timeout = \"5m\"\nstall-timeout = \"5m\"\n";
/// What may pass until the server is waited for.
const BEGIN: Duration = Duration::from_mins(1);

/// What is run, and where the server lets it wait.
#[derive(Clone, Copy)]
struct Wait {
    name: &'static str,
    command: Run,
    /// What the server says; nothing for the honest answer.
    answer: fn(&Request, &mut Site) -> Option<Answer>,
    uploads: Uploads,
    /// Whether the server is waited for.
    begun: fn(&Place) -> Result<bool>,
    /// Whether part of a blob stays, and is not asked for again.
    resumes: bool,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    Pull,
    /// Of this Dockerfile, where `@HOST@` is the registry.
    Build(&'static str),
    CacheFrom,
    CacheTo,
    Push,
    Login,
}

#[expect(clippy::unnecessary_wraps, reason = "the conditions of a table have one type")]
fn asked(place: &Place) -> Result<bool> {
    Ok(!place.registry.seen().is_empty())
}

#[expect(clippy::unnecessary_wraps, reason = "the answers of a table have one type")]
fn silent(_: &Request, _: &mut Site) -> Option<Answer> {
    Some(Answer::of("").body(Body::Silence))
}

/// Half of the layer comes, and then nothing.
fn half_a_layer(request: &Request, site: &mut Site) -> Option<Answer> {
    let is_large = request
        .blob()
        .and_then(|digest| site.blobs.get(digest))
        .is_some_and(|blob| blob.len() > LARGE);
    if !is_large || request.method != "GET" {
        return None;
    }
    let answer = site.answer(request);
    let bytes = answer.bytes();
    Some(answer.body(Body::Stalled(bytes[..bytes.len() / 2].to_vec(), bytes.len())))
}

/// So much of it that the rest is worth asking for is in the store.
fn half_a_layer_came(place: &Place) -> Result<bool> {
    let parts = partial_blobs(&place.kiln.root)?;
    Ok(parts.iter().any(|(_, size)| *size > LARGE as u64))
}

#[expect(clippy::unnecessary_wraps, reason = "the conditions of a table have one type")]
fn uploads(place: &Place) -> Result<bool> {
    let seen = place.registry.seen();
    let sent = |request: &Request| matches!(request.method.as_str(), "PUT" | "PATCH");
    Ok(seen.iter().any(|request| request.is_upload() && sent(request)))
}

fn waits() -> Vec<Wait> {
    let wait = |name, command| Wait {
        name,
        command,
        answer: silent,
        uploads: Uploads::Read,
        begun: asked,
        resumes: false,
    };
    let stalled = |name, command| Wait {
        answer: half_a_layer,
        begun: half_a_layer_came,
        resumes: true,
        ..wait(name, command)
    };
    let patient: fn(&Request, &mut Site) -> _ = |_, _| Some(Answer::status(503).with("Retry-After", "50"));
    let unread = |name, command| Wait {
        answer: |_, _| None,
        uploads: Uploads::Unread,
        begun: uploads,
        ..wait(name, command)
    };
    let uncommitted = |name, command| Wait {
        answer: |request, _| {
            let last = request.is_upload() && request.method == "PUT";
            last.then(|| Answer::of("").body(Body::Silence))
        },
        begun: uploads,
        ..wait(name, command)
    };
    vec![
        Wait {
            answer: patient,
            ..wait("a pull that is to come back later", Run::Pull)
        },
        Wait {
            answer: patient,
            ..wait(
                "a build that is to come back later",
                Run::Build("FROM @HOST@/app:1\n"),
            )
        },
        wait("a pull from a registry that is silent", Run::Pull),
        stalled("a pull of a layer that stalls", Run::Pull),
        wait(
            "a build from a registry that is silent",
            Run::Build("FROM @HOST@/app:1\nCOPY f /g\n"),
        ),
        stalled(
            "a build on a layer that stalls",
            Run::Build("FROM @HOST@/app:1\nCOPY --from=@HOST@/app:1 d/f /g\n"),
        ),
        wait(
            "a download that is silent",
            Run::Build("FROM scratch\nADD http://@HOST@/file /file\n"),
        ),
        Wait {
            answer: |request, _| {
                let body = Body::Stalled(vec![b'x'; 1000], 1_000_000);
                (request.path == "/file").then(|| Answer::of("").body(body))
            },
            ..wait(
                "a download that stalls",
                Run::Build("FROM scratch\nADD http://@HOST@/file /file\n"),
            )
        },
        wait("a cache that is silent", Run::CacheFrom),
        Wait {
            answer: |request, site| {
                request.blob()?;
                let answer = site.answer(request);
                let bytes = answer.bytes();
                Some(answer.body(Body::Stalled(bytes[..10].to_vec(), bytes.len())))
            },
            begun: |place| {
                let seen = place.registry.seen();
                Ok(seen.iter().any(|request| request.blob().is_some()))
            },
            ..wait("a cache whose records stall", Run::CacheFrom)
        },
        wait("a cache to a registry that is silent", Run::CacheTo),
        unread("a cache that is not read", Run::CacheTo),
        wait("a push to a registry that is silent", Run::Push),
        unread("a push that is not read", Run::Push),
        uncommitted("a push that gets no answer", Run::Push),
        wait("a login that is not answered", Run::Login),
    ]
}

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    waits().into_iter().map(|wait| {
        trial::test(
            format!("hostile-registry/Ctrl-C during {}", wait.name),
            move || run(&wait),
        )
    })
}

/// The layer has far more bytes, and nothing else has as many.
const LARGE: usize = 100_000;

/// More than the buffers between two sockets hold, and not compressible.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image with a layer of some size.
fn site() -> Site {
    let tar = Tar::new()
        .directory("d")
        .file("d/f", b"content\n")
        .file("noise", &noise(400_000));
    Crafted::of_tar(&tar.end()).site()
}

struct Place {
    folder: TempFolder,
    kiln: Kiln,
    registry: HostileRegistry,
    /// Whether the registry misbehaves.
    armed: Arc<AtomicBool>,
}

fn run(wait: &Wait) -> TestResult {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new(wait)?;
        let told = place.interrupt(wait, signal, code)?;
        place
            .is_usable(wait)
            .map_err(|error| format!("{error}\nthe interrupted command told:\n{told}"))?;
    }
    Ok(Outcome::Passed)
}

impl Place {
    fn new(wait: &Wait) -> Result<Self> {
        let folder = TempFolder::new("hostile-registry-interrupted")?;
        let kiln = Kiln::new(&folder)?;
        std::fs::write(kiln.config(), NETWORK)?;
        let armed = Arc::new(AtomicBool::new(false));
        let (answer, is_armed) = (wait.answer, Arc::clone(&armed));
        let at = Reserved::new()?;
        let misbehave = move |request: &Request, site: &mut Site| {
            if is_armed.load(Ordering::Relaxed) {
                answer(request, site)
            } else {
                None
            }
        };
        let registry = HostileRegistry::start(at, site(), Box::new(misbehave), wait.uploads, true);
        let context = folder.join("context");
        std::fs::create_dir(&context)?;
        std::fs::write(context.join("f"), noise(12 << 20))?;
        let dockerfile = match wait.command {
            Run::Build(text) => text.replace("@HOST@", &registry.host),
            _ => "FROM scratch\nCOPY f /f\n".to_owned(),
        };
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let place = Self {
            folder,
            kiln,
            registry,
            armed,
        };
        place.prepare(wait)?;
        place.armed.store(true, Ordering::Relaxed);
        place.registry.forget_seen();
        Ok(place)
    }

    fn context(&self) -> std::path::PathBuf {
        self.folder.join("context")
    }

    /// What happens while the registry is honest.
    fn prepare(&self, wait: &Wait) -> Result<()> {
        let host = &self.registry.host;
        match wait.command {
            Run::Push => {
                let name = format!("--tag={host}/pushed:1");
                builder::run(self.kiln.command(["build", &name]).arg(self.context()))?.success()?;
            }
            Run::CacheFrom => {
                let elsewhere = TempFolder::new("hostile-registry-cache")?;
                let to = format!("--cache-to={host}/cache:cache");
                let other = Kiln::new(&elsewhere)?;
                builder::run(other.command(["build", &to]).arg(self.context()))?.success()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&self, wait: &Wait) -> Result<Command> {
        let host = &self.registry.host;
        let build = |arguments: &[String]| {
            let mut command = self
                .kiln
                .command(["build", "--progress", "plain", "-t", "built:1"]);
            command.args(arguments).arg(self.context());
            command
        };
        Ok(match wait.command {
            Run::Pull => self.kiln.command(["pull", &format!("{host}/app:1")]),
            Run::Build(_) => build(&[]),
            Run::CacheFrom => build(&[format!("--cache-from={host}/cache:cache")]),
            Run::CacheTo => build(&[format!("--cache-to={host}/cache:cache")]),
            Run::Push => self.kiln.command(["push", &format!("{host}/pushed:1")]),
            Run::Login => {
                let path = self.folder.join("password");
                std::fs::write(&path, "open-sesame")?;
                let mut command = self
                    .kiln
                    .command(["login", "-u", "user", "--password-stdin", host]);
                command.stdin(std::fs::File::open(path)?);
                command
            }
        })
    }

    /// Runs the command until the server is waited for, and then sends the signal.
    fn interrupt(&self, wait: &Wait, signal: Signal, code: i32) -> Result<String> {
        let mut command = self.command(wait)?;
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let began = Instant::now();
        while !(wait.begun)(self)? {
            if began.elapsed() > BEGIN || child.try_wait()?.is_some() {
                child.kill()?;
                let told = child.wait_with_output()?.stderr;
                return Err(format!("the server is not asked\n{}", String::from_utf8_lossy(&told)).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // So that it mostly waits for the server by then; what must hold does so at any moment.
        std::thread::sleep(Duration::from_millis(500));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let sent = Instant::now();
        kill_process(pid.ok_or("no process")?, signal)?;
        let output = child.wait_with_output()?;
        let taken = sent.elapsed();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(taken < SOON, "{signal:?}: it took {taken:?} to end\n{told}");
        // Nothing has begun that a login would have to end cleanly: the signal's own way is good enough.
        let by_signal = matches!(wait.command, Run::Login)
            && std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(signal.as_raw());
        ensure!(
            output.status.code() == Some(code) || by_signal,
            "{signal:?}: it ended with {:?}\n{told}",
            output.status
        );
        ensure!(!told.contains("panicked at") && !told.contains("WARN"), "{told}");
        Ok(told)
    }

    /// Nothing half done is there, nothing is locked, and the same command works once the server does.
    fn is_usable(&self, wait: &Wait) -> Result<()> {
        let images = self.kiln.run(["images"])?.success()?.stdout;
        // An image is done before its cache goes anywhere.
        let done = matches!(wait.command, Run::CacheTo);
        ensure!(!images.contains("app"), "the image has a name:\n{images}");
        ensure!(
            images.contains("built") == done,
            "the image has a name:\n{images}"
        );
        self.kiln.run(["cache", "verify"])?.success()?;
        let partial = partial_blobs(&self.kiln.root)?;
        ensure!(partial.is_empty() != wait.resumes, "parts of blobs: {partial:?}");
        if wait.uploads == Uploads::Unread {
            return Ok(());
        }
        self.armed.store(false, Ordering::Relaxed);
        self.registry.forget_seen();
        if wait.name.starts_with("a download") {
            self.registry
                .with_site(|site| site.files.insert("/file".to_owned(), b"file\n".to_vec()));
        }
        builder::run(&mut self.command(wait)?)?.success()?;
        if wait.resumes {
            let ranges: Vec<usize> = self.registry.seen().iter().filter_map(Request::range).collect();
            ensure!(
                ranges.len() == 1 && ranges[0] > LARGE,
                "the rest was asked for by {ranges:?}"
            );
        }
        self.kiln.run(["cache", "verify"])?.success()?;
        Ok(())
    }
}

/// The files of the store that are parts of blobs, and how much there is of each.
fn partial_blobs(root: &Path) -> Result<Vec<(String, u64)>> {
    let folder = root.join("tmp/partial");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let size = entry.metadata()?.len();
        if size > 0 {
            names.push((entry.file_name().display().to_string(), size));
        }
    }
    Ok(names)
}
