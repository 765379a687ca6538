//! `testdata/traps.toml`: every trap of the Dockerfile language has a case, every case that is named exists, and every
//! case whose name starts with a trap's number is listed. `docs/traps.md` says the same for people.
//!
//! With `KILN_UPDATE_EXPECTED=1` both files are rewritten from the cases that exist.

use kiln_e2e::case::Case;
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, ensure, machine};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// The traps are numbered from 1 to this.
const LAST: u32 = 53;

/// What stands above the list.
const HEAD: &str = "\
# The traps of the Dockerfile language: what holds, and which cases show it. `e2e/tests/traps.rs` checks that none is
# without a case, and with KILN_UPDATE_EXPECTED=1 adds the cases whose names start with a trap's number and rewrites
# docs/traps.md. `cases` are folders of testdata/build, or of testdata/parser with `parser/` before them; `tests` are
# end-to-end tests, `FILE/NAME`.
";

/// What stands above the report.
const TITLE: &str = "\
# The traps of the Dockerfile language

What implementations of the language get wrong, what Kiln does, and the cases that show it. Cases are folders of
`testdata/build`; those that begin with `parser/` are folders of `testdata/parser`; `caching/…` are end-to-end tests.
This file is made from `testdata/traps.toml` by `e2e/tests/traps.rs`.
";

fn main() -> ExitCode {
    trial::run_all(
        "traps",
        &[
            ("every trap has a case", every_trap_has_a_case),
            ("every case and test exists", every_case_exists),
            (
                "every case of a trap's number is listed",
                every_numbered_case_is_listed,
            ),
            ("the report is up to date", report_is_up_to_date),
        ],
    )
}

/// One trap.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trap {
    number: u32,
    /// What holds, in a sentence.
    holds: String,
    #[serde(default)]
    cases: BTreeSet<String>,
    #[serde(default)]
    tests: BTreeSet<String>,
    /// Why there is no case yet.
    missing: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Traps {
    trap: Vec<Trap>,
}

fn list_file() -> PathBuf {
    machine::testdata().join("traps.toml")
}

fn report_file() -> PathBuf {
    machine::checkout().join("docs/traps.md")
}

fn is_updating() -> bool {
    std::env::var_os("KILN_UPDATE_EXPECTED").is_some()
}

/// The list; when it is being updated, with the cases that it lacks.
fn traps() -> Result<Vec<Trap>> {
    let file = list_file();
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut traps = toml::from_str::<Traps>(&text)
        .map_err(|error| format!("{}: {error}", file.display()))?
        .trap;
    if is_updating() {
        let names = names()?;
        for trap in &mut traps {
            let numbered = names.iter().filter(|name| numbers(name).contains(&trap.number));
            trap.cases.extend(numbered.cloned());
            if !trap.cases.is_empty() {
                trap.missing = None;
            }
        }
    }
    Ok(traps)
}

/// The names of all cases.
fn names() -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = Case::all()?.into_iter().map(|case| case.name).collect();
    for entry in std::fs::read_dir(machine::testdata().join("parser"))? {
        names.insert(format!("parser/{}", entry?.file_name().to_string_lossy()));
    }
    Ok(names)
}

/// The numbers that a case's name has: `e18-e19-names` has two.
fn numbers(name: &str) -> Vec<u32> {
    let words = name.trim_start_matches("parser/").split('-');
    words
        .map_while(|word| word.strip_prefix('e')?.parse().ok())
        .collect()
}

fn every_trap_has_a_case() -> TestResult {
    let traps = traps()?;
    let found: Vec<u32> = traps.iter().map(|trap| trap.number).collect();
    ensure!(
        found == (1..=LAST).collect::<Vec<_>>(),
        "traps are numbered from 1 to {LAST}: {found:?}"
    );
    for trap in &traps {
        let is_shown = !trap.cases.is_empty() || !trap.tests.is_empty();
        ensure!(
            is_shown != trap.missing.is_some(),
            "trap {} needs a case, or the reason why there is none yet (and not both)",
            trap.number
        );
        ensure!(!trap.holds.is_empty(), "trap {} says nothing", trap.number);
    }
    Ok(Outcome::Passed)
}

