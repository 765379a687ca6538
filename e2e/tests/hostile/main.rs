//! Files that are made to hurt: each gets an answer within seconds and little memory, and nothing panics.
//!
//! Processor time and the peak of the resident set are measured, so that other work on the machine does not count. A
//! binary that was not optimized (it lies in a folder `debug`) may take longer.

#![expect(
    clippy::format_collect,
    clippy::unnecessary_wraps,
    reason = "files are written for a reader; functions in a table have one type"
)]

mod cycles;
mod instructions;
mod patterns;
mod text;

use kiln_e2e::builder::{Kiln, Request};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::measure::measure;
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Processor seconds that an answer may take.
const SECONDS: f64 = 5.0;

/// How much slower a binary is that was not optimized.
const UNOPTIMIZED: f64 = 8.0;

/// Peak of the resident set, in KiB.
const MEMORY: u64 = 200 << 10;

/// Bytes of output that are still an answer.
const OUTPUT: u64 = 1 << 20;

/// When a process is given up.
const PATIENCE: Duration = Duration::from_mins(3);

/// A hostile file, and what the answer must be.
struct Hostile {
    name: &'static str,
    dockerfile: fn() -> Vec<u8>,
    /// Makes the rest of the context.
    context: fn(&Path) -> Result<()>,
    /// Further arguments of the build.
    arguments: &'static [&'static str],
    /// Words of the error; none when the build must succeed.
    error: Option<&'static str>,
}

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

fn hostile(name: &'static str, dockerfile: fn() -> Vec<u8>, error: Option<&'static str>) -> Hostile {
    Hostile {
        name,
        dockerfile,
        context: nothing,
        arguments: &[],
        error,
    }
}

/// A file that starts from nothing, so that no image is needed.
fn scratch(rest: impl AsRef<[u8]>) -> Vec<u8> {
    [b"FROM scratch\n", rest.as_ref()].concat()
}

/// A line for each number.
fn lines(count: usize, line: fn(usize) -> String) -> Vec<u8> {
    scratch((0..count).map(|number| line(number) + "\n").collect::<String>())
}

/// One line of many words.
fn words(start: &str, count: usize, word: fn(usize) -> String, end: &str) -> Vec<u8> {
    let mut text = start.to_owned();
    for number in 0..count {
        let _ = write!(text, " {}", word(number));
    }
    scratch(text + end + "\n")
}

fn main() -> ExitCode {
    let all = text::expansions()
        .into_iter()
        .chain(text::long_lines())
        .chain(instructions::many_instructions())
        .chain(text::odd_bytes_and_stages())
        .chain(cycles::cycles())
        .chain(instructions::many_mounts())
        .chain(patterns::globs());
    trial::run(
        all.map(|hostile| trial::test(format!("hostile/{}", hostile.name), move || check(&hostile)))
            .collect(),
    )
}

fn check(hostile: &Hostile) -> TestResult {
    let folder = TempFolder::new("hostile")?;
    let kiln = Kiln::new(&folder)?;
    let context = folder.join("context");
    std::fs::create_dir(&context)?;
    std::fs::write(context.join("Dockerfile"), (hostile.dockerfile)())?;
    std::fs::write(context.join("f"), "f")?;
    (hostile.context)(&context)?;
    let request = Request {
        context,
        file: None,
        tag: "hostile:test".to_owned(),
        arguments: hostile
            .arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect(),
    };
    let log = folder.join("log");
    let mut command = kiln.build_command(&request);
    command
        .stdout(File::create(folder.join("out"))?)
        .stderr(File::create(&log)?);
    let measured = measure(&mut command, PATIENCE)?;
    let output = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let start = &output[..output.floor_char_boundary(2000)];
    let expected = i32::from(hostile.error.is_some());
    ensure!(
        measured.code == Some(expected) && !output.contains("panicked at"),
        "exit code {:?} instead of {expected}\n{start}",
        measured.code
    );
    let words = hostile.error.unwrap_or_default();
    ensure!(output.contains(words), "the output lacks {words:?}:\n{start}");
    let size = output.len() as u64;
    ensure!(size <= OUTPUT, "{size} bytes of output\n{start}");
    let is_optimized = !machine::kiln()?
        .components()
        .any(|part| part.as_os_str() == "debug");
    let limit = SECONDS * if is_optimized { 1.0 } else { UNOPTIMIZED };
    let (seconds, peak) = (measured.seconds, measured.peak);
    ensure!(
        seconds <= limit,
        "{seconds:.1} s of processor time; {limit} s are allowed"
    );
    ensure!(
        peak <= MEMORY,
        "{} MiB of memory; {} MiB are allowed",
        peak >> 10,
        MEMORY >> 10
    );
    Ok(Outcome::Passed)
}
