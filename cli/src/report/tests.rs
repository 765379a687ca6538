//! Each kind of failure as a user sees it.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;

use kiln_frontend::BuildError;
use kiln_parser::{Diagnostic, Span};
use kiln_solver::graph::SourceSpan;
use kiln_solver::image::PullError;
use kiln_solver::{CannotRun, SolveError, StepError, StepFailure};
use kiln_tree::TreePath;

use super::hints::{DISK_FAILED, DISK_FULL};
use super::{Failure, chain};
use crate::exit;
use crate::style::Style;

const DOCKERFILE: &[u8] =
    b"FROM busybox AS build\nWORKDIR /src\nCOPY main.c nosuch.c .\nRUN cc main.c && \\\n    ./a.out\n";

fn place(text: &str) -> Span {
    let start = String::from_utf8_lossy(DOCKERFILE).find(text).unwrap();
    Span {
        start,
        end: start + text.len(),
    }
}

fn step(at: &str, cause: StepFailure) -> Failure {
    let span = place(at);
    let span = Some(SourceSpan {
        start: span.start,
        end: span.end,
    });
    let step = StepError {
        name: format!("[build 3/4] {at}"),
        span,
        cause,
    };
    Failure::build(
        &BuildError::Solve(SolveError::Step(Box::new(step))),
        DOCKERFILE,
        "Dockerfile",
    )
}

fn dockerfile(diagnostics: Vec<Diagnostic>) -> Failure {
    Failure::build(
        &BuildError::Dockerfile(diagnostics),
        DOCKERFILE,
        "docker/Dockerfile",
    )
}

fn full() -> std::io::Error {
    std::io::Error::from_raw_os_error(28)
}

fn process(last_output: &[&str], log: Option<&str>) -> StepFailure {
    StepFailure::Process {
        command: "/bin/sh -c cc main.c &&     ./a.out".to_owned(),
        status: "exit code: 2".to_owned(),
        code: 2,
        out_of_memory: false,
        disk_full: false,
        last_output: last_output.iter().map(|&line| line.to_owned()).collect(),
        log: log.map(PathBuf::from),
    }
}

fn not_found(ignored_by: Option<&str>, similar: &[&str]) -> StepFailure {
    let span = place("nosuch.c");
    StepFailure::SourceNotFound {
        path: TreePath::new(b"nosuch.c").unwrap(),
        place: "the build context".to_owned(),
        ignored_by: ignored_by.map(str::to_owned),
        similar: similar.iter().map(|&name| name.to_owned()).collect(),
        span: Some(SourceSpan {
            start: span.start,
            end: span.end,
        }),
    }
}

fn failures() -> Vec<(&'static str, Failure)> {
    let copy = "COPY main.c nosuch.c .";
    let run = "RUN cc main.c && \\\n    ./a.out";
    vec![
        (
            "failing RUN",
            step(
                run,
                process(
                    &["main.c:1: \u{1b}[31merror\u{1b}[0m", "\tx"],
                    Some("/r/builds/1.log/4"),
                ),
            ),
        ),
        ("failing RUN without output", step(run, process(&[], None))),
        (
            "failing RUN on a full disk",
            step(run, process(&["cc: a.out: No space left on device"], None)),
        ),
        (
            "RUN of a platform that nothing runs",
            step(
                run,
                StepFailure::Platform(CannotRun {
                    platform: Box::new("linux/s390x".parse().unwrap()),
                    reason: "no interpreter is registered with the kernel, and qemu-s390x-static is not \
                             installed"
                        .to_owned(),
                    remedy: "install the package qemu-user-static (it has qemu-s390x-static)".to_owned(),
                }),
            ),
        ),
        ("missing source", step(copy, not_found(None, &[]))),
        (
            "missing source with a similar one",
            step(copy, not_found(None, &["nosuch.cc"])),
        ),
        (
            "hidden source",
            step(copy, not_found(Some(".dockerignore:2 (*.c)"), &["nosuch.c"])),
        ),
        (
            "full disk",
            step(
                copy,
                StepFailure::Io {
                    path: PathBuf::from("/r/layers/x"),
                    source: full(),
                },
            ),
        ),
        (
            "lost image",
            step(
                "FROM busybox AS build",
                StepFailure::Pull(PullError::NotLocal("busybox:latest".to_owned())),
            ),
        ),
        (
            "one error in the Dockerfile",
            dockerfile(vec![
                Diagnostic::error(place("WORKDIR"), "unknown instruction: WORKDIRR")
                    .hint("did you mean WORKDIR?"),
            ]),
        ),
        (
            "two errors in the Dockerfile",
            dockerfile(vec![
                Diagnostic::error(place("busybox"), "invalid image").related(place("build"), "the stage"),
                Diagnostic::error(place("./a.out"), "odd").hint("even"),
            ]),
        ),
        (
            "an error without a place",
            dockerfile(vec![
                Diagnostic::error(Span::default(), "target stage \"bulid\" could not be found")
                    .hint("did you mean build?"),
            ]),
        ),
        (
            "canceled",
            Failure::build(&BuildError::Solve(SolveError::Canceled), DOCKERFILE, "Dockerfile"),
        ),
        (
            "a file that cannot be read",
            Failure::io("read", "/x", ErrorKind::PermissionDenied.into()),
        ),
        (
            "a file that cannot be written",
            Failure::io("write", "/x", full()),
        ),
        (
            "wrong arguments",
            Failure::usage("--network x: expected default, host or none"),
        ),
    ]
}

