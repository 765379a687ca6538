//! The live view: what has ended scrolls up, what runs stays at the bottom with its last lines of output.
//!
//! [`Screen`] is what there is to show; it knows no terminal, so that tests can look at each frame.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use console::measure_text_width;
use kiln_solver::event::{Event, EventKind, TaskId};

use super::lines::{LineBuffer, stream_index, visible};
use crate::format;
use crate::style::{Label, Style};

/// Lines of output shown under a running step, when there is room.
const TAIL: usize = 6;
/// Digits shown of a digest in the name of a part.
const DIGEST_DIGITS: usize = 12;
/// Right of the text: blanks, time and unit.
const TIME_WIDTH: usize = 8;

/// The width and height of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The state of a build as the live view shows it.
pub(crate) struct Screen {
    title: String,
    style: Style,
    tasks: BTreeMap<TaskId, TaskState>,
    ended: usize,
    /// Lines to print above the live part.
    scrolled: Vec<Scrolled>,
}

/// A line that leaves the live part for good.
struct Scrolled {
    text: String,
    /// A step's time; other lines have none and may be as long as they like.
    time: Option<Duration>,
    label: Label,
}

struct TaskState {
    name: String,
    phase: Phase,
    tail: VecDeque<String>,
    /// Of each stream.
    output: [LineBuffer; 2],
    parts: BTreeMap<String, Part>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running { since: Duration },
    Ended,
}

#[derive(Clone, Copy)]
struct Part {
    began: Duration,
    current: u64,
    total: Option<u64>,
    done: bool,
}

impl Screen {
    /// An empty screen, headed by `title`.
    pub(crate) fn new(title: &str, style: Style) -> Self {
        Self {
            title: title.to_owned(),
            style,
            tasks: BTreeMap::new(),
            ended: 0,
            scrolled: Vec::new(),
        }
    }

    /// Takes one event.
    pub(crate) fn event(&mut self, event: Event) {
        let elapsed = event.elapsed;
        match event.kind {
            EventKind::Announced { task, name, .. } => {
                let state = TaskState {
                    name: visible(name.as_bytes()),
                    phase: Phase::Waiting,
                    tail: VecDeque::new(),
                    output: Default::default(),
                    parts: BTreeMap::new(),
                };
                self.tasks.insert(task, state);
            }
            EventKind::Started { task } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.phase = Phase::Running { since: elapsed };
                }
            }
            EventKind::Cached { task } => self.end(task, "CACHED ", Duration::ZERO, Label::Done),
            EventKind::Done { task, duration } => self.end(task, "", duration, Label::Done),
            EventKind::Failed { task, duration, .. } => self.end(task, "ERROR ", duration, Label::Error),
            EventKind::Canceled { task } => {
                let began = self.tasks.get(&task).map(|state| match state.phase {
                    Phase::Running { since } => elapsed.saturating_sub(since),
                    Phase::Waiting | Phase::Ended => Duration::ZERO,
                });
                self.end(task, "CANCELED ", began.unwrap_or_default(), Label::Warning);
            }
            EventKind::Output { task, stream, data } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.tail.extend(state.output[stream_index(stream)].push(&data));
                    let surplus = state.tail.len().saturating_sub(TAIL);
                    state.tail.drain(..surplus);
                }
            }
            EventKind::Progress {
                task,
                part,
                current,
                total,
                done,
            } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    let began = state.parts.get(&part).map_or(elapsed, |known| known.began);
                    state.parts.insert(
                        part,
                        Part {
                            began,
                            current,
                            total,
                            done,
                        },
                    );
                }
            }
            EventKind::Warning { message, .. } => {
                self.notice(&format!("WARN: {}", visible(message.as_bytes())));
            }
            EventKind::Summary { summary } => self.summarize(&summary.lines()),
        }
    }

    /// A message above the live part.
    pub(crate) fn notice(&mut self, text: &str) {
        let text = format!(" {}", visible(text.as_bytes()));
        self.scrolled.push(Scrolled {
            text,
            time: None,
            label: Label::Warning,
        });
    }

    /// The last words on a build.
    fn summarize(&mut self, lines: &[String]) {
        self.scrolled.extend(lines.iter().map(|line| Scrolled {
            text: format!(" {}", visible(line.as_bytes())),
            time: None,
            label: Label::Hint,
        }));
    }

    /// Moves a task from the live part to the scrolled one.
    fn end(&mut self, task: TaskId, how: &str, time: Duration, label: Label) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        state.phase = Phase::Ended;
        state.tail.clear();
        self.ended += 1;
        let text = format!(" => {how}{}", state.name);
        self.scrolled.push(Scrolled {
            text,
            time: Some(time),
            label,
        });
    }

    /// The lines that go above the live part now.
    pub(crate) fn scrolled(&mut self, size: Size) -> Vec<String> {
        let lines = std::mem::take(&mut self.scrolled);
        let painted = |line: Scrolled| {
            let text = match line.time {
                Some(time) => timed(&line.text, time, size.width),
                None => line.text,
            };
            self.style.paint(line.label, &text)
        };
        lines.into_iter().map(painted).collect()
    }

    /// The last line of all.
    pub(crate) fn summary(&self, now: Duration, size: Size) -> String {
        cut(&self.header(now), size.width)
    }

    /// The live part: a heading, and each running task with as much detail as there is room for.
    pub(crate) fn frame(&self, now: Duration, size: Size) -> Vec<String> {
        let mut lines = vec![cut(&self.header(now), size.width)];
        let running: Vec<(&TaskState, Duration)> = self
            .tasks
            .values()
            .filter_map(|task| match task.phase {
                Phase::Running { since } => Some((task, now.saturating_sub(since))),
                Phase::Waiting | Phase::Ended => None,
            })
            .collect();
        // One line for the heading, one that stays free for the cursor.
        let room = size.height.saturating_sub(2).max(1);
        let shown = if running.len() > room {
            room.saturating_sub(1)
        } else {
            running.len()
        };
        let mut spare = room.saturating_sub(running.len());
        for (position, (task, time)) in running.iter().take(shown).enumerate() {
            lines.push(timed(&format!(" => {}", task.name), *time, size.width));
            let share = spare / (shown - position);
            let details = task.details(now, share.min(TAIL), size.width);
            spare -= details.len();
            lines.extend(details.iter().map(|line| self.style.paint(Label::Faint, line)));
        }
        if shown < running.len() {
            lines.push(cut(
                &format!(" => and {} more", running.len() - shown),
                size.width,
            ));
        }
        lines
    }

    fn header(&self, now: Duration) -> String {
        let mut text = format!(
            "[+] {} {:.1}s ({}/{})",
            self.title,
            now.as_secs_f64(),
            self.ended,
            self.tasks.len()
        );
        // What is under way, of downloads only: what they are of is known before.
        let running = self
            .tasks
            .values()
            .filter(|task| matches!(task.phase, Phase::Running { .. }));
        let parts = running.flat_map(|task| task.parts.values());
        let (current, total) = parts
            .filter_map(|part| part.total.map(|total| (part.current.min(total), total)))
            .fold((0, 0), |(sum, all), (current, total): (u64, u64)| {
                (sum + current, all + total)
            });
        if current < total {
            let _ = write!(text, " {} / {}", format::size(current), format::size(total));
        }
        text
    }
}

