//! What the store takes of the disk: what Kiln says of it, giving it back, and limits that hold.

use kiln_e2e::builder::{Ended, Kiln, Request, run};
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("du agrees with the disk over fifty builds and prunes", fifty),
        (
            "du agrees over fifty builds, pushes and prunes in any order",
            any_order,
        ),
        ("a dry run changes nothing", dry_run),
        ("without an answer nothing is deleted", answers),
        ("image prune removes what Docker would", image_prune),
        ("filters by label", labels),
        ("four builds under a ceiling", four_under_ceiling),
        ("what a killed process used can go", killed_holder),
        ("everything can be deleted, whoever owns it", everything_goes),
        ("the ceiling holds during a build", || ceiling("with")),
        ("the ceiling holds without the index", || ceiling("without")),
        ("what is in use is not deleted", in_use),
        ("a container keeps its layers", container),
        ("system prune removes what nothing needs", system_prune),
        ("wrong sizes and filters are refused", refused),
    ];
    trial::run_all("disk", tests)
}

/// What the program `du` finds. Only root may look into all of it.
fn du(path: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split('\t').next().unwrap_or_default().parse()?)
}

fn json(kiln: &Kiln, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(
        &kiln.run(arguments.iter().copied())?.success()?.stdout,
    )?)
}

fn total(kiln: &Kiln) -> Result<u64> {
    let value = json(kiln, &["cache", "du", "--format", "json"])?;
    value["Total"].as_u64().ok_or_else(|| "no total".into())
}

fn agree(kiln: &Kiln, when: &str) -> Result<()> {
    let said = total(kiln)?;
    let there = du(&kiln.root)?;
    ensure!(
        said.abs_diff(there) * 100 <= there,
        "{when}: cache du says {said}, the disk {there}"
    );
    let df = kiln.run(["system", "df", "--format", "json"])?.success()?.stdout;
    let mut sum = 0;
    for line in df.lines() {
        let row: Value = serde_json::from_str(line)?;
        sum += row["Bytes"].as_u64().ok_or("no bytes")?;
    }
    ensure!(
        sum.abs_diff(there) * 100 <= there,
        "{when}: system df says {sum}, the disk {there}"
    );
    Ok(())
}

/// A Dockerfile whose steps depend on `seed`.
fn dockerfile(seed: u64) -> String {
    format!(
        "FROM busybox:latest\n\
         RUN mkdir /d && dd if=/dev/urandom of=/d/f bs=1k count={} && ln /d/f /d/hard && chown 1000:1000 /d && chmod 700 /d\n\
         RUN for i in $(seq {}); do echo $i > /file$i; done; dd if=/dev/zero of=/hole bs=1 count=1 seek=4M\n\
         RUN --mount=type=cache,target=/cache dd if=/dev/zero of=/cache/{} bs=1k count=40\n\
         COPY . /context\n",
        100 + (seed % 7) * 50,
        1 + seed % 40,
        seed % 3,
    )
}

fn fifty() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    let project = Project::new("disk-fifty", &[])?;
    let kiln = &project.kiln;
    for seed in 0..50_u64 {
        project.write("Dockerfile", &dockerfile(seed))?;
        project.write(&format!("file{}", seed % 5), &seed.to_string().repeat(1000))?;
        project.build(&[])?;
        agree(kiln, &format!("build {seed}"))?;
        let prune: &[&str] = match seed % 10 {
            1 => &["cache", "prune", "-f", "--keep", "1MB"],
            3 => &["cache", "prune", "-f", "--filter", "type=exec.cachemount"],
            5 => &["cache", "prune", "-f", "--max-used-space", "500kB"],
            7 => &["system", "prune", "-f"],
            9 => &["cache", "prune", "-f", "--all"],
            _ => continue,
        };
        let before = du(&kiln.root)?;
        let said = kiln.run(prune.iter().copied())?.success()?.stdout;
        ensure!(said.contains("Total reclaimed space: "), "{prune:?}: {said}");
        agree(kiln, &format!("{prune:?} after build {seed}"))?;
        ensure!(
            du(&kiln.root)? <= before + 100_000,
            "{prune:?} made the store larger"
        );
    }
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

