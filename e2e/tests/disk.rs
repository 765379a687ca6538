//! What the store takes of the disk: what Kiln says of it, giving it back, and limits that hold.

use kiln_e2e::builder::{Ended, Kiln, Request, run};
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("du agrees with the disk over fifty builds and prunes", fifty),
        ("a dry run changes nothing", dry_run),
        ("everything can be deleted, whoever owns it", everything_goes),
        ("the ceiling holds during a build", ceiling),
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

/// Steps of two megabytes each, with a pause between.
fn steps(word: &str, count: usize, pause: &str) -> String {
    let mut text = "FROM busybox:latest\n".to_owned();
    for number in 0..count {
        let step = format!(
            "RUN sleep {pause}; echo {word} > /{word}{number}; dd if=/dev/urandom of=/random{number} bs=1M count=2\n"
        );
        text += &step;
    }
    text
}

/// What a step of [`steps`] writes.
const STEP: u64 = 2 << 20;

fn ceiling() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    let project = Project::new("disk-ceiling", &[("Dockerfile", &steps("old", 10, "0"))])?;
    let kiln = &project.kiln;
    project.build(&[])?;
    kiln.run(["rmi", &project.request.tag])?.success()?;
    // Room for one step more; the eight that follow have to get theirs from the old ones.
    let ceiling = du(&kiln.root)? + STEP;
    std::fs::write(
        kiln.config(),
        format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n"),
    )?;
    project.write("Dockerfile", &steps("new", 8, "0.8"))?;
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(du(&kiln.root).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let built = project.build(&[]);
        over.store(true, Ordering::Relaxed);
        built.map(drop)
    })?;
    let most = most.into_inner();
    // A step that runs is not counted before it has ended, and it takes a moment until room is made for it.
    ensure!(
        most <= ceiling + 3 * STEP,
        "the store grew to {most}, the ceiling is {ceiling}"
    );
    ensure!(
        most > ceiling - 4 * STEP,
        "the store never came near its ceiling: {most} of {ceiling}"
    );
    let now = du(&kiln.root)?;
    ensure!(
        now <= ceiling,
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
                    move || builder(project, number, end)
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
fn builder(project: &Project, number: u64, end: Instant) -> Result<()> {
    let kiln = &project.kiln;
    let context = project.scratch(&format!("context{number}"));
    std::fs::create_dir(&context)?;
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        // The first steps are those of all builders, the last ones its own.
        let text = format!(
            "FROM busybox:latest AS one\nRUN echo shared {0} > /shared; sleep 0.05\nFROM one AS two\nRUN echo own {number} > /own\n\
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
    let mut child = kiln
        .command([
            "run",
            "--name",
            "held",
            &project.request.tag,
            "sh",
            "-c",
            "sleep 3; cat /f; ls /bin | wc -l",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    thread::sleep(Duration::from_secs(1));
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
            &["system", "prune", "--filter", "label=x"],
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
