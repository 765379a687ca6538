//! Files that are made to hurt: each gets an answer within seconds and little memory, and nothing panics.
//!
//! Processor time and the peak of the resident set are measured, so that other work on the machine does not count. A
//! binary that was not optimized (it lies in a folder `debug`) may take longer.

#![expect(
    clippy::format_collect,
    clippy::unnecessary_wraps,
    reason = "files are written for a reader; functions in a table have one type"
)]

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

/// Forty lines, each ten times the one before.
fn laughs(keyword: &str) -> Vec<u8> {
    let mut text = format!("{keyword} A0=lol\n");
    for number in 1..40 {
        let before = format!("${{A{}}}", number - 1);
        let _ = writeln!(text, "{keyword} A{number}={}", before.repeat(10));
    }
    scratch(text + "LABEL l=$A39\n")
}

fn main() -> ExitCode {
    let all = expansions()
        .into_iter()
        .chain(long_lines())
        .chain(many_instructions())
        .chain(odd_bytes_and_stages())
        .chain(cycles())
        .chain(many_mounts())
        .chain(globs());
    trial::run(
        all.map(|hostile| trial::test(format!("hostile/{}", hostile.name), move || check(&hostile)))
            .collect(),
    )
}

fn expansions() -> Vec<Hostile> {
    vec![
        hostile("billion laughs by ARG", || laughs("ARG"), Some("longer than")),
        hostile("billion laughs by ENV", || laughs("ENV"), Some("longer than")),
        hostile(
            "large value in many labels",
            || {
                let labels = "LABEL a=$A b=$A c=$A d=$A e=$A f=$A g=$A h=$A\n".repeat(1000);
                scratch(format!("ARG A={}\n{labels}", "x".repeat(60_000)))
            },
            Some("more than 64 MiB"),
        ),
        hostile(
            "many variables and many steps",
            || lines(5000, |number| format!("ENV v{number}=value\nRUN x")),
            Some("more than 64 MiB"),
        ),
        hostile(
            "many arguments and many steps",
            || lines(5000, |number| format!("ARG v{number}=value\nRUN x")),
            Some("more than 64 MiB"),
        ),
        hostile(
            "ten thousand nested expansions",
            || {
                scratch(format!(
                    "LABEL a={}{}\n",
                    "${a:-".repeat(10_000),
                    "}".repeat(10_000)
                ))
            },
            Some("nested more than"),
        ),
        hostile(
            "million substitutions",
            || scratch(format!("LABEL a={}\n", "$a".repeat(1_000_000))),
            Some("more than"),
        ),
        hostile(
            "exponential pattern",
            || {
                let value = "a".repeat(50_000);
                scratch(format!(
                    "ARG x={value}\nLABEL l=${{x//*a*a*a*a*a*a*a*b/y}} m=${{x%%*a*a*b*}}\n"
                ))
            },
            None,
        ),
        hostile(
            "replacement that grows",
            || {
                let value = "a".repeat(60_000);
                scratch(format!(
                    "ARG x={value}\nARG y=${{x//a/$x}}\nLABEL l=${{y//a/$y}}\n"
                ))
            },
            Some("longer than"),
        ),
        hostile(
            "every port many times",
            || scratch("EXPOSE 0-65535 0-65535/udp\n".repeat(200)),
            Some("more than 64 MiB"),
        ),
    ]
}

