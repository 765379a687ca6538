//! The history of builds: `kiln builds ls|show|logs|diff|rm`, and the page.

use kiln_e2e::project::Project;
use kiln_e2e::random::Random;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

#[path = "builds/page.rs"]
mod page;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("every build leaves a record", records),
        ("logs are whole", logs),
        ("two builds are compared", diff),
        ("builds are removed", removed),
        ("a killed build is told from a running one", killed),
        ("a log of 50 MiB is whole", large_log),
        ("the oldest logs go first", bounded_logs),
        ("the page in a browser", page::shows_a_build),
        ("the page of a build of many steps", page::of_many_steps),
        ("the page of a failed build", page::of_a_failed_build),
        ("the page executes nothing", page::executes_nothing),
    ];
    trial::run_all("builds", tests)
}

const TWO: &str = "FROM busybox:latest\nCOPY in.txt /in\nRUN echo hello; cat /in; cp /in /out\n";

fn project(name: &str, dockerfile: &str) -> Result<Project> {
    Project::new(name, &[("Dockerfile", dockerfile), ("in.txt", "one\n")])
}

fn kiln(project: &Project, arguments: &[&str]) -> Result<String> {
    Ok(project.kiln.run(arguments)?.success()?.stdout)
}

fn json(project: &Project, arguments: &[&str]) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&kiln(project, arguments)?)?)
}