/// The next number of a row that begins with a seed.
fn next(random: &mut u64, below: u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) % below
}

const PRUNES: [&[&str]; 7] = [
    &["cache", "prune", "-f"],
    &["cache", "prune", "-f", "--keep", "700kB"],
    &["cache", "prune", "-f", "--filter", "type=internal"],
    &["cache", "prune", "-f", "--filter", "type=regular", "--all"],
    &["image", "prune", "-f"],
    &["system", "prune", "-f"],
    &["system", "prune", "-f", "--all"],
];

fn any_order() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    if let Some(obstacle) = Registry::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    let registry = Registry::start()?;
    let seed = std::env::var("KILN_E2E_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut random: u64 = seed.unwrap_or(20);
    let mut project = Project::new("disk-any-order", &[])?;
    std::fs::write(
        project.kiln.config(),
        format!("[registry.\"{}\"]\ninsecure = true\n", registry.host),
    )?;
    let names: Vec<String> = (0..3).map(|at| format!("{}/any:{at}", registry.host)).collect();
    let mut pushed = vec![false; names.len()];
    for step in 0..50 {
        let at = usize::try_from(next(&mut random, 3))?;
        let name = &names[at];
        let has_image =
            |name: &str| Ok::<_, kiln_e2e::Error>(project.kiln.run(["inspect", name])?.code == Some(0));
        let what = match next(&mut random, 10) {
            0..=3 => {
                let seed = next(&mut random, 30);
                project.kiln.import(&kiln_e2e::base::base("busybox:latest")?)?;
                project.write("Dockerfile", &dockerfile(seed))?;
                project.write(&format!("file{}", seed % 5), &seed.to_string().repeat(1000))?;
                project.request.tag.clone_from(name);
                project.build(&[])?;
                format!("build of {name}")
            }
            4 | 5 if has_image(name)? => {
                project.kiln.run(["push", name])?.success()?;
                pushed[at] = true;
                format!("push of {name}")
            }
            6 if pushed[at] => {
                project.kiln.run(["pull", name])?.success()?;
                format!("pull of {name}")
            }
            7 if has_image(name)? => {
                project.kiln.run(["rmi", name])?.success()?;
                format!("rmi of {name}")
            }
            _ => {
                let prune = PRUNES[usize::try_from(next(&mut random, PRUNES.len() as u64))?];
                let before = du(&project.kiln.root)?;
                let said = project.kiln.run(prune.iter().copied())?.success()?.stdout;
                ensure!(said.contains("Total reclaimed space: "), "{prune:?}: {said}");
                ensure!(
                    du(&project.kiln.root)? <= before + 100_000,
                    "{prune:?} made the store larger"
                );
                format!("{prune:?}")
            }
        };
        agree(&project.kiln, &format!("step {step}, after {what}"))?;
    }
    let kiln = &project.kiln;
    kiln.run(["cache", "verify"])?.success()?;
    // In the end nothing stays that nobody needs.
    kiln.run(["system", "prune", "-f", "--all"])?.success()?;
    for folder in [
        "layers",
        "mounts",
        "blobs/sha256",
        "blobs/stamps",
        "variants",
        "images/ids",
    ] {
        let left = names_or_none(&kiln.root.join(folder))?;
        ensure!(left.is_empty(), "{folder} still has {left:?}");
    }
    agree(kiln, "after everything was pruned")?;
    Ok(Outcome::Passed)
}

fn names_or_none(folder: &Path) -> Result<Vec<String>> {
    if folder.exists() {
        names(folder)
    } else {
        Ok(Vec::new())
    }
}