fn long_lines() -> Vec<Hostile> {
    vec![
        hostile(
            "line of ten megabytes",
            || scratch(format!("LABEL a={}\n", "x".repeat(10_000_000))),
            None,
        ),
        hostile(
            "ten megabytes of words",
            || words("LABEL", 2_500_000, |_| "a=b".into(), ""),
            Some("more than"),
        ),
        hostile(
            "keyword of ten megabytes",
            || scratch("x".repeat(10_000_000)),
            Some("unknown instruction"),
        ),
        hostile(
            "base name of ten megabytes",
            || format!("FROM {}\n", "x".repeat(10_000_000)).into_bytes(),
            Some("xxx…"),
        ),
        hostile(
            "million continuation lines",
            || scratch(format!("LABEL a={}y\n", "x\\\n".repeat(1_000_000))),
            None,
        ),
        hostile(
            "command of a million lines",
            || scratch(format!("RUN {}y\n", "x \\\n".repeat(1_000_000))),
            Some("/bin/sh"),
        ),
        hostile(
            "hundred thousand flags",
            || scratch(format!("COPY {}a b\n", "--chown=1 ".repeat(100_000))),
            Some("duplicate flag"),
        ),
        hostile(
            "hundred thousand unknown flags",
            || words("COPY", 100_000, |number| format!("--x{number}=1"), " a b"),
            Some("unknown flag"),
        ),
        hostile(
            "hundred thousand mounts",
            || {
                words(
                    "RUN",
                    100_000,
                    |number| format!("--mount=type=tmpfs,target=/x{number}"),
                    " x",
                )
            },
            Some("more than 2000 mounts"),
        ),
        hostile(
            "hundred thousand arguments in a line",
            || {
                words(
                    "ARG",
                    100_000,
                    |number| format!("A{number}=1"),
                    "\nLABEL l=$A99999",
                )
            },
            None,
        ),
        hostile(
            "huge JSON array",
            || scratch(format!("CMD [{}\"x\"]\n", "\"x\",".repeat(150_000))),
            None,
        ),
        hostile(
            "JSON array of ten megabytes",
            || scratch(format!("CMD [{}\"x\"]\n", "\"x\",".repeat(2_500_000))),
            Some("more than"),
        ),
        hostile(
            "deep JSON",
            || scratch(format!("CMD {}{}\n", "[".repeat(500_000), "]".repeat(500_000))),
            None,
        ),
        hostile(
            "path of a million folders",
            || scratch(format!("COPY f {}\n", "/a".repeat(1_000_000))),
            Some("a path may have"),
        ),
        hostile(
            "working directory that grows",
            || scratch("WORKDIR x\n".repeat(20_000)),
            Some("a path may have"),
        ),
        hostile(
            "millions of signs of here-documents",
            || scratch(format!("RUN {}\n", "<< ".repeat(2_000_000))),
            Some("more than"),
        ),
        hostile(
            "a here-document and millions of words",
            || scratch(format!("RUN <<E {}\nE\n", "x ".repeat(4_000_000))),
            Some("more than"),
        ),
        hostile(
            "signs of here-documents without blanks",
            || scratch(format!("RUN {}\n", "<<a;".repeat(1_000_000))),
            Some(""),
        ),
        hostile(
            "half-open quotes of a command",
            || scratch(format!("RUN {}\n", "<<'a \"b ".repeat(90_000))),
            Some("unterminated heredoc"),
        ),
    ]
}

fn many_instructions() -> Vec<Hostile> {
    const MANY: usize = 100_000;
    vec![
        hostile(
            "hundred thousand labels",
            || lines(MANY, |number| format!("LABEL l{number}=v")),
            None,
        ),
        hostile(
            "hundred thousand variables",
            || lines(MANY / 2, |number| format!("ENV l{number}=v")),
            None,
        ),
        hostile(
            "hundred thousand steps",
            || lines(MANY, |_| "RUN x".into()),
            Some("more than 64 MiB"),
        ),
        hostile(
            "hundred thousand copies",
            || lines(MANY, |number| format!("COPY f /x{number}")),
            Some("more than 64 MiB"),
        ),
        hostile(
            "hundred thousand commands",
            || lines(MANY, |_| "CMD x".into()),
            None,
        ),
        hostile(
            "hundred thousand unknown instructions",
            || lines(MANY, |_| "RUM x".into()),
            Some("unknown instruction"),
        ),
        hostile(
            "hundred thousand wrong flags",
            || lines(MANY, |_| "COPY --form=x a b".into()),
            Some("unknown flag"),
        ),
        hostile(
            "hundred thousand directives",
            || ("# escape=\\\n".repeat(MANY) + "FROM scratch\n").into_bytes(),
            Some("escape"),
        ),
        hostile(
            "hundred thousand triggers",
            || {
                let triggers = "ONBUILD LABEL a=b\n".repeat(MANY / 2);
                format!("FROM scratch AS a\n{triggers}FROM a\n").into_bytes()
            },
            None,
        ),
        hostile(
            "million comments",
            || scratch("# x\n".repeat(1_000_000) + "LABEL a=b\n"),
            None,
        ),
        hostile(
            "five hundred here-documents in an instruction",
            || {
                let names: String = (0..500).map(|number| format!("<<E{number} ")).collect();
                let bodies: String = (0..500).map(|number| format!("x\nE{number}\n")).collect();
                scratch(format!("COPY {names}/d/\n{bodies}"))
            },
            None,
        ),
        hostile(
            "here-documents without an end",
            || lines(20_000, |number| format!("RUN <<E{number}")),
            Some("E0"),
        ),
        hostile(
            "deep ONBUILD",
            || scratch("ONBUILD ".repeat(MANY) + "RUN x\n"),
            Some("ONBUILD"),
        ),
    ]
}

