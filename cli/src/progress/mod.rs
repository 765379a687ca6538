//! Views of a build's events: a live terminal, plain lines, JSON lines, or nothing.
//!
//! Each view is a reader of [`kiln_solver::event::Event`]; all write to standard error.

mod lines;
mod live;
mod plain;
mod rawjson;
#[cfg(test)]
mod testing;
mod tty;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use kiln_solver::event::{Event, EventSink, Silent};

pub(crate) use lines::visible;

use self::live::Live;
use self::plain::Plain;
use self::rawjson::RawJson;
use crate::arguments::Progress;

/// How often the plain view looks for lines that have waited long enough.
const PLAIN_INTERVAL: Duration = Duration::from_millis(250);

/// Leaves the terminal as it was, however the program ends: also by a panic, or without ending its view.
#[derive(Debug)]
pub(crate) struct TerminalGuard;

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        live::restore_terminal();
    }
}

/// A view that is to be ended before anything else is printed. Clones are the same view.
#[derive(Clone)]
pub(crate) struct View {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Live(Arc<Live>),
    Plain(Arc<Shared<Plain>>),
    RawJson(Arc<Shared<RawJson>>),
    Quiet,
}

/// A view that writes each event as it comes.
struct Shared<V>(Mutex<V>);

impl<V> Shared<V> {
    fn with(&self, work: impl FnOnce(&mut V)) {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl EventSink for Shared<Plain> {
    fn event(&self, event: Event) {
        self.with(|plain| plain.event(event));
    }
}

impl EventSink for Shared<RawJson> {
    fn event(&self, event: Event) {
        self.with(|raw| raw.event(event));
    }
}

impl View {
    /// The view that `progress` asks for. A live one needs a terminal that can move its cursor.
    pub(crate) fn new(progress: Progress, title: &str) -> Self {
        let capable = std::io::stderr().is_terminal() && !crate::style::is_dumb();
        let kind = match progress {
            Progress::Auto | Progress::Tty if capable => Kind::Live(Arc::new(Live::new(title))),
            Progress::Auto | Progress::Tty | Progress::Plain => {
                let plain = Arc::new(Shared(Mutex::new(Plain::new(Box::new(std::io::stderr())))));
                keep_ticking(Arc::downgrade(&plain));
                Kind::Plain(plain)
            }
            Progress::Rawjson => Kind::RawJson(Arc::new(Shared(Mutex::new(RawJson::new(Box::new(
                std::io::stderr(),
            )))))),
            Progress::Quiet => Kind::Quiet,
        };
        Self { kind }
    }

    /// Where the events go.
    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        match &self.kind {
            Kind::Live(live) => Arc::clone(live) as _,
            Kind::Plain(plain) => Arc::clone(plain) as _,
            Kind::RawJson(raw) => Arc::clone(raw) as _,
            Kind::Quiet => Arc::new(Silent),
        }
    }

    /// Shows a message to a person, without disturbing what is shown besides.
    pub(crate) fn notice(&self, text: &str) {
        match &self.kind {
            Kind::Live(live) => live.notice(text),
            Kind::Plain(plain) => plain.with(|plain| plain.notice(text)),
            Kind::RawJson(_) | Kind::Quiet => {}
        }
    }

    /// Shows what is left and takes the live part off the terminal.
    pub(crate) fn finish(&self) {
        match &self.kind {
            Kind::Live(live) => live.finish(),
            Kind::Plain(plain) => plain.with(Plain::finish),
            Kind::RawJson(_) | Kind::Quiet => {}
        }
    }
}

/// Lets lines that wait for their turn be shown also when nothing else happens. Ends with the view.
fn keep_ticking(plain: Weak<Shared<Plain>>) {
    let began = Instant::now();
    let ticking = std::thread::Builder::new()
        .name("progress".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(PLAIN_INTERVAL);
                let Some(plain) = plain.upgrade() else { break };
                plain.with(|plain| plain.tick(began.elapsed()));
            }
        });
    // Without the thread such lines come with the next event, or at the end.
    drop(ticking);
}
