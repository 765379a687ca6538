//! Draws a [`Screen`] on the terminal behind standard error, ten times a second.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_solver::event::{Event, EventSink};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::tty::{Screen, Size};
use crate::style::Style;

const INTERVAL: Duration = Duration::from_millis(100);
/// Terminals that do not tell their size have this one.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// The live view.
pub(super) struct Live {
    state: Arc<Mutex<State>>,
    drawing: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    screen: Screen,
    bar: ProgressBar,
    began: Instant,
    over: bool,
}

impl Live {
    /// A view headed by `title`.
    pub(super) fn new(title: &str) -> Self {
        let target = ProgressDrawTarget::term(console::Term::buffered_stderr(), 20);
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant: it is malformed for all or for none.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        quiet_keys();
        let state = State {
            screen: Screen::new(title, Style::of_stderr()),
            bar,
            began: Instant::now(),
            over: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let drawing = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                loop {
                    // The end of the view does not wait for the interval.
                    std::thread::park_timeout(INTERVAL);
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    if state.over {
                        break;
                    }
                    state.draw();
                }
            });
        // Without a thread the view is drawn at the end only.
        Self {
            state,
            drawing: Mutex::new(drawing.ok()),
        }
    }

    /// Shows a message above the live part.
    pub(super) fn notice(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.over {
            state.screen.notice(text);
            state.draw();
        }
    }

    /// Draws the last state and leaves the terminal.
    pub(super) fn finish(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).finish();
        let drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(drawing) = drawing {
            Thread::unpark(drawing.thread());
            // A panic in drawing has been reported by then and harms nothing.
            let _ = drawing.join();
        }
    }
}

impl EventSink for Live {
    fn event(&self, event: Event) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen
            .event(event);
    }
}

impl State {
    fn draw(&mut self) {
        let size = size();
        self.scroll(size);
        self.bar
            .set_message(self.screen.frame(self.began.elapsed(), size).join("\n"));
        self.bar.tick();
    }

    fn scroll(&mut self, size: Size) {
        let lines = self.screen.scrolled(size);
        if !lines.is_empty() {
            self.bar.println(lines.join("\n"));
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let size = size();
        self.scroll(size);
        self.bar.println(self.screen.summary(self.began.elapsed(), size));
        self.bar.finish_and_clear();
        restore_terminal();
    }
}

/// The terminal's size now: it may change at any time.
fn size() -> Size {
    let (rows, columns) = console::Term::stderr().size_checked().unwrap_or(USUAL_SIZE);
    Size {
        width: usize::from(columns),
        height: usize::from(rows),
    }
}

/// The terminal's modes before [`quiet_keys`].
static MODES: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal no longer shows typed keys (`^C`), which would move the cursor away from where the live part is
/// drawn. Ctrl-C itself works as ever.
fn quiet_keys() {
    let stderr = std::io::stderr();
    // A program in the background must not touch the terminal: it would be stopped.
    let foreground = rustix::termios::tcgetpgrp(&stderr).ok() == Some(rustix::process::getpgrp());
    if !stderr.is_terminal() || !foreground {
        return;
    }
    let Ok(before) = tcgetattr(&stderr) else { return };
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    if tcsetattr(&stderr, OptionalActions::Now, &quiet).is_ok() {
        MODES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(before);
    }
}

/// Makes the terminal as it was before any live view.
pub(super) fn restore_terminal() {
    if let Some(before) = MODES.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A closed terminal has no mode to restore.
        let _ = tcsetattr(std::io::stderr(), OptionalActions::Now, &before);
    }
}