#[test]
fn failures_look_as_expected() {
    let mut text = String::new();
    for (name, failure) in failures() {
        let _ = write!(
            text,
            "=== {name} (exit code {})\n{}",
            failure.code(),
            failure.render(Style::PLAIN)
        );
    }
    crate::expected::check("errors.txt", &text);
}

#[test]
fn colour_adds_nothing_but_colour() {
    for (name, failure) in failures() {
        let coloured = failure.render(Style::COLOURED);
        assert!(coloured.contains("\u{1b}[31mERROR:\u{1b}[0m "), "{name}");
        assert_eq!(
            console::strip_ansi_codes(&coloured),
            failure.render(Style::PLAIN),
            "{name}"
        );
    }
}

#[test]
fn a_full_disk_is_recognized_wherever_it_shows() {
    for (name, failure) in failures() {
        let text = failure.render(Style::PLAIN);
        assert_eq!(
            text.contains("No space left"),
            text.contains(DISK_FULL),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_full_disk_is_recognized_in_words_and_where_nobody_says_so() {
    #[derive(Debug, thiserror::Error)]
    #[error("failed: No space left on device (os error 28)")]
    struct Text;
    #[derive(Debug, thiserror::Error)]
    #[error("failed to store the image")]
    struct Outer(#[source] Text);
    assert!(
        Failure::error(&Outer(Text))
            .render(Style::PLAIN)
            .contains(DISK_FULL)
    );
    let found = Diagnostic::error(Span::default(), "cannot create /x: No space left on device");
    let error = BuildError::Dockerfile(vec![found]);
    let failure = Failure::build(&error, DOCKERFILE, "Dockerfile");
    assert!(failure.render(Style::PLAIN).contains(DISK_FULL));
    let mut silent = process(&["no word of it"], None);
    if let StepFailure::Process { disk_full, .. } = &mut silent {
        *disk_full = true;
    }
    assert!(step("COPY", silent).render(Style::PLAIN).contains(DISK_FULL));
}

#[test]
fn causes_are_told_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }
    let layer = |text, source: Option<Layer>| Layer {
        text,
        source: source.map(Box::new),
    };
    let refused = layer("io: Connection refused (os error 111)", None);
    assert_eq!(
        chain(&layer("GET x: connection refused", Some(refused))),
        "GET x: connection refused"
    );
    let missing = layer("No such file or directory (os error 2)", None);
    assert_eq!(
        chain(&layer("open x", Some(layer("open x", Some(missing))))),
        "open x: No such file or directory"
    );
}

#[test]
fn a_canceled_pull_is_no_failure_of_the_registry() {
    assert_eq!(Failure::from(PullError::Canceled).code(), exit::INTERRUPTED);
    assert_eq!(
        Failure::from(PullError::NotLocal("x".to_owned())).code(),
        exit::FAILURE
    );
}

#[test]
fn a_disk_that_failed_behind_the_kernels_back() {
    let failed = || kiln_cache::Error::NotWritten {
        root: PathBuf::from("/store"),
        source: full(),
    };
    // Room on the file system of the store would not help: it has some, and what it lies on has none.
    let expected = format!(
        "ERROR: the disk of /store did not take everything that was written to it: No space left on device\n\
         hint: {DISK_FAILED}\n"
    );
    assert_eq!(Failure::error(&failed()).render(Style::PLAIN), expected);
    let step = step("WORKDIR /src", StepFailure::Store(failed())).render(Style::PLAIN);
    assert!(
        step.contains("did not take everything") && step.contains(DISK_FAILED),
        "{step}"
    );
    assert!(!step.contains(DISK_FULL), "{step}");
}
