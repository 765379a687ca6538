//! The plain view: BuildKit's `#N …` lines, which scripts search for `CACHED`, `DONE` and `ERROR`.
//!
//! Steps that run at the same time take turns: as long as one goes on writing, lines of the others wait a
//! little, so that the text is not cut into single lines. What ends is shown at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use kiln_solver::event::{Event, EventKind, TaskId};

use super::lines::{LineBuffer, stream_index, visible};
use crate::format;

/// The progress of one part is shown this often.
const PART_INTERVAL: Duration = Duration::from_secs(5);
/// A task that has written nothing for so long loses its turn.
const QUIET: Duration = Duration::from_millis(500);
/// A task's lines wait no longer than this for another task's.
const PATIENCE: Duration = Duration::from_secs(2);
/// No more lines than this wait.
const MAX_WAITING: usize = 1_000;

/// Writes one line after the other.
pub(crate) struct Plain {
    out: Box<dyn Write + Send>,
    tasks: BTreeMap<TaskId, TaskState>,
    next_number: usize,
    current: Option<TaskId>,
    /// When the current task wrote last.
    active: Duration,
    /// Whether something has been written, so that a blank line is needed before the next heading.
    begun: bool,
}

struct TaskState {
    name: String,
    /// Given when the task is first shown.
    number: Option<usize>,
    started: Duration,
    /// Of each stream.
    output: [LineBuffer; 2],
    /// Lines that have not been shown yet, and since when they wait.
    waiting: Vec<String>,
    since: Option<Duration>,
    parts: BTreeMap<String, Part>,
}

struct Part {
    began: Duration,
    /// When it was last shown.
    shown: Duration,
}

impl Plain {
    /// A view that writes to `out`.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            tasks: BTreeMap::new(),
            next_number: 1,
            current: None,
            active: Duration::ZERO,
            begun: false,
        }
    }

    /// Takes one event.
    pub(crate) fn event(&mut self, event: Event) {
        let elapsed = event.elapsed;
        match event.kind {
            EventKind::Announced { task, name, .. } => {
                let state = TaskState {
                    name: visible(name.as_bytes()),
                    number: None,
                    started: elapsed,
                    output: Default::default(),
                    waiting: Vec::new(),
                    since: None,
                    parts: BTreeMap::new(),
                };
                self.tasks.insert(task, state);
            }
            EventKind::Started { task } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.started = elapsed;
                    self.say(task, elapsed, Vec::new());
                }
            }
            EventKind::Cached { task } => self.end(task, elapsed, "CACHED"),
            EventKind::Output { task, stream, data } => {
                let Some(state) = self.tasks.get_mut(&task) else {
                    return;
                };
                let seconds = state.seconds(elapsed);
                let lines = state.output[stream_index(stream)]
                    .push(&data)
                    .into_iter()
                    .map(|line| output_line(seconds, &line))
                    .collect();
                self.say(task, elapsed, lines);
            }
            EventKind::Progress {
                task,
                part,
                current,
                total,
                done,
            } => {
                let Some(state) = self.tasks.get_mut(&task) else {
                    return;
                };
                if let Some(line) = state.part(elapsed, part, current, total, done) {
                    self.say(task, elapsed, vec![line]);
                }
            }
            EventKind::Done { task, duration } => {
                self.end(task, elapsed, &format!("DONE {:.1}s", duration.as_secs_f64()));
            }
            EventKind::Failed { task, message, .. } => {
                self.end(
                    task,
                    elapsed,
                    &format!("ERROR: {}", visible(crate::report::shorten(&message).as_bytes())),
                );
            }
            EventKind::Canceled { task } => self.end(task, elapsed, "CANCELED"),
            EventKind::Warning {
                task: Some(task),
                message,
                ..
            } => {
                self.say(
                    task,
                    elapsed,
                    vec![format!("WARN: {}", visible(message.as_bytes()))],
                );
            }
            EventKind::Warning {
                task: None, message, ..
            } => self.write(&format!("WARN: {}\n", visible(message.as_bytes()))),
            EventKind::Summary { summary } => {
                self.write("\n");
                for line in summary.lines() {
                    self.write(&format!("{}\n", visible(line.as_bytes())));
                }
            }
        }
    }

    /// Shows what has waited long enough.
    pub(crate) fn tick(&mut self, elapsed: Duration) {
        if let Some((task, since)) = self.longest_waiting()
            && self.may_speak(task, Some(since), elapsed)
        {
            self.show(task, elapsed);
        }
    }

    /// Shows everything that is left, also lines that no newline ended.
    pub(crate) fn finish(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        for task in tasks {
            let Some(state) = self.tasks.get_mut(&task) else {
                continue;
            };
            if state.flush(self.active) {
                self.show(task, self.active);
            }
        }
    }

    /// A message between the tasks' lines.
    pub(crate) fn notice(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn longest_waiting(&self) -> Option<(TaskId, Duration)> {
        let waiting = self
            .tasks
            .iter()
            .filter_map(|(task, state)| Some((*task, state.since?)));
        waiting.min_by_key(|(_, since)| *since)
    }

    /// Lines of a task, for now or for its turn.
    fn say(&mut self, task: TaskId, elapsed: Duration, lines: Vec<String>) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        if lines.is_empty() && state.number.is_some() {
            return;
        }
        state.waiting.extend(lines);
        let since = *state.since.get_or_insert(elapsed);
        let many = state.waiting.len() > MAX_WAITING;
        if many || self.may_speak(task, Some(since), elapsed) {
            self.show(task, elapsed);
        }
    }

    fn may_speak(&self, task: TaskId, since: Option<Duration>, elapsed: Duration) -> bool {
        self.current.is_none_or(|current| current == task)
            || elapsed.saturating_sub(self.active) >= QUIET
            || since.is_some_and(|since| elapsed.saturating_sub(since) >= PATIENCE)
    }

    fn end(&mut self, task: TaskId, elapsed: Duration, how: &str) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        state.flush(elapsed);
        state.waiting.push(how.to_owned());
        self.show(task, elapsed);
        self.tasks.remove(&task);
        self.current = None;
        self.tick(elapsed);
    }

    /// Gives a task its turn and writes what it has to say.
    fn show(&mut self, task: TaskId, elapsed: Duration) {
        let mut text = String::new();
        if self.current != Some(task) {
            if let Some(number) = self.current.and_then(|current| self.tasks.get(&current)?.number) {
                let _ = writeln!(text, "#{number} ...");
            }
            if std::mem::replace(&mut self.begun, true) {
                text.push('\n');
            }
        }
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        let number = *state.number.get_or_insert_with(|| {
            self.next_number += 1;
            self.next_number - 1
        });
        if self.current != Some(task) {
            let _ = writeln!(text, "#{number} {}", state.name);
        }
        for line in state.waiting.drain(..) {
            let _ = writeln!(text, "#{number} {line}");
        }
        state.since = None;
        self.current = Some(task);
        self.active = elapsed;
        self.write(&text);
    }

    fn write(&mut self, text: &str) {
        // A closed pipe ends the view, not the build.
        let _ = self.out.write_all(text.as_bytes());
    }
}

