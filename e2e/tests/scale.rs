//! A large store costs a build what a small one costs.
//!
//! Figures are compared with each other, not with a clock: a slow machine is slow for both stores.

use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[("a store of 100,000 records is as fast as one of 100", flat)];
    trial::run_all("scale", tests)
}

/// Layers and records.
const SMALL: (usize, usize) = (10, 100);
const LARGE: (usize, usize) = (10_000, 100_000);

/// How often each command runs; the best counts.
const RUNS: usize = 15;

/// The same for what takes long.
const LONG_RUNS: usize = 5;

/// What a command may take of the memory at most, in KiB.
const MOST_MEMORY: u32 = 400 << 10;

/// What a build under a ceiling leaves behind.
const STEP: u64 = 2 << 20;

/// A slow machine needs so many builds at most until a large store is measured beside them.
const MOST_BUILDS: u32 = 60;

/// So many builds of twenty seconds are enough to bring a store under its ceiling.
const LONGER_BUILDS: u32 = 15;

const DOCKERFILE: &str = "FROM busybox:latest\nRUN echo 1 > /one\nCOPY f /f\nRUN cat /one /f > /both\nWORKDIR /w\nRUN echo 2 > two\n";

/// What one command took.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Until the first step was known to be cached, or to the end of what has no steps.
    seconds: f64,
    /// Peak of the resident set, in KiB.
    peak: u32,
}

fn generator() -> Result<PathBuf> {
    let kiln = machine::kiln()?;
    let folder = kiln.parent().ok_or("the binary is in no folder")?;
    Ok(folder.join("examples/large_store"))
}

fn flat() -> TestResult {
    if std::env::var_os("KILN_E2E_SCALE").is_none() {
        return Ok(Outcome::Skipped("takes minutes: set KILN_E2E_SCALE".to_owned()));
    }
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "needs root: the generator makes root's stores".to_owned(),
        ));
    }
    let program = generator()?;
    if !program.exists() {
        return Ok(Outcome::Skipped(format!(
            "needs {} (cargo build -p kiln-cache --example large_store)",
            program.display()
        )));
    }
    let fill = |name: &str, (layers, records): (usize, usize)| -> Result<Project> {
        let project = Project::new(name, &[("Dockerfile", DOCKERFILE), ("f", "f")])?;
        let status = Command::new(&program)
            .arg(&project.kiln.root)
            .args([layers.to_string(), records.to_string()])
            .status()?;
        ensure!(status.success(), "the generator failed: {status}");
        // What is made anew beside builds must not be felt either.
        std::fs::remove_dir_all(project.kiln.root.join("index"))?;
        Ok(project)
    };
    let (small, large) = (fill("scale-small", SMALL)?, fill("scale-large", LARGE)?);
    for project in [&small, &large] {
        ensure!(
            project.build(&[])?.len() >= 4,
            "the first build is not from nothing"
        );
        ensure!(project.build(&[])?.is_empty(), "the second build is not cached");
    }
    let failed = beside_builds(&small, &large)?;
    whole_store(&small, &large)?;
    for project in [&small, &large] {
        under_a_ceiling(project)?;
    }
    for project in [&small, &large] {
        prune_to_half(project)?;
    }
    ensure!(failed.is_empty(), "not flat: {failed:#?}");
    Ok(Outcome::Passed)
}

/// What builds cost. Returns what is not flat.
fn beside_builds(small: &Project, large: &Project) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut compare = |what: &str,
                       runs: usize,
                       time: f64,
                       memory: f64,
                       run: &dyn Fn(&Project) -> Result<Figures>|
     -> Result<()> {
        let (one, other) = (best(small, runs, run)?, best(large, runs, run)?);
        let ratios = (
            other.seconds / one.seconds,
            f64::from(other.peak) / f64::from(one.peak),
        );
        let line = format!(
            "{what}: time {:.4} s and {:.4} s, ratio {:.2} (limit {time}); peak memory {} KiB and {} KiB, ratio {:.2} (limit {memory})",
            one.seconds, other.seconds, ratios.0, one.peak, other.peak, ratios.1
        );
        report(&line);
        if ratios.0 > time || ratios.1 > memory {
            failed.push(line);
        }
        Ok(())
    };
    compare("a cached build, to its first hit", RUNS, 1.25, 1.15, &|project| {
        measure(project.kiln.build_command(&project.request), Some("CACHED"))
    })?;
    // Long enough for all that goes on beside builds.
    compare(
        "a build with a step of two seconds",
        LONG_RUNS,
        1.25,
        1.25,
        &|project| {
            project.write(
                "Dockerfile",
                &format!(
                    "{DOCKERFILE}RUN sleep 2; echo {:?} > /now\n",
                    std::time::SystemTime::now()
                ),
            )?;
            measure(project.kiln.build_command(&project.request), Some("CACHED"))
        },
    )?;
    Ok(failed)
}

/// What looks at everything may take its time, but not all of the memory.
fn whole_store(small: &Project, large: &Project) -> Result<()> {
    for arguments in [&["cache", "du"][..], &["cache", "prune", "--dry-run"]] {
        let run = |project: &Project| measure(project.kiln.command(arguments.iter().copied()), None);
        let (one, other) = (run(small)?, run(large)?);
        report(&format!(
            "{}: time {:.2} s and {:.2} s; peak memory {} KiB and {} KiB",
            arguments.join(" "),
            one.seconds,
            other.seconds,
            one.peak,
            other.peak
        ));
        bounded(arguments, other)?;
    }
    Ok(())
}

fn bounded(arguments: &[&str], took: Figures) -> Result<()> {
    ensure!(
        took.peak < MOST_MEMORY,
        "{arguments:?} took {} MiB",
        took.peak >> 10
    );
    Ok(())
}

