//! Text that grows: variables in variables, endless lines and words, odd bytes.

use super::{Hostile, hostile, lines, scratch, words};
use std::fmt::Write as _;

/// Forty lines, each ten times the one before.
fn laughs(keyword: &str) -> Vec<u8> {
    let mut text = format!("{keyword} A0=lol\n");
    for number in 1..40 {
        let before = format!("${{A{}}}", number - 1);
        let _ = writeln!(text, "{keyword} A{number}={}", before.repeat(10));
    }
    scratch(text + "LABEL l=$A39\n")
}

pub(super) fn expansions() -> Vec<Hostile> {
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

pub(super) fn long_lines() -> Vec<Hostile> {
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

pub(super) fn odd_bytes_and_stages() -> Vec<Hostile> {
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