fn odd_bytes_and_stages() -> Vec<Hostile> {
    const MANY: usize = 100_000;
    vec![
        hostile("zero bytes in values", || scratch(b"LABEL a=\0b\n"), None),
        hostile("zero bytes in a name", || scratch(b"COPY a\0b /x\n"), Some("")),
        hostile(
            "zero bytes in a command",
            || scratch(b"ENV A=a\0b\nRUN [\"/x\\u0000\"]\n"),
            Some(""),
        ),
        hostile(
            "bytes that are no text",
            || scratch(b"LABEL a=\xff\xfe\n".repeat(1000)),
            Some("UTF-8"),
        ),
        hostile(
            "megabytes that are no text",
            || scratch([b"LABEL a=".as_slice(), &b"\xff".repeat(10_000_000)].concat()),
            Some("UTF-8"),
        ),
        hostile(
            "stages that need each other",
            || b"FROM scratch AS a\nCOPY --from=b /x /x\nFROM a AS b\nCOPY --from=a /x /x\n".to_vec(),
            Some("neither can be built first"),
        ),
        hostile(
            "hundred thousand stages",
            || {
                (0..MANY)
                    .map(|number| format!("FROM scratch AS s{number}\n"))
                    .collect::<String>()
                    .into()
            },
            None,
        ),
        hostile(
            "hundred thousand stages in a chain",
            || {
                let chain = |number: usize| format!("FROM s{number} AS s{}\n", number + 1);
                format!("FROM scratch AS s0\n{}", (0..MANY).map(chain).collect::<String>()).into()
            },
            Some("more than 64 MiB"),
        ),
        hostile(
            "chain of stages with more and more variables",
            || {
                let chain = |number: usize| format!("FROM s{number} AS s{}\nENV e{number}=v\n", number + 1);
                format!(
                    "FROM scratch AS s0\n{}",
                    (0..20_000).map(chain).collect::<String>()
                )
                .into()
            },
            Some("more than 64 MiB"),
        ),
        hostile(
            "stages of one name",
            || "FROM scratch AS s\n".repeat(MANY).into(),
            None,
        ),
    ]
}

/// What needs itself, in all the ways that there are.
fn cycles() -> Vec<Hostile> {
    let swapped = &[
        "--build-context",
        "a=docker-image://127.0.0.1:1/b",
        "--build-context",
        "127.0.0.1:1/b=docker-image://127.0.0.1:1/a",
        "--build-context",
        "127.0.0.1:1/a=docker-image://127.0.0.1:1/b",
    ];
    vec![
        hostile(
            "stage that copies from itself",
            || b"FROM scratch AS a\nCOPY --from=a /x /x\n".to_vec(),
            Some("COPY --from=a"),
        ),
        hostile(
            "stage that mounts itself",
            || b"FROM scratch AS a\nRUN --mount=from=a,target=/x /x\n".to_vec(),
            Some("from=a"),
        ),
        hostile(
            "stages that mount each other",
            || {
                b"FROM scratch AS a\nRUN --mount=from=b,target=/x /x\nFROM scratch AS b\n\
                  RUN --mount=from=a,target=/x /x\n"
                    .to_vec()
            },
            Some("from=b"),
        ),
        hostile(
            "stages that copy and mount in a circle",
            || {
                let stage = |number: usize| {
                    let next = (number + 1) % 1000;
                    format!(
                        "FROM scratch AS s{number}\nCOPY --from=s{next} /x /x\nRUN --mount=from=s{next},target=/y /x\n"
                    )
                };
                (0..1000).map(stage).collect::<String>().into()
            },
            Some("comes after"),
        ),
        hostile(
            "trigger that needs its own child",
            || b"FROM scratch AS a\nONBUILD COPY --from=b /x /x\nFROM a AS b\n".to_vec(),
            Some("--from=b"),
        ),
        hostile(
            "trigger that needs a stage that needs it",
            || {
                b"FROM scratch AS a\nONBUILD RUN --mount=from=c,target=/x /x\nFROM a AS b\nFROM scratch AS c\n\
                  COPY --from=b /x /x\n"
                    .to_vec()
            },
            Some("from=c"),
        ),
        hostile(
            "triggers of a thousand generations",
            || {
                let stage = |number: usize| {
                    format!(
                        "FROM s{number} AS s{}\nONBUILD COPY --from=s{number} /f /f\n",
                        number + 1
                    )
                };
                let stages = (0..1000).map(stage).collect::<String>();
                format!("FROM scratch AS s0\nCOPY f /f\n{stages}").into()
            },
            Some("more than 64 MiB"),
        ),
        Hostile {
            arguments: swapped,
            ..hostile(
                "named contexts that name each other",
                || b"FROM a\nCOPY --from=127.0.0.1:1/a /x /x\nCOPY --from=127.0.0.1:1/b /x /x\n".to_vec(),
                Some("127.0.0.1:1/"),
            )
        },
        Hostile {
            arguments: &["--build-context", "a=docker-image://127.0.0.1:1/a"],
            ..hostile(
                "named context that names itself",
                || b"FROM a\n".to_vec(),
                Some("127.0.0.1:1/a"),
            )
        },
    ]
}

