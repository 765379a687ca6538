//! The plain view: BuildKit's `#N …` lines, which scripts search for `CACHED`, `DONE` and `ERROR`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kiln_solver::event::{Event, EventKind, EventSink, TaskId};

use crate::format;

/// Writes one line after the other.
pub(crate) struct Plain {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    tasks: HashMap<TaskId, TaskState>,
    next_number: usize,
    last: Option<TaskId>,
}

struct TaskState {
    name: String,
    /// Given when the task is first shown.
    number: Option<usize>,
    started: Duration,
    partial: Vec<u8>,
    /// How far a part was when it was last shown.
    shown: HashMap<String, Duration>,
}

/// The progress of one part is shown this often.
const PART_INTERVAL: Duration = Duration::from_secs(5);

impl Plain {
    /// A view that writes to `out`.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        let state = State {
            out,
            tasks: HashMap::new(),
            next_number: 1,
            last: None,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Writes what is left: lines that no newline ended.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<TaskId> = state
            .tasks
            .iter()
            .filter(|(_, task)| !task.partial.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for task in open {
            state.flush(task, Duration::ZERO);
        }
    }
}

impl EventSink for Plain {
    fn event(&self, event: Event) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .event(event);
    }
}

impl State {
    fn event(&mut self, event: Event) {
        let elapsed = event.elapsed;
        match event.kind {
            EventKind::Announced { task, name, .. } => {
                let state = TaskState {
                    name,
                    number: None,
                    started: elapsed,
                    partial: Vec::new(),
                    shown: HashMap::new(),
                };
                self.tasks.insert(task, state);
            }
            EventKind::Started { task } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.started = elapsed;
                }
                self.line(task, "");
            }
            EventKind::Cached { task } => self.end(task, "CACHED"),
            EventKind::Output { task, data, .. } => self.output(task, elapsed, &data),
            EventKind::Progress {
                task,
                part,
                current,
                total,
                done,
            } => {
                self.part(task, elapsed, part, current, total, done);
            }
            EventKind::Done { task, duration } => {
                self.flush(task, elapsed);
                self.end(task, &format!("DONE {:.1}s", duration.as_secs_f64()));
            }
            EventKind::Failed { task, message, .. } => {
                self.flush(task, elapsed);
                self.end(task, &format!("ERROR: {message}"));
            }
            EventKind::Canceled { task } => {
                self.flush(task, elapsed);
                self.end(task, "CANCELED");
            }
            EventKind::Warning {
                task: Some(task),
                message,
                ..
            } => self.line(task, &format!("WARN: {message}")),
            EventKind::Warning {
                task: None, message, ..
            } => self.write(&format!("WARN: {message}\n")),
        }
    }

    fn output(&mut self, task: TaskId, elapsed: Duration, data: &[u8]) {
        let mut lines = Vec::new();
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        let seconds = elapsed.saturating_sub(state.started).as_secs_f64();
        for byte in data {
            if *byte == b'\n' {
                let line = std::mem::take(&mut state.partial);
                lines.push(format!("{seconds:.3} {}", clean(&line)));
            } else {
                state.partial.push(*byte);
            }
        }
        for line in lines {
            self.line(task, &line);
        }
    }

    fn flush(&mut self, task: TaskId, elapsed: Duration) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        if state.partial.is_empty() {
            return;
        }
        let line = std::mem::take(&mut state.partial);
        let seconds = elapsed.saturating_sub(state.started).as_secs_f64();
        self.line(task, &format!("{seconds:.3} {}", clean(&line)));
    }

    fn part(
        &mut self,
        task: TaskId,
        elapsed: Duration,
        part: String,
        current: u64,
        total: Option<u64>,
        done: bool,
    ) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        let due = state
            .shown
            .get(&part)
            .is_none_or(|shown| elapsed.saturating_sub(*shown) >= PART_INTERVAL);
        if !done && !due {
            return;
        }
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
        let seconds = elapsed.saturating_sub(state.started).as_secs_f64();
        let _ = write!(line, " {seconds:.1}s");
        if done {
            line.push_str(" done");
        }
        state.shown.insert(part, elapsed);
        self.line(task, &line);
    }

    fn end(&mut self, task: TaskId, how: &str) {
        self.line(task, how);
        self.write("\n");
        self.last = None;
    }

    /// Writes a line of a task, after its name when another task was last.
    fn line(&mut self, task: TaskId, text: &str) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        let mut lines = String::new();
        let first_time = state.number.is_none();
        let number = *state.number.get_or_insert(self.next_number);
        if first_time {
            self.next_number += 1;
        }
        if self.last != Some(task) {
            if self.last.is_some() {
                lines.push('\n');
            }
            let heading = if first_time { state.name.as_str() } else { "..." };
            let _ = writeln!(lines, "#{number} {heading}");
            self.last = Some(task);
        }
        if !text.is_empty() {
            let _ = writeln!(lines, "#{number} {text}");
        }
        self.write(&lines);
    }

    fn write(&mut self, text: &str) {
        // A closed pipe ends the view, not the build.
        let _ = self.out.write_all(text.as_bytes());
    }
}

/// A line of output as text; a carriage return starts the line over, as on a terminal.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    text.rsplit('\r').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use kiln_solver::event::{Event, EventKind, EventSink, Stream, TaskId};

    use super::Plain;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(kinds: Vec<EventKind>) -> String {
        let buffer = Buffer::default();
        let plain = Plain::new(Box::new(buffer.clone()));
        for (tick, kind) in kinds.into_iter().enumerate() {
            plain.event(Event {
                elapsed: Duration::from_millis(tick as u64 * 100),
                kind,
            });
        }
        plain.finish();
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn announced(task: u64, name: &str) -> EventKind {
        EventKind::Announced {
            task: TaskId(task),
            name: name.to_owned(),
            inputs: Vec::new(),
            span: None,
        }
    }

    fn output(task: u64, text: &str) -> EventKind {
        EventKind::Output {
            task: TaskId(task),
            stream: Stream::Stdout,
            data: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn numbers_follow_the_order_of_appearance() {
        let text = shown(vec![
            announced(1, "[1/3] FROM busybox"),
            announced(2, "[2/3] RUN a"),
            announced(3, "[3/3] RUN b"),
            EventKind::Cached { task: TaskId(1) },
            EventKind::Started { task: TaskId(3) },
            output(3, "one\ntwo"),
            EventKind::Started { task: TaskId(2) },
            EventKind::Failed {
                task: TaskId(2),
                duration: Duration::ZERO,
                message: "exit code: 1".to_owned(),
            },
            EventKind::Done {
                task: TaskId(3),
                duration: Duration::from_millis(1_260),
            },
        ]);
        let expected = "#1 [1/3] FROM busybox\n#1 CACHED\n\n#2 [3/3] RUN b\n#2 0.100 one\n\n#3 [2/3] RUN a\n\
                        #3 ERROR: exit code: 1\n\n#2 ...\n#2 0.400 two\n#2 DONE 1.3s\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_without_newline_is_not_lost() {
        let text = shown(vec![
            announced(1, "x"),
            EventKind::Started { task: TaskId(1) },
            output(1, "partial"),
        ]);
        assert!(text.ends_with("partial\n"), "{text}");
    }

    #[test]
    fn a_carriage_return_starts_over() {
        let text = shown(vec![
            announced(1, "x"),
            EventKind::Started { task: TaskId(1) },
            output(1, "10%\r20%\r\n"),
        ]);
        assert!(text.contains("#1 0.100 20%\n"), "{text}");
    }
}
