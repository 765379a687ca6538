//! `testdata/checks/<case>/`: a Dockerfile, perhaps `options.toml` and `dockerignore`, and what the checks find.
//!
//! `docker.txt` holds what Docker 28.5 found in the same file, a line a finding. Cases without it are about rules that
//! this Docker does not have yet or has only as experiments, or about several errors at once.
//!
//! `KILN_BLESS=1 cargo test -p kiln-frontend check_cases` writes `expected.txt` anew; read the diff.
//! `scripts/docker-checks.sh CASE…` writes `docker.txt` with the Docker of the machine.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_parser::ignore::IgnoreFile;
use kiln_parser::{Diagnostic, LineIndex, render};

use crate::cases::CaseOptions;
use crate::testing::FakeResolver;
use crate::{Findings, check};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/checks");
    let entries = fs::read_dir(&folder).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn find(case: &Path, text: &[u8]) -> Findings {
    let options = CaseOptions::load(case);
    let ignore = fs::read(case.join("dockerignore")).ok();
    let ignore = ignore.map(|bytes| IgnoreFile::parse(&bytes, ".dockerignore").unwrap());
    let resolver = FakeResolver::new(options.images.clone());
    check(text, &options.lower_options(), ignore.as_ref(), &resolver)
}

/// The findings in the terms that Docker has: rule, lines, message.
fn facts(warnings: &[Diagnostic], index: &LineIndex) -> Vec<String> {
    let mut facts: Vec<String> = warnings
        .iter()
        .map(|warning| {
            let (first, last) = index.lines(warning.extent());
            format!("{first}-{last} {}: {}", warning.rule.unwrap(), warning.message)
        })
        .collect();
    facts.sort();
    facts
}

fn describe(findings: &Findings, text: &[u8]) -> String {
    let index = LineIndex::new(text);
    let mut out = String::new();
    for diagnostic in findings.errors.iter().chain(&findings.warnings) {
        let (first, last) = index.lines(diagnostic.extent());
        let shown = render(diagnostic, text, "Dockerfile");
        writeln!(out, "lines {first}-{last}\n{shown}").unwrap();
    }
    out
}

#[test]
fn checks_find_what_is_expected() {
    let update = std::env::var_os("KILN_BLESS").is_some();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for case in cases() {
        let text = fs::read(case.join("Dockerfile")).unwrap();
        let findings = find(&case, &text);
        let actual = describe(&findings, &text);
        let path = case.join("expected.txt");
        if update {
            fs::write(&path, &actual).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != actual {
            wrong.push(format!("=== {}\n{actual}", case.display()));
        }
        if let Ok(docker) = fs::read_to_string(case.join("docker.txt")) {
            compared += 1;
            let mut theirs: Vec<&str> = docker.lines().collect();
            theirs.sort_unstable();
            let ours = facts(&findings.warnings, &LineIndex::new(&text));
            assert_eq!(ours, theirs, "{}", case.display());
        }
    }
    assert!(
        wrong.is_empty(),
        "not as expected.txt says:\n{}",
        wrong.join("\n")
    );
    assert!(compared >= 28, "only {compared} cases have Docker's findings");
}

/// Every rule has a case.
#[test]
fn every_rule_is_found_somewhere() {
    let mut found = std::collections::BTreeSet::new();
    for case in cases() {
        let text = fs::read(case.join("Dockerfile")).unwrap();
        found.extend(
            find(&case, &text)
                .warnings
                .iter()
                .filter_map(|warning| warning.rule),
        );
    }
    for rule in &kiln_parser::rules::RULES {
        assert!(found.contains(rule.name), "no case finds {}", rule.name);
    }
}

/// The findings of one file are as many as its instructions at most, times a constant: here they are told quickly.
#[test]
fn large_files_are_checked_in_linear_time() {
    let repeat =
        |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().concat();
    let body = |line: &dyn Fn(usize) -> String| format!("FROM scratch\n{}", repeat(10_000, line));
    let arguments = repeat(100_000, &|n| format!("A{n}=$B{n} "));
    let texts = [
        body(&|n| format!("ENV V{n}=$U{n}\n")),
        body(&|n| format!("ARG V{n}=$U{n}\n")),
        body(&|_| "cmd x\n".to_owned()),
        format!("FROM scratch\nARG {arguments}\n"),
        format!("FROM scratch\nLABEL a=\"{}\"\n", "$x ".repeat(90_000)),
        repeat(1_000, &|n| format!("FROM scratch AS S{}\n", n % 500)),
    ];
    for text in texts {
        let began = std::time::Instant::now();
        let findings = check(
            text.as_bytes(),
            &crate::testing::options(),
            None,
            &FakeResolver::new([]),
        );
        assert!(!findings.warnings.is_empty());
        let taken = began.elapsed();
        assert!(taken.as_secs() < 20, "{}… took {taken:?}", &text[..60]);
    }
}
