//! Very many of something: instructions, stages, mounts.

use super::{Hostile, hostile, lines, scratch, words};

pub(super) fn many_instructions() -> Vec<Hostile> {
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

/// One command that is lent ten thousand things.
pub(super) fn many_mounts() -> Vec<Hostile> {
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