fn answers() -> TestResult {
    let project = Project::new("disk-answers", &[("Dockerfile", &dockerfile(1))])?;
    project.build(&[])?;
    let kiln = &project.kiln;
    kiln.run(["rmi", &project.request.tag])?.success()?;
    let ask = |arguments: &[&str], answer: &str| -> Result<Ended> {
        let path = project.scratch("answer");
        std::fs::write(&path, answer)?;
        run(kiln
            .command(arguments.iter().copied())
            .stdin(std::fs::File::open(path)?))
    };
    let before = total(kiln)?;
    for (arguments, question) in [
        (
            &["cache", "prune"][..],
            "WARNING! This will remove all build cache that no image has, too.\n",
        ),
        (
            &["image", "prune"],
            "WARNING! This will remove all dangling images.\n",
        ),
        (
            &["image", "prune", "-a"],
            "WARNING! This will remove all images without at least one container associated to them.\n",
        ),
        (
            &["system", "prune", "--filter", "until=1s"],
            "WARNING! This will remove:\n  - all stopped containers\n  - all dangling images\n  - unused build cache\n\n  \
             Items to be pruned will be filtered with:\n  - until=1s\n\n",
        ),
    ] {
        let silent = ask(arguments, "")?;
        let wanted = format!("{question}Are you sure you want to continue? [y/N] ");
        ensure!(silent.stdout.starts_with(&wanted), "{arguments:?}: {silent:?}");
        ensure!(
            silent.failure(1)?.contains("--force"),
            "{arguments:?}: no word of --force"
        );
        let no = ask(arguments, "n\n")?.success()?;
        ensure!(no.stdout == wanted, "{arguments:?}: {}", no.stdout);
    }
    ensure!(total(kiln)?.abs_diff(before) < 20_000, "something was deleted");
    let yes = ask(&["cache", "prune"], "y\n")?.success()?;
    ensure!(
        yes.stdout.contains("Deleted build cache objects:\n"),
        "{}",
        yes.stdout
    );
    ensure!(total(kiln)? + 100_000 < before, "nothing was deleted");
    Ok(Outcome::Passed)
}