fn ids(project: &Project) -> Result<Vec<String>> {
    let text = kiln(project, &["builds", "ls", "-q"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn records() -> TestResult {
    let project = project("builds-records", TWO)?;
    project.try_build(&[])?.success()?;
    project.try_build(&[])?.success()?;
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo oh; exit 3\n")?;
    let failed = project.try_build(&[])?;
    project.write("Dockerfile", "FROM busybox:latest\nRUNN x\n")?;
    ensure!(
        project.try_build(&[])?.code != Some(0),
        "a wrong Dockerfile was built"
    );
    let lines: Vec<serde_json::Value> = kiln(&project, &["builds", "ls", "--format", "json"])?
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    let found: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {}/{}", line["Status"], line["CachedSteps"], line["Steps"]))
        .collect();
    ensure!(
        found == ["\"failed\" 0/0", "\"failed\" 0/1", "\"done\" 2/2", "\"done\" 0/2"],
        "{found:?}"
    );
    let ids = ids(&project)?;
    let first = json(&project, &["builds", "show", &ids[3], "--format", "json"])?;
    let steps = first["steps"].as_array().cloned().unwrap_or_default();
    let outcomes: Vec<&str> = steps.iter().filter_map(|step| step["outcome"].as_str()).collect();
    ensure!(
        outcomes.iter().filter(|outcome| **outcome == "ran").count() >= 2,
        "{first:#}"
    );
    ensure!(
        first["exit_code"] == 0
            && first["platform"]
                .as_str()
                .is_some_and(|text| text.starts_with("linux/")),
        "{first:#}"
    );
    ensure!(
        first["dockerfile_hash"]
            .as_str()
            .is_some_and(|hash| hash.len() == 64),
        "{first:#}"
    );
    let from = steps.iter().find(|step| step["source"].is_object());
    ensure!(
        from.is_some_and(|step| step["source"]["digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:"))),
        "{first:#}"
    );
    let broken = json(&project, &["builds", "show", &ids[1], "--format", "json"])?;
    ensure!(broken["exit_code"] == 1, "{broken:#}");
    let log = kiln(&project, &["builds", "logs", &ids[1], "--step", "RUN"])?;
    ensure!(log == "oh\n", "{log}");
    let hint = failed
        .stderr
        .lines()
        .find_map(|line| line.split_once("kiln builds logs "));
    ensure!(
        hint.is_some_and(|(_, id)| id.trim() == ids[1]),
        "{}",
        failed.stderr
    );
    let wrong = json(&project, &["builds", "show", "latest", "--format", "json"])?;
    let message = wrong["outcome"]["failed"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(message.contains("RUNN"), "{message}");
    for (arguments, text) in [
        (["builds", "show", "zzz"], "no build with the id zzz"),
        (["builds", "show", "0"], "builds have an id that begins with 0"),
    ] {
        let ended = project.kiln.run(arguments)?;
        ensure!(ended.code != Some(0) && ended.stderr.contains(text), "{ended:?}");
    }
    Ok(Outcome::Passed)
}

fn logs() -> TestResult {
    let script = "FROM busybox:latest\nRUN seq 1 200000; printf 'no newline'\nRUN true\nRUN echo second\n";
    let project = project("builds-logs", script)?;
    project.try_build(&[])?.success()?;
    let log = kiln(&project, &["builds", "logs", "--step", "seq"])?;
    let mut expected = String::new();
    for number in 1..=200_000 {
        writeln!(expected, "{number}")?;
    }
    ensure!(
        log == format!("{expected}no newline"),
        "{} bytes, expected {}",
        log.len(),
        expected.len() + 10
    );
    let all = kiln(&project, &["builds", "logs"])?;
    ensure!(
        all.ends_with("no newline\n=== [3/4] RUN true\n=== [4/4] RUN echo second\nsecond\n"),
        "{}",
        &all[all.len() - 200..]
    );
    let stored: u64 = std::fs::read_dir(log_folder(&project)?)?
        .map(|file| Ok(file?.metadata()?.len()))
        .sum::<Result<u64>>()?;
    ensure!(
        stored * 2 < log.len() as u64,
        "{stored} bytes for a log of {}",
        log.len()
    );
    Ok(Outcome::Passed)
}

fn log_folder(project: &Project) -> Result<PathBuf> {
    let mut folders = std::fs::read_dir(project.kiln.root.join("builds"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    folders.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    folders.pop().ok_or_else(|| "no logs".into())
}

fn diff() -> TestResult {
    let project = project("builds-diff", TWO)?;
    project.try_build(&[])?.success()?;
    project.write("in.txt", "two\n")?;
    project.try_build(&[])?.success()?;
    project.try_build(&[])?.success()?;
    let ids = ids(&project)?;
    let text = kiln(&project, &["builds", "diff", &ids[1], "latest"])?;
    for has in ["[2/3] COPY in.txt /in", "ran", "cached", "steps differ"] {
        ensure!(text.contains(has), "{has}: {text}");
    }
    ensure!(
        kiln(&project, &["builds", "diff"])? == text,
        "the latest is not compared with the one before"
    );
    project.write("Dockerfile", "FROM busybox:latest AS other\nRUN echo other\n")?;
    project.try_build(&["--target", "other"])?.success()?;
    let alone = project.kiln.run(["builds", "diff"])?;
    let stderr = alone.failure(1)?;
    ensure!(stderr.contains("there is no other build"), "{stderr}");
    let value = json(
        &project,
        &["builds", "diff", &ids[2], &ids[1], "--format", "json"],
    )?;
    let steps = value["steps"].as_array().cloned().unwrap_or_default();
    let copy = steps.iter().find(|step| {
        step["after"]["name"]
            .as_str()
            .is_some_and(|name| name.contains("COPY"))
    });
    ensure!(
        copy.is_some_and(|step| step["differs"] == true && step["after"]["why"]["cause"] == "changed"),
        "{value:#}"
    );
    Ok(Outcome::Passed)
}

fn removed() -> TestResult {
    let project = project("builds-removed", TWO)?;
    for _ in 0..3 {
        project.try_build(&["--no-cache"])?.success()?;
    }
    let before = ids(&project)?;
    let gone = kiln(&project, &["builds", "rm", &before[1]])?;
    ensure!(gone.trim() == before[1], "{gone}");
    ensure!(
        ids(&project)? == [before[0].clone(), before[2].clone()],
        "the wrong one went"
    );
    ensure!(
        project.kiln.run(["builds", "rm", &before[1]])?.code != Some(0),
        "removed twice"
    );
    kiln(&project, &["builds", "rm", "--all"])?;
    ensure!(ids(&project)?.is_empty(), "builds are left");
    let left: Vec<_> = std::fs::read_dir(project.kiln.root.join("builds"))?.collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(
        kiln(&project, &["cache", "verify"])?.contains("no damage"),
        "damage"
    );
    Ok(Outcome::Passed)
}

fn killed() -> TestResult {
    let project = project("builds-killed", "FROM busybox:latest\nRUN echo begun; sleep 60\n")?;
    let mut child = project
        .kiln
        .build_command(&project.request)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status = || -> Result<String> {
        let lines = kiln(&project, &["builds", "ls", "--format", "json"])?;
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap_or("{}"))?;
        Ok(line["Status"].as_str().unwrap_or_default().to_owned())
    };
    let began = Instant::now();
    while status()? != "running" {
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "the build is not seen: {}",
            status()?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let busy = project.kiln.run(["builds", "rm", "latest"])?;
    ensure!(busy.stderr.contains("is running"), "{busy:?}");
    child.kill()?;
    child.wait()?;
    ensure!(status()? == "killed", "{}", status()?);
    kiln(&project, &["builds", "rm", "latest"])?;
    ensure!(ids(&project)?.is_empty(), "the killed build is left");
    Ok(Outcome::Passed)
}

/// Bytes of any value, lines as long as they come, both streams: nothing is clipped and nothing is changed.
fn large_log() -> TestResult {
    const LENGTH: usize = 50 << 20;
    let script = "FROM busybox:latest\nRUN --mount=target=/c cat /c/noise; cat /c/noise >&2\n";
    let project = project("builds-large-log", script)?;
    let half = Random::new(1).bytes(LENGTH / 2);
    std::fs::write(project.path("noise"), &half)?;
    project.try_build(&["-q"])?.success()?;
    let output = project
        .kiln
        .command(["builds", "logs", "--step", "cat"])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = output.stdout;
    ensure!(log.len() == LENGTH, "{} bytes", log.len());
    // One after the other, as the step wrote them.
    ensure!(
        log[..LENGTH / 2] == half[..] && log[LENGTH / 2..] == half[..],
        "other bytes than the step's"
    );
    Ok(Outcome::Passed)
}

/// The bound holds over builds: the oldest logs go, their builds stay, and whoever asks is told.
fn bounded_logs() -> TestResult {
    let project = project("builds-bounded", TWO)?;
    let mut built = Vec::new();
    for _ in 0..3 {
        project.try_build(&["--no-cache"])?.success()?;
        built.extend(ids(&project)?.into_iter().next());
    }
    // A log of 1 GiB without writing one: its size counts.
    let folder = project.kiln.root.join("builds");
    let whole = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    let of = |id: &str| {
        let log = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(id) && name.ends_with(".log")
        };
        whole.iter().find(log).ok_or("no log")
    };
    let (first, middle, last) = (of(&built[0])?, of(&built[1])?, of(&built[2])?);
    for file in std::fs::read_dir(middle)? {
        std::fs::File::options()
            .write(true)
            .open(file?.path())?
            .set_len(1 << 30)?;
    }
    // Upkeep comes with builds, in the background of one that takes its time.
    project.write("Dockerfile", "FROM busybox:latest\nRUN sleep 1\n")?;
    let began = Instant::now();
    while first.exists() || middle.exists() {
        ensure!(began.elapsed() < Duration::from_mins(1), "the old logs stay");
        project.try_build(&["--no-cache"])?.success()?;
    }
    ensure!(last.exists(), "a newer log went");
    ensure!(ids(&project)?.contains(&built[0]), "the build itself went");
    let gone = project.kiln.run(["builds", "logs", &built[0]])?.failure(1)?;
    ensure!(gone.contains("no longer kept"), "{gone}");
    let log = kiln(&project, &["builds", "logs", &built[2]])?;
    ensure!(log.contains("hello\none\n"), "{log}");
    Ok(Outcome::Passed)
}
