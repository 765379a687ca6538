//! Why a step ran: what `kiln why` says after each change that the cache cares about, and after each that it does not.

use kiln_e2e::builder::Ended;
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[path = "why/rows.rs"]
mod rows;

use rows::{COPY, NOTHING, OWNER, ROWS, Row, STAGES, base};

/// What is no row of the table.
const OTHERS: &[Named] = &[
    ("owner of a context's file", owner),
    ("a context elsewhere of equal metadata", context_elsewhere),
    ("file at an address", file_at_address),
    ("cache-ttl", cache_ttl),
    ("of one step, and as JSON", of_one_step),
    ("the summary says it in one line", summary),
    ("a cached build writes its record and nothing else", cached_build),
    ("a folded selection still tells where", folded),
    ("a result that is gone", result_gone),
    ("every row of the truth table is held", truth_table),
];

fn main() -> ExitCode {
    let rows = ROWS
        .iter()
        .map(|row| trial::test(format!("why/{}", row.name), || check(row)));
    let others = OTHERS
        .iter()
        .map(|(name, run)| trial::test(format!("why/{name}"), *run));
    trial::run(rows.chain(others).collect())
}

/// The table at the head of `caching/main.rs` names the tests of this file, row by row.
fn truth_table() -> TestResult {
    let text = std::fs::read_to_string(machine::checkout().join("e2e/tests/caching/main.rs"))?;
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("//! | "))
        .skip(1)
        .collect();
    ensure!(rows.len() > 30, "only {} rows", rows.len());
    for row in rows {
        let cell = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        for name in cell.split("; ") {
            let known = name.strip_prefix("why/").is_some_and(|name| {
                ROWS.iter().any(|row| row.name == name) || OTHERS.iter().any(|(other, _)| *other == name)
            });
            ensure!(known, "{row}\nnames no test of this file: {name}");
        }
    }
    Ok(Outcome::Passed)
}

fn project(name: &str, dockerfile: &str) -> Result<Project> {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let files = [
        ("Dockerfile", dockerfile),
        (".dockerignore", "Dockerfile\n.dockerignore\n*.log\n"),
        ("pkg.txt", "one\n"),
        ("lib/x.txt", "x\n"),
    ];
    Project::new(&name.to_lowercase(), &files)
}

/// The build's standard error. It must succeed.
fn build(project: &Project, arguments: &[&str]) -> Result<String> {
    Ok(try_build(project, arguments)?.success()?.stderr)
}

fn try_build(project: &Project, arguments: &[&str]) -> Result<Ended> {
    let context = project.request.context.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|text| text.replace("@CONTEXT@", &context))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    project.try_build(&arguments)
}

fn why(project: &Project, arguments: &[&str]) -> Result<String> {
    let all = ["why"].iter().chain(arguments).copied();
    Ok(project.kiln.run(all)?.success()?.stdout)
}

/// What differs from run to run.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for (at, piece) in text.split("sha256:").enumerate() {
        let digits = piece.bytes().take_while(u8::is_ascii_hexdigit).count();
        if at > 0 {
            masked.push_str("sha256:…");
            masked.push_str(&piece[digits..]);
        } else {
            masked.push_str(piece);
        }
    }
    match masked.split_once("(saved ") {
        Some((before, rest)) => {
            let after = rest.split_once("s)").map_or("", |(_, after)| after);
            format!("{before}(saved …s){after}")
        }
        None => masked,
    }
}

fn check(row: &Row) -> TestResult {
    let project = project(row.name, row.dockerfile)?;
    if row.dockerfile.starts_with("FROM base:1") {
        base(&project, "one")?;
    }
    // One row is about a build that fails at first.
    try_build(&project, row.arguments[0])?;
    (row.change)(&project)?;
    let built = build(&project, row.arguments[1])?;
    let found = masked(&why(&project, &[])?);
    ensure!(
        found == row.expected,
        "found:\n{found}\nexpected:\n{}\nthe build said:\n{built}",
        row.expected
    );
    // One line in the summary, and none where nothing ran.
    let ran = |line: &str| line.starts_with("    ") && !line.contains("kept: ");
    let told = built.lines().filter(|line| line.starts_with("why: ")).count();
    ensure!(
        told == usize::from(row.expected.lines().any(ran)),
        "the summary:\n{built}"
    );
    Ok(Outcome::Passed)
}

