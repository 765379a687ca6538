//! What needs itself.

use super::{Hostile, hostile};

/// What needs itself, in all the ways that there are.
pub(super) fn cycles() -> Vec<Hostile> {
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