fn every_case_exists() -> TestResult {
    let names = names()?;
    for trap in traps()? {
        for case in &trap.cases {
            ensure!(
                names.contains(case),
                "trap {}: there is no case {case}",
                trap.number
            );
        }
        for test in &trap.tests {
            let Some((file, name)) = test.split_once('/') else {
                return Err(format!("trap {}: {test} is not FILE/NAME", trap.number).into());
            };
            ensure!(
                list_of_tests(file)?.contains(&format!("\"{name}\"")),
                "trap {}: {file} has no test {name:?}",
                trap.number
            );
        }
    }
    Ok(Outcome::Passed)
}

/// The source that lists the tests of a program: one file, or the main one of a folder.
fn list_of_tests(program: &str) -> Result<String> {
    let tests = machine::checkout().join("e2e/tests");
    let folder = tests.join(program).join("main.rs");
    let file = if folder.exists() {
        folder
    } else {
        tests.join(format!("{program}.rs"))
    };
    Ok(std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?)
}

fn every_numbered_case_is_listed() -> TestResult {
    let traps = traps()?;
    let listed: BTreeMap<u32, &BTreeSet<String>> =
        traps.iter().map(|trap| (trap.number, &trap.cases)).collect();
    for name in names()? {
        for number in numbers(&name) {
            let is_listed = listed.get(&number).is_some_and(|cases| cases.contains(&name));
            ensure!(
                is_listed,
                "testdata/traps.toml does not list {name}: run this test with KILN_UPDATE_EXPECTED=1"
            );
        }
    }
    Ok(Outcome::Passed)
}

fn report_is_up_to_date() -> TestResult {
    let traps = traps()?;
    let (list, report) = (render_list(&traps), render_report(&traps)?);
    if is_updating() {
        std::fs::write(list_file(), list)?;
        std::fs::write(report_file(), report)?;
        return Ok(Outcome::Passed);
    }
    for (file, expected) in [(list_file(), list), (report_file(), report)] {
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        ensure!(
            found == expected,
            "{} is not what the list makes: run this test with KILN_UPDATE_EXPECTED=1",
            file.display()
        );
    }
    Ok(Outcome::Passed)
}

/// The list as it is kept.
fn render_list(traps: &[Trap]) -> String {
    let mut text = HEAD.to_owned();
    // A string of JSON is one of TOML, too.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    for trap in traps {
        let _ = write!(
            text,
            "\n[[trap]]\nnumber = {}\nholds = {}\n",
            trap.number,
            quoted(&trap.holds)
        );
        for (key, names) in [("cases", &trap.cases), ("tests", &trap.tests)] {
            if !names.is_empty() {
                let lines: Vec<String> = names
                    .iter()
                    .map(|name| format!("    {},\n", quoted(name)))
                    .collect();
                let lines = lines.concat();
                let _ = write!(text, "{key} = [\n{lines}]\n");
            }
        }
        if let Some(missing) = &trap.missing {
            let _ = writeln!(text, "missing = {}", quoted(missing));
        }
    }
    text
}

/// The report: each trap, its cases, and where Docker does otherwise.
fn render_report(traps: &[Trap]) -> Result<String> {
    let cases: BTreeMap<String, Case> = Case::all()?
        .into_iter()
        .map(|case| (case.name.clone(), case))
        .collect();
    let mut text = TITLE.to_owned();
    for trap in traps {
        let _ = write!(text, "\n## E-{:02}\n\n{}.\n\n", trap.number, trap.holds);
        if let Some(missing) = &trap.missing {
            let _ = writeln!(text, "Not shown yet: {missing}.");
        }
        for name in &trap.cases {
            let about = cases.get(name).map_or(String::new(), |case| {
                let docker = case.settings.differs.get("docker");
                let docker = docker.map_or(String::new(), |reason| format!(" (Docker {reason})"));
                format!(": {}{docker}", case.settings.about)
            });
            let _ = writeln!(text, "- `{name}`{about}");
        }
        for name in &trap.tests {
            let _ = writeln!(text, "- `{name}`");
        }
    }
    Ok(text)
}
