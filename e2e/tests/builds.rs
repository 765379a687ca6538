//! The history of builds: `kiln builds ls|show|logs|diff|rm`, and the page.

use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("every build leaves a record", records),
        ("logs are whole", logs),
        ("two builds are compared", diff),
        ("builds are removed", removed),
        ("a killed build is told from a running one", killed),
        ("the page in a browser", page),
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

/// Chromium, under any of its names.
fn browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

fn dump(browser: &Path, page: &Path, profile: &Path) -> Result<String> {
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn page() -> TestResult {
    let Some(browser) = browser() else {
        return Ok(Outcome::Skipped("needs chromium".to_owned()));
    };
    let script = "FROM busybox:latest\nRUN echo '<script>document.title=1</script>'; sleep 0.2\nCOPY in.txt /in\nRUN cat /in\n";
    let project = project("builds-page", script)?;
    project.try_build(&[])?.success()?;
    project.write("in.txt", "two\n")?;
    project.try_build(&[])?.success()?;
    let file = project.scratch("page.html");
    let path = file.to_string_lossy().into_owned();
    kiln(&project, &["builds", "show", "--html", &path])?;
    let source = std::fs::read_to_string(&file)?;
    for foreign in ["http://", "https://", "url(", "<script", "<link", "@import"] {
        ensure!(!source.contains(foreign), "the page has {foreign}");
    }
    let dom = dump(&browser, &file, &project.scratch("profile"))?;
    let steps = dom.matches("<details class=\"step").count();
    ensure!(steps == 5, "{steps} steps:\n{dom}");
    for has in [
        "id=\"step-1\"",
        "step cached",
        "step ran critical",
        "class=\"bar ran critical\"",
        "in.txt changed",
        "class=\"tile\"",
        "<pre class=\"log\">two",
        "builds-page:test \u{b7} build",
    ] {
        ensure!(dom.contains(has), "{has}:\n{dom}");
    }
    let first = kiln(&project, &["builds", "ls", "-q"])?;
    let first = first.lines().last().unwrap_or_default();
    kiln(&project, &["builds", "show", first, "--html", &path])?;
    let dom = dump(&browser, &file, &project.scratch("profile"))?;
    ensure!(
        dom.contains("&lt;script&gt;document.title=1"),
        "the log is not there as text:\n{dom}"
    );
    ensure!(
        dom.contains("<title>docker.io/library/builds-page:test"),
        "the title was changed:\n{dom}"
    );
    Ok(Outcome::Passed)
}
