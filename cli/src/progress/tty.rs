//! The live view: what has ended scrolls up, what runs stays at the bottom with its last lines of output.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_solver::event::{Event, EventKind, EventSink, TaskId};

use crate::format;

/// Lines of output shown under a running step.
const TAIL: usize = 4;
/// More running steps than this are summed up in one line.
const MAX_SHOWN: usize = 8;

/// Draws on the terminal.
pub(crate) struct Tty {
    state: Arc<Mutex<State>>,
    ticker: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct State {
    title: String,
    screen: MultiProgress,
    header: ProgressBar,
    tasks: BTreeMap<TaskId, TaskState>,
    began: Instant,
    over: bool,
}

struct TaskState {
    name: String,
    phase: Phase,
    bar: Option<ProgressBar>,
    tail: Vec<String>,
    partial: Vec<u8>,
    parts: BTreeMap<String, (u64, Option<u64>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running(Instant),
    Ended,
}

impl Tty {
    /// A view headed by `title`, redrawn ten times a second.
    pub(crate) fn new(title: &str) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let header = screen.add(line());
        let state = State {
            title: title.to_owned(),
            screen,
            header,
            tasks: BTreeMap::new(),
            began: Instant::now(),
            over: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let ticker = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(Duration::from_millis(100));
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    if state.over {
                        break;
                    }
                    state.draw();
                }
            });
        Self {
            state,
            ticker: Mutex::new(ticker.ok()),
        }
    }

    /// Draws the last state and leaves the terminal.
    pub(crate) fn finish(&self) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.over = true;
            state.draw();
            let summary = state.summary();
            state.header.finish_and_clear();
            state.print(&summary);
        }
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            // A panic in drawing has been reported by then and harms nothing.
            let _ = ticker.join();
        }
    }
}

impl EventSink for Tty {
    fn event(&self, event: Event) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .event(event.kind);
    }
}

impl State {
    fn event(&mut self, event: EventKind) {
        match event {
            EventKind::Announced { task, name, .. } => {
                let state = TaskState {
                    name,
                    phase: Phase::Waiting,
                    bar: None,
                    tail: Vec::new(),
                    partial: Vec::new(),
                    parts: BTreeMap::new(),
                };
                self.tasks.insert(task, state);
            }
            EventKind::Started { task } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.phase = Phase::Running(Instant::now());
                }
            }
            EventKind::Cached { task } => self.end(task, |name| format!(" => CACHED {name}")),
            EventKind::Output { task, data, .. } => {
                if let Some(state) = self.tasks.get_mut(&task) {
                    state.output(&data);
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
                    if done {
                        state.parts.remove(&part);
                    } else {
                        state.parts.insert(part, (current, total));
                    }
                }
            }
            EventKind::Done { task, duration } => {
                self.end(task, |name| format!(" => {name}  {:.1}s", duration.as_secs_f64()));
            }
            EventKind::Failed { task, message, .. } => {
                self.end(task, |name| format!(" => ERROR {name}\n    {message}"));
            }
            EventKind::Canceled { task } => self.end(task, |name| format!(" => CANCELED {name}")),
            EventKind::Warning { message, .. } => self.print(&format!(" WARN: {message}")),
        }
    }

    /// Moves a task from the live part to the scrolled one.
    fn end(&mut self, task: TaskId, text: impl FnOnce(&str) -> String) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        state.phase = Phase::Ended;
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        let text = text(&state.name);
        self.print(&text);
    }

    fn print(&self, text: &str) {
        for line in text.lines() {
            // A closed terminal ends the view, not the build.
            let _ = self.screen.println(line);
        }
    }

    fn summary(&self) -> String {
        let ended = self
            .tasks
            .values()
            .filter(|task| task.phase == Phase::Ended)
            .count();
        let seconds = self.began.elapsed().as_secs_f64();
        format!("[+] {} {seconds:.1}s ({ended}/{})", self.title, self.tasks.len())
    }

    fn draw(&mut self) {
        self.header.set_message(self.summary());
        let mut running: Vec<&mut TaskState> = self
            .tasks
            .values_mut()
            .filter(|task| matches!(task.phase, Phase::Running(_)))
            .collect();
        let hidden = running.len().saturating_sub(MAX_SHOWN);
        let tail = if running.len() > 3 { 1 } else { TAIL };
        for task in running.iter_mut().take(MAX_SHOWN) {
            let bar = task.bar.get_or_insert_with(|| self.screen.add(line())).clone();
            bar.set_message(fit(&task.text(tail)));
        }
        if hidden > 0 {
            self.header
                .set_message(format!("{} and {hidden} more running", self.summary()));
        }
        self.header.tick();
    }
}

impl TaskState {
    fn output(&mut self, data: &[u8]) {
        for byte in data {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.partial);
                    self.push(&line);
                }
                b'\r' => self.partial.clear(),
                // Long lines are cut by the terminal's width anyway.
                byte if self.partial.len() < 1024 => self.partial.push(*byte),
                _ => {}
            }
        }
    }

    fn push(&mut self, line: &[u8]) {
        let text = console::strip_ansi_codes(&String::from_utf8_lossy(line)).into_owned();
        self.tail.push(text.replace('\t', "    "));
        if self.tail.len() > TAIL {
            self.tail.remove(0);
        }
    }

    fn text(&self, tail: usize) -> String {
        let seconds = match self.phase {
            Phase::Running(since) => since.elapsed().as_secs_f64(),
            Phase::Waiting | Phase::Ended => 0.0,
        };
        let mut text = format!(" => {}  {seconds:.1}s", self.name);
        for (part, (current, total)) in self.parts.iter().take(TAIL) {
            let short: String = part.chars().take(40).collect();
            let total = total
                .map(|total| format!(" / {}", format::size(total)))
                .unwrap_or_default();
            text.push_str(&format!("\n => => {short} {}{total}", format::size(*current)));
        }
        for line in self.tail.iter().rev().take(tail).rev() {
            text.push_str("\n => => # ");
            text.push_str(line);
        }
        text
    }
}

/// Cuts each line at the terminal's width: a wrapped line would make the redrawing go astray.
fn fit(text: &str) -> String {
    let width = usize::from(console::Term::stderr().size().1).max(20);
    let lines: Vec<_> = text
        .lines()
        .map(|line| console::truncate_str(line, width - 1, "…"))
        .collect();
    lines.join("\n")
}

fn line() -> ProgressBar {
    let bar = ProgressBar::no_length();
    // The template is a constant: it is malformed for all or for none, and a test draws it.
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}