impl TaskState {
    /// Parts and last lines of output, at most `most` together.
    fn details(&self, now: Duration, most: usize, width: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let open: Vec<(&String, &Part)> = self.parts.iter().filter(|(_, part)| !part.done).collect();
        let shown = if open.len() > most {
            most.saturating_sub(1)
        } else {
            open.len()
        };
        for (name, part) in open.iter().take(shown) {
            let total = part
                .total
                .map(|total| format!(" / {}", format::size(total)))
                .unwrap_or_default();
            let text = format!(" => => {} {}{total}", short(name), format::size(part.current));
            lines.push(timed(&text, now.saturating_sub(part.began), width));
        }
        if shown < open.len() && most > 0 {
            lines.push(cut(&format!(" => => and {} more", open.len() - shown), width));
        }
        let room = most.saturating_sub(lines.len());
        let partial: Vec<String> = self.output.iter().filter_map(LineBuffer::partial).collect();
        let tail: Vec<&String> = self.tail.iter().chain(&partial).collect();
        let last = tail.iter().skip(tail.len().saturating_sub(room));
        lines.extend(last.map(|line| cut(&format!(" => => # {line}"), width)));
        lines
    }
}

/// The name of a part with its digests cut short.
fn short(part: &str) -> String {
    let word = |word: &str| match word.split_once("sha256:") {
        Some((before, digits)) => {
            let digits: String = digits.chars().take(DIGEST_DIGITS).collect();
            format!("{before}sha256:{digits}")
        }
        None => word.to_owned(),
    };
    visible(part.as_bytes())
        .split(' ')
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A line with a time at the right edge.
fn timed(text: &str, time: Duration, width: usize) -> String {
    let time = format!("{:.1}s", time.as_secs_f64());
    let width = width.max(1) - 1;
    if width < 2 * TIME_WIDTH {
        return cut(text, width + 1);
    }
    let room = width - time.len().max(TIME_WIDTH - 2) - 1;
    let text = console::truncate_str(text, room, "…");
    let blanks = width.saturating_sub(measure_text_width(&text) + time.len());
    format!("{text}{}{time}", " ".repeat(blanks))
}

/// A line no wider than the terminal: a wrapped one would make the redrawing go astray. The last column stays
/// free, since terminals differ about what a character there does to the cursor.
fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width.max(2) - 1, "…").into_owned()
}

#[cfg(test)]
mod tests;
