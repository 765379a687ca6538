//! Views of a build's events: a live terminal, plain lines, JSON lines, or nothing.
//!
//! Each view is a reader of [`kiln_solver::event::Event`]; all write to standard error.

mod plain;
mod rawjson;
mod tty;

use std::io::IsTerminal;
use std::sync::Arc;

use kiln_solver::event::{EventSink, Silent};

pub(crate) use plain::Plain;
pub(crate) use rawjson::RawJson;
pub(crate) use tty::Tty;

use crate::arguments::Progress;

/// A view that is to be ended before anything else is printed.
pub(crate) struct View {
    sink: Arc<dyn EventSink>,
    finish: Box<dyn FnOnce()>,
}

impl View {
    /// The view that `progress` asks for.
    pub(crate) fn new(progress: Progress, title: &str) -> Self {
        let progress = match progress {
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Tty,
            Progress::Auto => Progress::Plain,
            explicit => explicit,
        };
        match progress {
            Progress::Auto | Progress::Plain => {
                let plain = Arc::new(Plain::new(Box::new(std::io::stderr())));
                let last = Arc::clone(&plain);
                Self {
                    sink: plain,
                    finish: Box::new(move || last.finish()),
                }
            }
            Progress::Tty => {
                let tty = Arc::new(Tty::new(title));
                let last = Arc::clone(&tty);
                Self {
                    sink: tty,
                    finish: Box::new(move || last.finish()),
                }
            }
            Progress::Rawjson => {
                let raw = Arc::new(RawJson::new(Box::new(std::io::stderr())));
                Self {
                    sink: raw,
                    finish: Box::new(|| {}),
                }
            }
            Progress::Quiet => Self {
                sink: Arc::new(Silent),
                finish: Box::new(|| {}),
            },
        }
    }

    /// Where the events go.
    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        Arc::clone(&self.sink)
    }

    /// Shows what is left and takes the live part off the terminal.
    pub(crate) fn finish(self) {
        (self.finish)();
    }
}
