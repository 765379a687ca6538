//! Reporting of one build's tasks: numbering, clock and the event sink in one handle.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::event::{Event, EventKind, EventSink, Stream, TaskId};
use crate::graph::SourceSpan;
use crate::why::Summary;

/// Announces tasks and reports what happens to them. Cheap to clone; one per build.
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
}

struct Inner {
    sink: Arc<dyn EventSink>,
    started: Instant,
    next: AtomicU64,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reporter")
            .field("next", &self.inner.next)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// A reporter whose clock starts now.
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self {
            inner: Arc::new(Inner {
                sink,
                started: Instant::now(),
                next: AtomicU64::new(1),
            }),
        }
    }

    /// Time since the build began.
    pub fn elapsed(&self) -> std::time::Duration {
        self.inner.started.elapsed()
    }

    /// Announces a task.
    pub fn announce(&self, name: impl Into<String>, inputs: Vec<TaskId>, span: Option<SourceSpan>) -> Task {
        let id = TaskId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        self.send(EventKind::Announced {
            task: id,
            name: name.into(),
            inputs,
            span,
        });
        Task {
            reporter: self.clone(),
            id,
            began: Arc::default(),
        }
    }

    /// Reports a warning that belongs to no task.
    pub fn warn(&self, message: impl Into<String>, span: Option<SourceSpan>) {
        self.send(EventKind::Warning {
            task: None,
            message: message.into(),
            span,
        });
    }

    /// Reports why the build's steps ran, and what was saved.
    pub fn summary(&self, summary: Summary) {
        self.send(EventKind::Summary { summary });
    }

    fn send(&self, kind: EventKind) {
        self.inner.sink.event(Event {
            elapsed: self.inner.started.elapsed(),
            kind,
        });
    }
}

/// One announced task.
#[derive(Debug, Clone)]
pub struct Task {
    reporter: Reporter,
    id: TaskId,
    /// Shared by the clones: whoever ends the task tells the time since somebody started it.
    began: Arc<OnceLock<Instant>>,
}

impl Task {
    fn duration(&self) -> Duration {
        self.began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The task's number.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Work begins: the task's time counts from here.
    pub fn start(&mut self) {
        // A task starts once.
        let _ = self.began.set(Instant::now());
        self.reporter.send(EventKind::Started { task: self.id });
    }

    /// The result was there already.
    pub fn cached(&self) {
        self.reporter.send(EventKind::Cached { task: self.id });
    }

    /// Output of the task's process.
    pub fn output(&self, stream: Stream, data: &[u8]) {
        self.reporter.send(EventKind::Output {
            task: self.id,
            stream,
            data: data.to_vec(),
        });
    }

    /// How far a part of the task is.
    pub fn progress(&self, part: impl Into<String>, current: u64, total: Option<u64>, done: bool) {
        self.reporter.send(EventKind::Progress {
            task: self.id,
            part: part.into(),
            current,
            total,
            done,
        });
    }

    /// The task succeeded.
    pub fn done(&self) {
        self.reporter.send(EventKind::Done {
            task: self.id,
            duration: self.duration(),
        });
    }

    /// The task failed.
    pub fn failed(&self, message: impl Into<String>) {
        let duration = self.duration();
        self.reporter.send(EventKind::Failed {
            task: self.id,
            duration,
            message: message.into(),
        });
    }

    /// The task was stopped because the build ends.
    pub fn canceled(&self) {
        self.reporter.send(EventKind::Canceled { task: self.id });
    }

    /// Something that the user should know about this task.
    pub fn warn(&self, message: impl Into<String>, span: Option<SourceSpan>) {
        self.reporter.send(EventKind::Warning {
            task: Some(self.id),
            message: message.into(),
            span,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::Reporter;
    use crate::event::{Event, EventKind, EventSink};

    #[derive(Default)]
    struct Kept(Mutex<Vec<EventKind>>);

    impl EventSink for Kept {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event.kind);
        }
    }

    #[test]
    fn time_counts_from_the_start_whichever_clone_ends_the_task() {
        let kept = Arc::new(Kept::default());
        let task = Reporter::new(Arc::clone(&kept) as _).announce("x", Vec::new(), None);
        std::thread::sleep(Duration::from_millis(100));
        let mut clone = task.clone();
        clone.start();
        task.done();
        let events = kept.0.lock().unwrap();
        let Some(EventKind::Done { duration, .. }) = events.last() else {
            panic!("{events:?}")
        };
        assert!(*duration < Duration::from_millis(100), "{duration:?}");
    }
}
