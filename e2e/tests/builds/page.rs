//! `kiln builds show --html`, in a real browser without a window.

use super::{kiln, project};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Chromium, under any of its names.
fn browser() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| kiln_e2e::machine::program(name))
}

fn skipped() -> Outcome {
    Outcome::Skipped("needs chromium".to_owned())
}

/// What the browser made of a page.
struct Shown {
    source: String,
    /// The document after loading, as text.
    dom: String,
}

impl Shown {
    fn bars(&self) -> usize {
        self.dom.matches("<div class=\"bar ").count()
    }

    fn has(&self, wanted: &[&str]) -> Result<()> {
        for text in wanted {
            ensure!(self.dom.contains(text), "{text} is missing:\n{}", self.dom);
        }
        Ok(())
    }
}

/// Opens the page of the build `id`. The browser must have no complaint and must ask nobody for anything.
fn show(project: &Project, browser: &Path, id: &str) -> Result<Shown> {
    let file = project.scratch("page.html");
    let path = file.to_string_lossy().into_owned();
    kiln(project, &["builds", "show", id, "--html", &path])?;
    let source = std::fs::read_to_string(&file)?;
    let requests = project.scratch("requests.json");
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-default-browser-check",
            // What the page's scripts and policy have to say goes to standard error.
            "--enable-logging=stderr",
            "--v=0",
        ])
        .arg(format!(
            "--user-data-dir={}",
            project.scratch("profile").display()
        ))
        .arg(format!("--log-net-log={}", requests.display()))
        .arg("--dump-dom")
        .arg(format!("file://{path}"))
        .stdin(Stdio::null())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| line.contains(":CONSOLE")).collect();
    ensure!(said.is_empty(), "the browser's console has {said:#?}");
    let log = std::fs::read_to_string(&requests)?;
    ensure!(
        log.contains("\"constants\""),
        "the browser kept no log of its requests"
    );
    ensure!(!log.contains("foreign.example"), "the page asked foreign.example");
    Ok(Shown {
        source,
        dom: String::from_utf8(output.stdout)?,
    })
}

fn latest(project: &Project, browser: &Path) -> Result<Shown> {
    show(project, browser, "latest")
}

pub(crate) fn shows_a_build() -> TestResult {
    let Some(browser) = browser() else {
        return Ok(skipped());
    };
    let script = "FROM busybox:latest\nRUN echo first; sleep 0.2\nCOPY in.txt /in\nRUN cat /in\n";
    let project = project("builds-page", script)?;
    project.try_build(&[])?.success()?;
    project.write("in.txt", "two\n")?;
    project.try_build(&[])?.success()?;
    let shown = latest(&project, &browser)?;
    for foreign in ["http://", "https://", "url(", "<script", "<link", "@import"] {
        ensure!(!shown.source.contains(foreign), "the page has {foreign}");
    }
    ensure!(shown.bars() == 5, "{} bars:\n{}", shown.bars(), shown.dom);
    shown.has(&[
        "Content-Security-Policy\" content=\"default-src 'none';",
        "id=\"step-1\"",
        "step cached",
        "step ran critical",
        "class=\"bar ran critical\"",
        "why: [3/4] COPY in.txt /in: in.txt changed (1 more step ran)",
        "class=\"tile\"",
        "<pre>two",
        "builds-page:test \u{b7} build",
    ])?;
    project.try_build(&[])?.success()?;
    let cached = latest(&project, &browser)?;
    ensure!(cached.bars() == 5, "{} bars:\n{}", cached.bars(), cached.dom);
    cached.has(&["every step was cached", "<b>3 / 3</b>"])?;
    ensure!(!cached.dom.contains("bar ran"), "{}", cached.dom);
    Ok(Outcome::Passed)
}