fn owner() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root to give files away".to_owned()));
    }
    check(&OWNER)
}

/// A machine that checks out anew each time builds from another folder each time: compared all the same.
fn context_elsewhere() -> TestResult {
    let mut project = project("why-elsewhere", "FROM busybox:latest\n")?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for text in ["aaa\n", "bbb\n"] {
        let context = project.scratch(text.trim());
        std::fs::create_dir(&context)?;
        std::fs::write(
            context.join("Dockerfile"),
            "FROM busybox:latest\nCOPY pkg.txt /f\nRUN cp /f /g\n",
        )?;
        std::fs::write(context.join("pkg.txt"), text)?;
        File::options()
            .write(true)
            .open(context.join("pkg.txt"))?
            .set_modified(time)?;
        project.request.context = context;
        build(&project, &[])?;
    }
    let found = why(&project, &[])?;
    ensure!(
        found
            == "[2/3] COPY pkg.txt /f  (Dockerfile:2)\n    pkg.txt changed\n\
                [3/3] RUN cp /f /g  (Dockerfile:3)\n    after [2/3] COPY pkg.txt /f\n",
        "{found}"
    );
    Ok(Outcome::Passed)
}

fn file_at_address() -> TestResult {
    let server = kiln_e2e::remote::Server::start()?;
    server.put("/f", "one\n", &[("ETag", "\"v1\"")]);
    let url = server.url("/f");
    let project = project(
        "why-address",
        &format!("FROM busybox:latest\nADD {url} /f\nRUN cp /f /g\n"),
    )?;
    build(&project, &[])?;
    build(&project, &[])?;
    let unchanged = why(&project, &[])?;
    ensure!(unchanged == NOTHING, "{unchanged}");
    server.put("/f", "one\n", &[("ETag", "\"v2\"")]);
    build(&project, &[])?;
    let same = why(&project, &[])?;
    ensure!(
        masked(&same) == "early cutoff: 2 steps were kept, their inputs came out the same (saved …s)\n",
        "{same}"
    );
    server.put("/f", "two\n", &[("ETag", "\"v3\"")]);
    build(&project, &[])?;
    let changed = why(&project, &[])?.replace(&url, "URL");
    ensure!(
        changed
            == "[2/3] ADD URL /f  (Dockerfile:2)\n    f changed\n\
                [3/3] RUN cp /f /g  (Dockerfile:3)\n    after [2/3] ADD URL /f\n",
        "{changed}"
    );
    Ok(Outcome::Passed)
}

fn cache_ttl() -> TestResult {
    let project = project("why-ttl", "FROM busybox:latest\nRUN echo x > /x\n")?;
    build(&project, &[])?;
    build(&project, &["--cache-ttl", "0s"])?;
    let told = why(&project, &[])?;
    let (before, after) = (
        "[2/2] RUN echo x > /x  (Dockerfile:2)\n    its result is ",
        "s old, and --cache-ttl is 0ms\n",
    );
    ensure!(told.starts_with(before) && told.ends_with(after), "{told}");
    Ok(Outcome::Passed)
}

fn of_one_step() -> TestResult {
    let project = project("why-one-step", COPY)?;
    build(&project, &[])?;
    project.write("pkg.txt", "two\n")?;
    build(&project, &[])?;
    let by_words = why(&project, &["COPY"])?;
    ensure!(
        by_words.contains("pkg.txt changed") && !by_words.contains("RUN ls"),
        "{by_words}"
    );
    let by_number = why(&project, &["3"])?;
    ensure!(by_number == by_words, "{by_number}");
    let json: serde_json::Value = serde_json::from_str(&why(&project, &["--format", "json"])?)?;
    let first = &json["steps"][0];
    ensure!(first["why"]["cause"] == "changed" && first["line"] == 2, "{json}");
    let files = &first["why"]["differences"][0];
    ensure!(
        files["what"] == "files" && files["changes"]["changed"] == 1,
        "{files}"
    );
    ensure!(files["changes"]["first"][0][0] == "pkg.txt", "{files}");
    let missing = project.kiln.run(["why", "RUN nosuch"])?;
    ensure!(
        missing.code != Some(0) && missing.stderr.contains("has no step RUN nosuch"),
        "{missing:?}"
    );
    let earlier = project.kiln.run(["builds", "ls", "-q"])?.success()?.stdout;
    let first_build = earlier.lines().last().unwrap_or_default();
    let text = why(&project, &["--build", first_build])?;
    ensure!(text.contains("no earlier record"), "{text}");
    Ok(Outcome::Passed)
}