fn output_line(seconds: f64, line: &str) -> String {
    format!("{seconds:.3} {line}").trim_end().to_owned()
}

impl TaskState {
    fn seconds(&self, elapsed: Duration) -> f64 {
        elapsed.saturating_sub(self.started).as_secs_f64()
    }

    /// An unended line is a line now. Whether anything waits.
    fn flush(&mut self, elapsed: Duration) -> bool {
        let seconds = self.seconds(elapsed);
        let rest = self.output.iter_mut().filter_map(LineBuffer::rest);
        self.waiting.extend(rest.map(|line| output_line(seconds, &line)));
        !self.waiting.is_empty()
    }

    /// The line about a part, when one is due.
    fn part(
        &mut self,
        elapsed: Duration,
        part: String,
        current: u64,
        total: Option<u64>,
        done: bool,
    ) -> Option<String> {
        let known = self.parts.get(&part).map(|known| (known.began, known.shown));
        let due = known.is_none_or(|(_, shown)| elapsed.saturating_sub(shown) >= PART_INTERVAL);
        if !done && !due {
            return None;
        }
        let began = known.map_or(elapsed, |(began, _)| began);
        let mut line = part.clone();
        match total {
            Some(total) if total > 0 && !done => {
                let _ = write!(line, " {} / {}", format::size(current), format::size(total));
            }
            _ if current > 0 => {
                let _ = write!(line, ": {}", format::size(current));
            }
            _ => {}
        }
        let seconds = elapsed.saturating_sub(began).as_secs_f64();
        if seconds >= 0.05 {
            let _ = write!(line, " {seconds:.1}s");
        }
        if done {
            line.push_str(" done");
            self.parts.remove(&part);
        } else {
            self.parts.insert(
                part,
                Part {
                    began,
                    shown: elapsed,
                },
            );
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests;
