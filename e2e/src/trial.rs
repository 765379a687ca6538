//! Tests with three outcomes: passed, failed, skipped because something is missing.

use crate::Error;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::io::Write as _;
use std::process::ExitCode;

/// What a test came to when it did not fail.
#[derive(Debug)]
pub enum Outcome {
    /// Everything was checked and held.
    Passed,
    /// The machine lacks something; the reason is shown and counted.
    Skipped(String),
}

/// What a test function gives back.
pub type TestResult = Result<Outcome, Error>;

/// A test function and its name.
pub type Named = (&'static str, fn() -> TestResult);

/// Runs named tests, each as `PREFIX/NAME`, as the command line asks.
pub fn run_all(prefix: &str, tests: &[Named]) -> ExitCode {
    run(tests
        .iter()
        .map(|(name, run)| test(format!("{prefix}/{name}"), *run))
        .collect())
}

/// A test from its name and what it does.
pub fn test(name: impl Into<String>, run: impl FnOnce() -> TestResult + Send + 'static) -> Trial {
    let name = name.into();
    Trial::ignorable_test(name.clone(), move || match run() {
        Ok(Outcome::Passed) => Ok(Completion::Completed),
        Ok(Outcome::Skipped(reason)) => {
            record_skip(&name, &reason)?;
            Ok(Completion::ignored_with(reason))
        }
        Err(error) => Err(Failed::from(error.to_string())),
    })
}

/// Runs the tests as the command line asks.
pub fn run(tests: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Says loudly what is not tested, and appends it to the file named by `KILN_E2E_SKIPS` for the final summary.
fn record_skip(name: &str, reason: &str) -> Result<(), Failed> {
    let line = format!("{name}: {reason}");
    // Both writes are one system call each, so lines of tests that run at the same time do not mix.
    let told = std::io::stderr().write_all(format!("SKIPPED: {line}\n").as_bytes());
    let kept = match std::env::var_os("KILN_E2E_SKIPS") {
        None => Ok(()),
        Some(path) => std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())),
    };
    told.and(kept)
        .map_err(|error| Failed::from(format!("cannot record the skip of {line}: {error}")))
}
