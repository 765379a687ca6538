//! What the screen shows of a build, line by line.

use std::time::Duration;

use console::measure_text_width;
use kiln_solver::event::{Event, EventKind, TaskId};
use proptest::prelude::*;

use super::{Screen, Size};
use crate::progress::testing::{announced, done, failed, output, started};
use crate::style::Style;

const SIZE: Size = Size {
    width: 60,
    height: 20,
};

fn screen(events: Vec<(u64, EventKind)>) -> Screen {
    let mut screen = Screen::new("Building", Style::PLAIN);
    for (millis, kind) in events {
        screen.event(Event {
            elapsed: Duration::from_millis(millis),
            kind,
        });
    }
    screen
}

fn part(task: u64, part: &str, current: u64, total: Option<u64>, done: bool) -> EventKind {
    EventKind::Progress {
        task: TaskId(task),
        part: part.to_owned(),
        current,
        total,
        done,
    }
}

#[test]
fn a_build_in_the_middle() {
    let digest = "0123456789abcdef".repeat(4);
    let mut screen = screen(vec![
        (0, announced(1, "[base 1/2] FROM debian")),
        (0, announced(2, "[base 2/2] RUN make")),
        (0, announced(3, "[other 1/2] FROM python")),
        (0, announced(4, "[other 2/2] COPY . .")),
        (0, EventKind::Cached { task: TaskId(1) }),
        (0, started(2)),
        (0, started(3)),
        (
            500,
            output(2, "cc a.c\ncc \u{1b}[31mb.c\u{1b}[0m\n[ 10%]\r[ 20%]"),
        ),
        (
            500,
            part(3, &format!("sha256:{digest}"), 1_000_000, Some(4_000_000), false),
        ),
        (500, part(3, "sha256:done", 2_000_000, Some(2_000_000), true)),
    ]);
    let scrolled = screen.scrolled(SIZE);
    assert_eq!(
        scrolled,
        [" => CACHED [base 1/2] FROM debian                      0.0s"]
    );
    assert!(screen.scrolled(SIZE).is_empty());
    let frame = screen.frame(Duration::from_millis(1_500), SIZE).join("\n");
    let expected = "\
[+] Building 1.5s (1/4) 3MB / 6MB
 => [base 2/2] RUN make                                1.5s
 => => # cc a.c
 => => # cc b.c
 => => # [ 20%]
 => [other 1/2] FROM python                            1.5s
 => => sha256:0123456789ab 1MB / 4MB                   1.0s";
    assert_eq!(frame, expected);
}

#[test]
fn the_end_of_a_step_is_one_line() {
    let mut screen = screen(vec![
        (0, announced(1, "RUN <<EOF\nline\nEOF")),
        (0, announced(2, "RUN b")),
        (0, announced(3, "RUN c")),
        (0, started(1)),
        (0, started(3)),
        (1_000, done(1, 1_000)),
        (1_000, failed(2, "exit code: 1\nmore")),
        (2_000, EventKind::Canceled { task: TaskId(3) }),
    ]);
    let expected = [
        " => RUN <<EOF line EOF                                 1.0s",
        " => ERROR RUN b                                        0.0s",
        " => CANCELED RUN c                                     2.0s",
    ];
    assert_eq!(screen.scrolled(SIZE), expected);
    assert_eq!(
        screen.frame(Duration::from_secs(2), SIZE),
        ["[+] Building 2.0s (3/3)"]
    );
    assert_eq!(
        screen.summary(Duration::from_secs(2), SIZE),
        "[+] Building 2.0s (3/3)"
    );
}

#[test]
fn steps_without_room_are_counted() {
    let mut events: Vec<(u64, EventKind)> = Vec::new();
    for task in 0..9 {
        events.push((0, announced(task, &format!("RUN {task}"))));
        events.push((0, started(task)));
    }
    let size = Size { width: 30, height: 6 };
    let frame = screen(events).frame(Duration::ZERO, size);
    assert_eq!(frame.len(), 5, "{frame:?}");
    assert_eq!(frame[4], " => and 6 more");
}

proptest! {
    /// Whatever a process writes and however small the terminal is, each line fits and the frame, too.
    #[test]
    fn every_frame_fits(
        width in 1_usize..100,
        height in 1_usize..30,
        texts in prop::collection::vec("(\\PC|[\u{0}-\u{1f}\u{1b}語🎉]){0,120}", 1..12),
    ) {
        let mut events = Vec::new();
        for (task, text) in texts.iter().enumerate() {
            let task = task as u64;
            events.push((0, announced(task, text)));
            events.push((0, started(task)));
            events.push((0, output(task, text)));
            events.push((0, part(task, text, 5, Some(10), false)));
        }
        events.push((0, done(0, 99_999)));
        let mut screen = screen(events);
        let size = Size { width, height };
        let frame = screen.frame(Duration::from_secs(100_000), size);
        prop_assert!(frame.len() < height.max(3), "{frame:?}");
        for line in frame.into_iter().chain(screen.scrolled(size)) {
            prop_assert!(measure_text_width(&line) < width.max(2), "{width}: {line:?}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
