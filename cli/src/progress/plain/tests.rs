//! What is printed of a build, line by line.

use std::time::Duration;

use kiln_solver::event::{Event, EventKind, TaskId};

use super::Plain;
use crate::progress::testing::{Buffer, announced, done, failed, output, started};

/// What is shown of events at these milliseconds.
fn shown(events: Vec<(u64, EventKind)>) -> String {
    let buffer = Buffer::default();
    let mut plain = Plain::new(Box::new(buffer.clone()));
    for (millis, kind) in events {
        plain.event(Event {
            elapsed: Duration::from_millis(millis),
            kind,
        });
    }
    plain.finish();
    buffer.text()
}

#[test]
fn numbers_follow_the_order_of_appearance() {
    let text = shown(vec![
        (0, announced(1, "[1/3] FROM busybox")),
        (0, announced(2, "[2/3] RUN a")),
        (0, announced(3, "[3/3] RUN b")),
        (0, EventKind::Cached { task: TaskId(1) }),
        (0, started(3)),
        (100, output(3, "one\ntwo")),
        (200, started(2)),
        (300, failed(2, "exit code: 1")),
        (400, done(3, 400)),
    ]);
    let expected = "#1 [1/3] FROM busybox\n#1 CACHED\n\n#2 [3/3] RUN b\n#2 0.100 one\n#2 ...\n\n#3 [2/3] RUN a\n\
                    #3 ERROR: exit code: 1\n\n#2 [3/3] RUN b\n#2 0.400 two\n#2 DONE 0.4s\n";
    assert_eq!(text, expected);
}

#[test]
fn parallel_steps_take_turns() {
    let mut events = vec![
        (0, announced(1, "a")),
        (0, announced(2, "b")),
        (0, started(1)),
        (0, started(2)),
    ];
    for millis in (0..3_000).step_by(100) {
        events.push((millis, output(1, "x\n")));
        events.push((millis, output(2, "y\n")));
    }
    events.push((3_000, done(1, 3_000)));
    events.push((3_000, done(2, 3_000)));
    let text = shown(events);
    assert_eq!(text.matches(" x\n").count(), 30, "{text}");
    assert_eq!(text.matches(" y\n").count(), 30, "{text}");
    assert!(text.matches(" ...\n").count() <= 3, "{text}");
    assert!(
        text.contains("#1 DONE 3.0s\n") && text.ends_with("#2 DONE 3.0s\n"),
        "{text}"
    );
}

#[test]
fn a_line_waits_for_a_moment_only() {
    let buffer = Buffer::default();
    let mut plain = Plain::new(Box::new(buffer.clone()));
    let at = Duration::from_millis;
    for kind in [
        announced(1, "a"),
        announced(2, "b"),
        started(1),
        output(1, "x\n"),
        started(2),
        output(2, "y\n"),
    ] {
        plain.event(Event {
            elapsed: Duration::ZERO,
            kind,
        });
    }
    plain.tick(at(100));
    assert!(!buffer.text().contains('y'), "{}", buffer.text());
    plain.tick(at(600));
    assert!(
        buffer.text().ends_with("#1 ...\n\n#2 b\n#2 0.000 y\n"),
        "{}",
        buffer.text()
    );
}

#[test]
fn a_line_without_newline_is_not_lost() {
    let text = shown(vec![
        (0, announced(1, "x")),
        (0, started(1)),
        (0, output(1, "partial")),
    ]);
    assert!(text.ends_with("partial\n"), "{text}");
}

#[test]
fn parts_are_told_when_they_begin_and_end_and_now_and_then() {
    let part = |current, total, done| EventKind::Progress {
        task: TaskId(1),
        part: "sha256:ab".to_owned(),
        current,
        total,
        done,
    };
    let text = shown(vec![
        (0, announced(1, "FROM x")),
        (0, started(1)),
        (0, part(0, Some(2_000_000), false)),
        (1_000, part(10, Some(2_000_000), false)),
        (6_000, part(1_000_000, Some(2_000_000), false)),
        (7_000, part(2_000_000, Some(2_000_000), true)),
        (
            7_000,
            EventKind::Progress {
                task: TaskId(1),
                part: "naming".to_owned(),
                current: 0,
                total: None,
                done: true,
            },
        ),
        (7_000, done(1, 7_000)),
    ]);
    let expected = "#1 FROM x\n#1 sha256:ab 0B / 2MB\n#1 sha256:ab 1MB / 2MB 6.0s\n#1 sha256:ab: 2MB 7.0s done\n\
                    #1 naming done\n#1 DONE 7.0s\n";
    assert_eq!(text, expected);
}