fn total(project: &Project) -> Result<u64> {
    let output = project.kiln.run(["cache", "du", "--format", "json"])?.success()?;
    let value: serde_json::Value = serde_json::from_str(&output.stdout)?;
    value["Total"].as_u64().ok_or_else(|| "no total".into())
}

/// Builds that leave two megabytes each behind, until the store, whose size nobody knows at first, has come to its
/// ceiling and is held there. What a build waits for at its end, and what it needs, is shown.
fn under_a_ceiling(project: &Project) -> Result<()> {
    let ceiling = total(project)? + STEP;
    let config = format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n");
    std::fs::write(project.kiln.config(), config)?;
    let (size, swept) = (
        project.kiln.root.join("index/size"),
        project.kiln.root.join("index/swept"),
    );
    let (mut longest, mut peak, mut measured_after, mut held_after) = (0.0_f64, 0, None, None);
    for number in 1..=MOST_BUILDS {
        let step = format!("RUN echo {number}; dd if=/dev/urandom of=/random bs=1M count=2 2> /dev/null\n");
        project.write("Dockerfile", &format!("FROM busybox:latest\n{step}"))?;
        let took = measure(project.kiln.build_command(&project.request), None)?;
        project.kiln.run(["rmi", &project.request.tag])?.success()?;
        longest = longest.max(took.seconds);
        peak = peak.max(took.peak);
        if measured_after.is_none() && size.exists() {
            measured_after = Some(number);
        }
        // Something was deleted for the ceiling.
        if swept.exists() {
            held_after = Some(number);
            break;
        }
    }
    let Some(held_after) = held_after else {
        bail!("after {MOST_BUILDS} builds nothing was deleted; measured after {measured_after:?}")
    };
    report(&format!(
        "builds under a ceiling: measured after {}, held after {held_after}; the longest took {longest:.2} s, peak memory {peak} KiB",
        measured_after.unwrap_or(held_after)
    ));
    // Beside longer builds it has the time to come down, whatever the index and many small layers take.
    let mut longer = 0;
    while du(&project.kiln.root)? > ceiling {
        longer += 1;
        ensure!(
            longer <= LONGER_BUILDS,
            "the store takes {}, the ceiling is {ceiling}",
            du(&project.kiln.root)?
        );
        let step = format!("RUN sleep 20; echo {longer} > /number\n");
        project.write("Dockerfile", &format!("FROM busybox:latest\n{step}"))?;
        bounded(
            &["build"],
            measure(project.kiln.build_command(&project.request), None)?,
        )?;
    }
    report(&format!("under the ceiling after {longer} builds of 20 seconds"));
    for number in 1..=5 {
        let step =
            format!("RUN echo more {number}; dd if=/dev/urandom of=/random bs=1M count=2 2> /dev/null\n");
        project.write("Dockerfile", &format!("FROM busybox:latest\n{step}"))?;
        let took = measure(project.kiln.build_command(&project.request), None)?;
        bounded(&["build"], took)?;
        project.kiln.run(["rmi", &project.request.tag])?.success()?;
        report(&format!(
            "a build near the ceiling: {:.2} s, peak memory {} KiB",
            took.seconds, took.peak
        ));
    }
    let now = du(&project.kiln.root)?;
    ensure!(
        now <= ceiling + 6 * STEP,
        "the store takes {now}, the ceiling is {ceiling}"
    );
    project.kiln.run(["cache", "verify"])?.success()?;
    Ok(())
}

/// What the program `du` finds.
fn du(path: &std::path::Path) -> Result<u64> {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split('\t').next().unwrap_or_default().parse()?)
}

fn prune_to_half(project: &Project) -> Result<()> {
    let before = total(project)?;
    let half = (before / 2).to_string();
    let arguments = ["cache", "prune", "--force", "--max-size", &half];
    let took = measure(project.kiln.command(arguments), None)?;
    let now = total(project)?;
    report(&format!(
        "cache prune --max-size, from {before} to {now} bytes: {:.2} s, peak memory {} KiB",
        took.seconds, took.peak
    ));
    bounded(&arguments, took)?;
    // What images need stays.
    ensure!(now < before, "{now} bytes are left of {before}");
    Ok(())
}

/// Shown with the test's result.
fn report(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "scale: {line}");
}

fn best(project: &Project, runs: usize, run: &dyn Fn(&Project) -> Result<Figures>) -> Result<Figures> {
    let mut best = run(project)?;
    for _ in 1..runs {
        let again = run(project)?;
        best.seconds = best.seconds.min(again.seconds);
        // It is looked at from outside, and the end may be missed.
        best.peak = best.peak.max(again.peak);
    }
    Ok(best)
}

/// Runs a command to its end; its time ends with the first line of standard error that has `word`.
fn measure(mut command: Command, word: Option<&str>) -> Result<Figures> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let word = word.map(str::to_owned);
    let reader = thread::spawn(move || {
        let (mut seen, mut text) = (None, String::new());
        for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
            if seen.is_none() && word.as_ref().is_some_and(|word| line.contains(word.as_str())) {
                seen = Some(start.elapsed());
            }
            text += &line;
            text.push('\n');
        }
        (seen, text)
    });
    let (path, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    let status = loop {
        if let Ok(text) = std::fs::read_to_string(&path) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u32>().ok());
            peak = peak.max(kilobytes.unwrap_or(0));
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_micros(500));
    };
    let whole = start.elapsed();
    let Ok((seen, text)) = reader.join() else {
        bail!("the reader panicked")
    };
    ensure!(status.success(), "{status}\n{text}");
    Ok(Figures {
        seconds: seen.unwrap_or(whole).as_secs_f64(),
        peak,
    })
}
