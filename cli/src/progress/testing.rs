//! What the views' tests share.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_solver::event::{EventKind, Stream, TaskId};

/// Collects what is written.
#[derive(Clone, Default)]
pub(super) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn announced(task: u64, name: &str) -> EventKind {
    EventKind::Announced {
        task: TaskId(task),
        name: name.to_owned(),
        inputs: Vec::new(),
        span: None,
    }
}

pub(super) fn started(task: u64) -> EventKind {
    EventKind::Started { task: TaskId(task) }
}

pub(super) fn output(task: u64, text: &str) -> EventKind {
    EventKind::Output {
        task: TaskId(task),
        stream: Stream::Stdout,
        data: text.as_bytes().to_vec(),
    }
}

pub(super) fn done(task: u64, millis: u64) -> EventKind {
    EventKind::Done {
        task: TaskId(task),
        duration: Duration::from_millis(millis),
    }
}

pub(super) fn failed(task: u64, message: &str) -> EventKind {
    EventKind::Failed {
        task: TaskId(task),
        duration: Duration::ZERO,
        message: message.to_owned(),
    }
}