fn summary() -> TestResult {
    let project = project("why-summary", COPY)?;
    let first = build(&project, &[])?;
    ensure!(
        first
            .trim_end()
            .ends_with("why: no earlier build of this Dockerfile and target"),
        "{first}"
    );
    project.write("pkg.txt", "two\n")?;
    project.write("new.txt", "new\n")?;
    let second = build(&project, &["--explain"])?;
    let line = "\nwhy: [2/3] COPY . /src/: pkg.txt changed, new.txt added (1 more step ran)\n";
    ensure!(second.contains(line), "{second}");
    ensure!(
        second.contains("[3/3] RUN ls /src > /list  (Dockerfile:3)\n    after"),
        "{second}"
    );
    project.write("pkg.txt", "three\n")?;
    let mut command = project.kiln.command(["build", "--progress", "rawjson"]);
    let json = kiln_e2e::builder::run(command.arg(&project.request.context))?
        .success()?
        .stderr;
    let told = json
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line.get("summary").is_some());
    let told = told.unwrap_or_default();
    ensure!(
        told["summary"]["why"][0]["differences"][0]["what"] == "files",
        "{json}"
    );
    let quiet = build(&project, &["-q", "--no-cache"])?;
    ensure!(!quiet.contains("why:"), "{quiet}");
    Ok(Outcome::Passed)
}

/// All files below `root`, by their paths in it.
fn files_below(root: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                names.push(entry.path().strip_prefix(root)?.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

fn cached_build() -> TestResult {
    let project = project("why-cached", STAGES)?;
    build(&project, &[])?;
    let mut left = Vec::new();
    // Files that just changed are not remembered yet: the builds shortly after write down what they saw.
    for _ in 0..10 {
        let before = files_below(&project.kiln.root)?;
        build(&project, &[])?;
        left = files_below(&project.kiln.root)?;
        left.retain(|name| {
            !before.contains(name) && !name.starts_with("index/") && !name.starts_with("tmp/")
        });
        if matches!(left.as_slice(), [one] if one.strip_suffix(".json").is_some_and(|id| id.starts_with("builds/")))
        {
            return Ok(Outcome::Passed);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!("a cached build left {left:?}")
}

fn folded() -> TestResult {
    let project = project("why-folded", COPY)?;
    for folder in 0..90 {
        for file in 0..100 {
            project.write(&format!("many/{folder}/{file}"), "x")?;
        }
    }
    build(&project, &[])?;
    project.write("many/17/4", "y")?;
    build(&project, &[])?;
    let text = why(&project, &["COPY"])?;
    ensure!(text.contains("    many/17 changed\n"), "{text}");
    Ok(Outcome::Passed)
}

fn result_gone() -> TestResult {
    let project = project("why-gone", "FROM busybox:latest\nRUN echo x > /x\n")?;
    let layers = || -> Result<Vec<std::path::PathBuf>> {
        let entries = std::fs::read_dir(project.kiln.root.join("layers"))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let of_base = layers()?;
    build(&project, &[])?;
    for layer in layers()?.iter().filter(|layer| !of_base.contains(layer)) {
        std::fs::remove_dir_all(layer)?;
    }
    build(&project, &[])?;
    let text = why(&project, &[])?;
    ensure!(text.contains("its layer is no longer in the store"), "{text}");
    Ok(Outcome::Passed)
}