/// Six stages of ten steps, with names of any length: a bar a step, a heading a stage.
pub(crate) fn of_many_steps() -> TestResult {
    let Some(browser) = browser() else {
        return Ok(skipped());
    };
    let mut script = String::new();
    for stage in 0..6 {
        writeln!(
            script,
            "FROM busybox:latest AS a-stage-with-a-rather-long-name-{stage}"
        )?;
        for step in 0..9 {
            let long = "and-on-".repeat(20);
            writeln!(
                script,
                "RUN mkdir -p /s{stage} && echo {long}{step} > /s{stage}/{step}"
            )?;
        }
    }
    for stage in 0..5 {
        writeln!(
            script,
            "COPY --from=a-stage-with-a-rather-long-name-{stage} /s{stage} /s{stage}"
        )?;
    }
    let project = project("builds-page-many", &script)?;
    project.try_build(&["-q"])?.success()?;
    let shown = latest(&project, &browser)?;
    // The one base, nine steps in each of six stages, five copies.
    ensure!(shown.bars() == 60, "{} bars", shown.bars());
    let headings = shown.dom.matches("class=\"row stage\"").count();
    ensure!(headings == 6, "{headings} headings:\n{}", shown.dom);
    shown.has(&[
        ">a-stage-with-a-rather-long-name-5<small>nothing cached</small>",
        ">15/15 COPY --from=a-stage-with-a-rather-long-name-4 /s4 /s4<",
    ])?;
    Ok(Outcome::Passed)
}

pub(crate) fn of_a_failed_build() -> TestResult {
    let Some(browser) = browser() else {
        return Ok(skipped());
    };
    let script = "FROM busybox:latest\nRUN echo before\nRUN seq 1 300000; echo the last words; exit 3\nRUN echo never\n";
    let project = project("builds-page-failed", script)?;
    project.try_build(&["-q"])?.failure(1)?;
    let shown = latest(&project, &browser)?;
    ensure!(shown.bars() == 3, "{} bars:\n{}", shown.bars(), shown.dom);
    shown.has(&[
        "<span class=\"status failed\">failed</span>",
        "exit code: 3",
        "the last words",
        " bytes are not shown here: kiln builds logs ",
    ])?;
    let failed = shown
        .dom
        .split("<details ")
        .find(|step| step.starts_with("class=\"step failed"));
    ensure!(
        failed.is_some_and(|step| step.split('>').next().is_some_and(|tag| tag.contains(" open"))),
        "the failed step is not unfolded:\n{}",
        shown.dom
    );
    Ok(Outcome::Passed)
}

/// Names, logs and messages are text, whatever they hold.
pub(crate) fn executes_nothing() -> TestResult {
    const EVIL: &str = "</pre></summary></details></title></style><script>document.title=1</script>\
        <img src=http://foreign.example/x onerror=document.title=2><link rel=stylesheet href=http://foreign.example/y>\
        <iframe src=http://foreign.example/z></iframe>";
    let Some(browser) = browser() else {
        return Ok(skipped());
    };
    let script = format!(
        "FROM busybox:latest\nCOPY evil /evil\nRUN : '{EVIL}'; cat /evil; printf '\\033[31mred\\033[0m 10%%\\r20%%\\n'\n\
         RUN : '{EVIL}'; cat /evil; exit 1\n"
    );
    let project = project("builds-page-evil", &script)?;
    project.write("evil", EVIL)?;
    project.try_build(&["-q"])?.failure(1)?;
    let shown = latest(&project, &browser)?;
    ensure!(shown.bars() == 5, "{} bars:\n{}", shown.bars(), shown.dom);
    for element in ["<script", "<img", "<link", "<iframe"] {
        ensure!(!shown.dom.contains(element), "{element}:\n{}", shown.dom);
    }
    // Once as name, attribute and fact of each of the two steps, and once in each log; and in the message.
    let shown_as_text = shown.dom.matches("&lt;script&gt;document.title=1").count();
    ensure!(
        shown_as_text >= 8,
        "{shown_as_text} times as text:\n{}",
        shown.dom
    );
    shown.has(&["<title>docker.io/library/builds-page-evil:test", "<pre>20%"])?;
    Ok(Outcome::Passed)
}