fn image_prune() -> TestResult {
    let project = Project::new(
        "disk-image",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    let first = kiln
        .run(["images", "-q", "--no-trunc", "disk-image"])?
        .success()?
        .stdout;
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 2 > /f\n")?;
    project.build(&[])?;
    let dry = kiln.run(["image", "prune", "--dry-run"])?.success()?.stdout;
    // What a step made is cache from now on: only what describes the image is given back.
    let wanted =
        format!("Images that would be deleted:\ndeleted: {first}\nTotal space that would be reclaimed: ");
    ensure!(dry.starts_with(&wanted), "{dry}");
    let young = kiln
        .run(["image", "prune", "-f", "--filter", "until=1h"])?
        .success()?
        .stdout;
    ensure!(young == "Total reclaimed space: 0B\n", "{young}");
    let said = kiln.run(["image", "prune", "-f"])?.success()?.stdout;
    ensure!(
        said.starts_with(&format!(
            "Deleted Images:\ndeleted: {first}\nTotal reclaimed space: "
        )),
        "{said}"
    );
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")?;
    ensure!(project.build(&[])?.is_empty(), "the step was not kept as cache");
    // The base is no step's result, but the steps stand on it. Without them it goes with its image.
    kiln.run(["rmi", &project.request.tag])?.success()?;
    kiln.run(["cache", "prune", "-f", "--all"])?.success()?;
    let said = kiln.run(["image", "prune", "-f", "-a"])?.success()?.stdout;
    ensure!(
        said.contains("untagged: busybox:latest\n") && !said.contains("space: 0B"),
        "{said}"
    );
    let left = names(&kiln.root.join("layers"))?;
    ensure!(left.is_empty(), "layers are left: {left:?}");
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn labels() -> TestResult {
    let project = Project::new("disk-labels", &[])?;
    let kiln = &project.kiln;
    for stage in ["test", "prod"] {
        project.write(
            "Dockerfile",
            &format!("FROM busybox:latest\nRUN echo {stage} > /f\nLABEL stage={stage}\n"),
        )?;
        project.build(&["-t", &format!("labelled:{stage}")])?;
        kiln.run(["run", "--name", stage, &format!("labelled:{stage}"), "true"])?
            .success()?;
    }
    let listed = |what: &[&str]| Ok::<_, kiln_e2e::Error>(kiln.run(what.iter().copied())?.success()?.stdout);
    let said = listed(&["image", "prune", "-af", "--filter", "label=stage"])?;
    ensure!(
        said == "Total reclaimed space: 0B\n",
        "containers use them: {said}"
    );
    let before = total(kiln)?;
    let said = listed(&["system", "prune", "-af", "--filter", "label=stage=test"])?;
    ensure!(
        said.contains("Deleted Containers:\n") && said.contains("untagged: labelled:test\n"),
        "{said}"
    );
    ensure!(
        !said.contains("labelled:prod") && !said.contains("busybox") && !said.contains("build cache"),
        "{said}"
    );
    ensure!(total(kiln)? < before, "nothing was given back");
    let containers = listed(&["ps", "-a"])?;
    ensure!(
        containers.contains("prod") && !containers.contains("test"),
        "{containers}"
    );
    let said = listed(&["system", "prune", "-af", "--filter", "label!=stage=prod"])?;
    ensure!(
        said.contains("busybox") && !said.contains("labelled:prod"),
        "{said}"
    );
    ensure!(
        listed(&["run", "--rm", "labelled:prod", "cat", "/f"])? == "prod\n",
        "it lost its files"
    );
    Ok(Outcome::Passed)
}

fn four_under_ceiling() -> TestResult {
    let project = Project::new("disk-four", &[])?;
    let kiln = &project.kiln;
    // About what one builder's own steps take: the four always have too much.
    let ceiling = total(kiln)? + 3_000_000;
    std::fs::write(
        kiln.config(),
        format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n"),
    )?;
    let end = Instant::now() + Duration::from_secs(20);
    thread::scope(|scope| -> Result<()> {
        let builders: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let project = &project;
                    move || {
                        builder(
                            project,
                            number,
                            end,
                            "dd if=/dev/urandom of=/big bs=1M count=2 2> /dev/null; sleep 0.7;",
                        )
                    }
                })
            })
            .collect();
        for one in builders {
            match one.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    // Each round left four megabytes or more behind.
    let now = total(kiln)?;
    ensure!(
        now < ceiling + 20_000_000,
        "{now} of {ceiling}: nothing was evicted"
    );
    Ok(Outcome::Passed)
}

fn killed_holder() -> TestResult {
    let project = Project::new(
        "disk-holder",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo held > /held\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    kiln.run(["rmi", &project.request.tag])?.success()?;
    let held = |kiln: &Kiln| -> Result<bool> {
        let items = json(kiln, &["cache", "du", "--format", "json"])?;
        let items = items["Cache"].as_array().ok_or("no cache")?.clone();
        Ok(items.iter().any(|item| {
            item["Description"]
                .as_str()
                .is_some_and(|step| step.contains("echo held"))
                && item["InUse"] == true
        }))
    };
    ensure!(!held(kiln)?, "nobody uses it yet");
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nRUN echo held > /held\nRUN cat /held; sleep 60\n",
    )?;
    let mut child = kiln
        .build_command(&project.request)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !held(kiln)? {
        ensure!(Instant::now() < deadline, "the build does not hold its layer");
        thread::sleep(Duration::from_millis(50));
    }
    let said = kiln.run(["cache", "prune", "-af"])?.success()?.stdout;
    ensure!(held(kiln)?, "it was deleted under the build: {said}");
    child.kill()?;
    child.wait()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while held(kiln)? {
        ensure!(Instant::now() < deadline, "a killed process holds it still");
        thread::sleep(Duration::from_millis(50));
    }
    kiln.run(["cache", "prune", "-af"])?.success()?;
    let items = json(kiln, &["cache", "du", "--format", "json"])?.to_string();
    ensure!(!items.contains("echo held"), "it is still there");
    Ok(Outcome::Passed)
}

fn dry_run() -> TestResult {
    let project = Project::new("disk-dry", &[("Dockerfile", &dockerfile(1))])?;
    project.build(&[])?;
    project.write("more", "x")?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let before = json(kiln, &["cache", "du", "--format", "json"])?;
    for arguments in [
        &["cache", "prune", "--dry-run"][..],
        &["cache", "prune", "--all", "--dry-run"],
        &["system", "prune", "--all", "--dry-run"],
    ] {
        let said = kiln.run(arguments.iter().copied())?.success()?.stdout;
        ensure!(said.contains("would be"), "{said}");
        ensure!(!said.contains("space that would be reclaimed: 0B"), "{said}");
    }
    let after = json(kiln, &["cache", "du", "--format", "json"])?;
    for part in ["Cache", "Images"] {
        ensure!(
            before[part] == after[part],
            "{part}: {} became {}",
            before[part],
            after[part]
        );
    }
    ensure!(project.build(&[])?.is_empty(), "a step ran again");
    Ok(Outcome::Passed)
}

fn everything_goes() -> TestResult {
    let project = Project::new("disk-all", &[("Dockerfile", &dockerfile(2))])?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let full = total(kiln)?;
    for image in [project.request.tag.as_str(), "busybox:latest"] {
        kiln.run(["rmi", image])?.success()?;
    }
    ensure!(total(kiln)? * 10 > full * 9, "layers went with their image");
    let said = kiln
        .run(["cache", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(
        said.starts_with("Deleted build cache objects:\nb3-") || said.contains("\nb3-"),
        "{said}"
    );
    for folder in ["layers", "records", "mounts", "blobs/sha256"] {
        let left = names(&kiln.root.join(folder))?;
        // The shards of records stay.
        let left: Vec<_> = left.into_iter().filter(|name| name.len() > 2).collect();
        ensure!(left.is_empty(), "{folder} still has {left:?}");
    }
    let left = names(&kiln.root.join("tmp"))?;
    ensure!(left == ["partial"], "tmp still has {left:?}");
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    Ok(Outcome::Passed)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Steps of two megabytes each; `before` comes before each.
fn steps(word: &str, count: usize, before: &str) -> String {
    let mut text = "FROM busybox:latest\n".to_owned();
    for number in 0..count {
        let step = format!(
            "RUN {before}; echo {word} > /{word}{number}; dd if=/dev/urandom of=/random{number} bs=1M count=2\n"
        );
        text += &step;
    }
    text
}

/// What a step of [`steps`] writes.
const STEP: u64 = 2 << 20;

/// Lets steps go on that ask, one at a time, when the store is no larger than it may be: how long a machine takes to make
/// room says nothing.
struct Gate {
    listener: TcpListener,
    port: u16,
}

impl Gate {
    fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// What a step says to ask.
    fn question(&self) -> String {
        format!("nc 127.0.0.1 {} < /dev/null", self.port)
    }

    /// The next one that asks, and gets its answer when what is returned is dropped; `None` if nobody does until `is_over`.
    fn asked(&self, is_over: impl Fn() -> bool) -> Result<Option<TcpStream>> {
        loop {
            match self.listener.accept() {
                Ok((asking, _)) => return Ok(Some(asking)),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if is_over() => return Ok(None),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Answers the questions of a build until that is `over`. Without anybody who answers, the steps fail.
    fn tend(self, over: &AtomicBool, root: &Path, ceiling: u64) -> Result<()> {
        while let Some(asking) = self.asked(|| over.load(Ordering::Relaxed))? {
            let deadline = Instant::now() + Duration::from_mins(1);
            while du(root)? > ceiling {
                ensure!(
                    Instant::now() < deadline,
                    "a minute after a step the store takes {}, the ceiling is {ceiling}",
                    du(root)?
                );
                thread::sleep(Duration::from_millis(50));
            }
            drop(asking);
        }
        Ok(())
    }
}

/// `index` says whether another process has it all the time.
fn ceiling(index: &str) -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    let name = format!("disk-ceiling-{index}");
    let project = Project::new(&name, &[("Dockerfile", &steps("old", 10, "true"))])?;
    let kiln = &project.kiln;
    project.build(&[])?;
    let lock = std::fs::File::create(kiln.root.join("index/lock"))?;
    if index == "without" {
        lock.lock()?;
    }
    kiln.run(["rmi", &project.request.tag])?.success()?;
    // Room for one step more; the eight that follow have to get theirs from the old ones.
    let ceiling = du(&kiln.root)? + STEP;
    std::fs::write(
        kiln.config(),
        format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n"),
    )?;
    let gate = Gate::open()?;
    let ask = gate.question();
    project.write("Dockerfile", &format!("{}RUN {ask}\n", steps("new", 8, &ask)))?;
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(du(&kiln.root).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let tended = scope.spawn(|| gate.tend(&over, &kiln.root, ceiling));
        let built = project.build(&[]);
        over.store(true, Ordering::Relaxed);
        match tended.join() {
            Ok(tended) => tended.and(built.map(drop)),
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    let most = most.into_inner();
    // Room is made when a step has ended.
    ensure!(
        most <= ceiling + 2 * STEP,
        "the store grew to {most}, the ceiling is {ceiling}"
    );
    ensure!(
        most > ceiling - 4 * STEP,
        "the store never came near its ceiling: {most} of {ceiling}"
    );
    // After the last step there was room. What describes it came then, and on a slow machine the next command makes room
    // for that.
    let now = du(&kiln.root)?;
    ensure!(
        now <= ceiling + STEP / 2,
        "the store takes {now} at the end, the ceiling is {ceiling}"
    );
    ensure!(
        project.shell("cat /new0 /new7")? == "new\nnew\n",
        "the image is wrong"
    );
    ensure!(
        project.build(&[])?.is_empty(),
        "what was just built is not cached"
    );
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn in_use() -> TestResult {
    let project = Project::new("disk-in-use", &[])?;
    let kiln = &project.kiln;
    let end = Instant::now() + Duration::from_secs(12);
    let deleted = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        let builders: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let project = &project;
                    move || builder(project, number, end, "")
                })
            })
            .collect();
        let pruner = |kill: bool| {
            let deleted = &deleted;
            move || -> Result<()> {
                while Instant::now() < end {
                    let mut child = kiln
                        .command(["cache", "prune", "--all", "--force"])
                        .stdout(std::process::Stdio::null())
                        .spawn()?;
                    if kill {
                        thread::sleep(Duration::from_millis(30));
                        child.kill()?;
                        child.wait()?;
                    } else {
                        ensure!(child.wait()?.success(), "a prune failed");
                        deleted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }
        };
        let pruners = [scope.spawn(pruner(false)), scope.spawn(pruner(true))];
        for one in builders.into_iter().chain(pruners) {
            match one.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    ensure!(
        deleted.into_inner() > 3,
        "hardly anything was pruned: no race was run"
    );
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    Ok(Outcome::Passed)
}

/// Builds, looks at the result, removes it, again and again.
fn builder(project: &Project, number: u64, end: Instant, more: &str) -> Result<()> {
    let kiln = &project.kiln;
    let context = project.scratch(&format!("context{number}"));
    std::fs::create_dir(&context)?;
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        // The first steps are those of all builders, the last ones its own.
        let text = format!(
            "FROM busybox:latest AS one\nRUN echo shared {0} > /shared; sleep 0.05\nFROM one AS two\nRUN {more} echo own {number} > /own\n\
             FROM one\nCOPY --from=two /own /copied\nRUN cat /shared /copied > /both && sleep 0.05 && cat /shared\n",
            round % 2
        );
        std::fs::write(context.join("Dockerfile"), text)?;
        let request = Request {
            context: context.clone(),
            file: None,
            tag: format!("in-use:{number}"),
            arguments: Vec::new(),
        };
        run(&mut kiln.build_command(&request))?
            .success()
            .map_err(|error| format!("builder {number}, round {round}: {error}"))?;
        let expected = format!("shared {}\nown {number}\n", round % 2);
        let found: Ended = kiln
            .run(["run", "--rm", &request.tag, "cat", "/both"])?
            .success()?;
        ensure!(found.stdout == expected, "builder {number}: {:?}", found.stdout);
        kiln.run(["rmi", "-f", &request.tag])?.success()?;
    }
    ensure!(round > 1, "builder {number} had only one round");
    Ok(())
}

fn container() -> TestResult {
    let project = Project::new(
        "disk-container",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo hi > /f\n")],
    )?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let gate = Gate::open()?;
    let mut child = kiln
        .command([
            "run",
            "--name",
            "held",
            &project.request.tag,
            "sh",
            "-c",
            &format!("{}; cat /f; ls /bin | wc -l", gate.question()),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    // It runs when it asks.
    let deadline = Instant::now() + Duration::from_mins(1);
    let asking = gate.asked(|| Instant::now() > deadline)?;
    ensure!(asking.is_some(), "the container does not run");
    let said = kiln
        .run(["system", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(!said.contains("Deleted Containers"), "{said}");
    let df = kiln.run(["system", "df"])?.success()?.stdout;
    ensure!(
        df.lines()
            .any(|line| line.starts_with("Containers      1       1")),
        "{df}"
    );
    drop(asking);
    let status = child.wait()?;
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut text)?;
    }
    ensure!(status.success() && text.starts_with("hi\n"), "{status}: {text}");
    let said = kiln
        .run(["system", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(said.contains("Deleted Containers:\n"), "{said}");
    ensure!(names(&kiln.root.join("layers"))?.is_empty(), "layers are left");
    Ok(Outcome::Passed)
}

fn system_prune() -> TestResult {
    let project = Project::new(
        "disk-system",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    // The name moves on: the first image is dangling.
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 2 > /f\n")?;
    project.build(&[])?;
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.lines().count() == 3,
        "not three images"
    );
    let said = kiln
        .run(["system", "prune", "--force", "--filter", "until=1h"])?
        .success()?
        .stdout;
    ensure!(said == "Total reclaimed space: 0B\n", "{said}");
    let said = kiln.run(["system", "prune", "--force"])?.success()?.stdout;
    ensure!(
        said.starts_with("Deleted Images:\ndeleted: sha256:")
            && said.contains("Deleted build cache objects:\n"),
        "{said}"
    );
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.lines().count() == 2,
        "not two images"
    );
    ensure!(
        project.build(&[])?.is_empty(),
        "what the image is made of was not kept"
    );
    kiln.run(["system", "prune", "--force", "--all"])?.success()?;
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.is_empty(),
        "images are left"
    );
    ensure!(names(&kiln.root.join("layers"))?.is_empty(), "layers are left");
    Ok(Outcome::Passed)
}

fn refused() -> TestResult {
    let project = Project::new("disk-refused", &[])?;
    let kiln = &project.kiln;
    let table: [(&[&str], &str); 5] = [
        (
            &["cache", "prune", "--keep", "plenty"],
            "--keep plenty: it is no size",
        ),
        (&["cache", "prune", "--filter", "type=x"], "there is no such type"),
        (
            &["cache", "prune", "--filter", "color=red"],
            "there is no such filter",
        ),
        (
            &["cache", "prune", "--filter", "until=soon"],
            "neither a length of time nor a moment",
        ),
        (
            &["system", "prune", "--filter", "dangling=true"],
            "there is no such filter",
        ),
    ];
    for (arguments, message) in table {
        let ended = kiln.run(arguments.iter().copied())?;
        let stderr = ended.failure(2)?;
        ensure!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
    std::fs::write(kiln.config(), "[cache]\nmax-size = \"much\"\n")?;
    let stderr = kiln.run(["images"])?.failure(1)?;
    ensure!(stderr.contains("line 2") && stderr.contains("much"), "{stderr}");
    Ok(Outcome::Passed)
}