/// One command that is lent ten thousand things.
fn many_mounts() -> Vec<Hostile> {
    const MANY: usize = 10_000;
    vec![
        hostile(
            "ten thousand secrets",
            || {
                words(
                    "RUN",
                    MANY,
                    |number| format!("--mount=type=secret,id=s{number}"),
                    " x",
                )
            },
            Some(""),
        ),
        hostile(
            "ten thousand secrets that are required",
            || {
                words(
                    "RUN",
                    MANY,
                    |number| format!("--mount=type=secret,id=s{number},required"),
                    " x",
                )
            },
            Some("s0"),
        ),
        hostile(
            "two thousand cache mounts",
            || {
                words(
                    "RUN",
                    2000,
                    |number| format!("--mount=type=cache,target=/c{number}"),
                    " x",
                )
            },
            Some(""),
        ),
        hostile(
            "ten thousand cache mounts",
            || {
                words(
                    "RUN",
                    MANY,
                    |number| format!("--mount=type=cache,target=/c{number}"),
                    " x",
                )
            },
            Some(""),
        ),
        hostile(
            "ten thousand binds of one file",
            || {
                words(
                    "RUN",
                    MANY,
                    |number| format!("--mount=source=f,target=/b{number}"),
                    " x",
                )
            },
            Some(""),
        ),
    ]
}

/// A folder in a folder, sixty deep, with a file in each.
fn deep_tree(context: &Path) -> Result<()> {
    let mut folder = context.to_owned();
    for _ in 0..60 {
        folder = folder.join("a");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("f"), "f")?;
    }
    Ok(())
}

fn many_patterns(context: &Path) -> Result<()> {
    let patterns: String = (0..100_000)
        .map(|number| format!("p{number}*/**/x{number}?\n"))
        .collect();
    std::fs::write(context.join(".dockerignore"), patterns)?;
    for number in 0..300 {
        std::fs::write(context.join(format!("file{number}")), "x")?;
    }
    Ok(())
}

fn star_patterns(context: &Path) -> Result<()> {
    deep_tree(context)?;
    std::fs::write(
        context.join(".dockerignore"),
        format!("{}x\n{}b\n", "**/".repeat(20_000), "*a".repeat(200)),
    )?;
    Ok(std::fs::write(context.join("a".repeat(250)), "x")?)
}

fn globs() -> Vec<Hostile> {
    let with = |name, context, dockerfile, error| Hostile {
        context,
        ..hostile(name, dockerfile, error)
    };
    vec![
        with(
            "deep wildcards",
            deep_tree,
            || scratch(format!("COPY {}f /d/\n", "**/".repeat(2000))),
            None,
        ),
        with(
            "deep wildcards that match",
            deep_tree,
            || scratch(format!("COPY {}f /d/\n", "*/".repeat(50))),
            None,
        ),
        with(
            "exponential wildcard",
            |context| Ok(std::fs::write(context.join("a".repeat(250)), "x")?),
            || scratch(format!("COPY {}b /d/\n", "*a".repeat(120))),
            None,
        ),
        with(
            "hundred thousand ignore patterns",
            many_patterns,
            || scratch("COPY . /d/\n"),
            None,
        ),
        with(
            "exponential ignore patterns",
            star_patterns,
            || scratch("COPY . /d/\n"),
            None,
        ),
    ]
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
