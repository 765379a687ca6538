//! What happens during a build, as one typed stream.
//!
//! A terminal view, a plain log, JSON lines and a server are only different readers of these events.
//! Events of one vertex arrive in order; those of different vertices interleave.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::SourceSpan;
use crate::why::Summary;

/// Receives events; called from several threads.
pub trait EventSink: Send + Sync {
    /// Takes one event. It must not block for long: the steps wait for it.
    fn event(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn event(&self, _event: Event) {}
}

/// Names a unit of work in the event stream: a vertex of the graph, or internal work such as loading the
/// Dockerfile, resolving an image or writing the result. Numbers are given in order of announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// One thing that happened, and when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Time since the build began.
    pub elapsed: Duration,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum EventKind {
    /// A task exists. It may never start: when its result is not needed or the build ends early.
    Announced {
        /// The task.
        task: TaskId,
        /// What a person sees, for example `[build 2/4] RUN make`.
        name: String,
        /// The tasks that it needs first.
        inputs: Vec<TaskId>,
        /// The place in the Dockerfile.
        span: Option<SourceSpan>,
    },
    /// Work on a task began.
    Started {
        /// The task.
        task: TaskId,
    },
    /// The task's result was there already.
    Cached {
        /// The task.
        task: TaskId,
    },
    /// Output of the task's process, as it came: neither lines nor characters need be whole.
    Output {
        /// The task.
        task: TaskId,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        #[serde(with = "bytes_as_base64")]
        data: Vec<u8>,
    },
    /// How far a part of the task is, such as the download of one layer.
    Progress {
        /// The task.
        task: TaskId,
        /// The part, for example `sha256:3f4d… ` or `unpacking sha256:3f4d…`.
        part: String,
        /// Bytes so far.
        current: u64,
        /// All bytes, when known.
        total: Option<u64>,
        /// Whether the part is complete.
        done: bool,
    },
    /// The task succeeded.
    Done {
        /// The task.
        task: TaskId,
        /// How long it worked.
        duration: Duration,
    },
    /// The task failed.
    Failed {
        /// The task.
        task: TaskId,
        /// How long it worked.
        duration: Duration,
        /// The cause, in one line.
        message: String,
    },
    /// The task was stopped because the build ends.
    Canceled {
        /// The task.
        task: TaskId,
    },
    /// Something that the user should know and that does not stop the build.
    Warning {
        /// The task that it concerns.
        task: Option<TaskId>,
        /// One line.
        message: String,
        /// The place in the Dockerfile.
        span: Option<SourceSpan>,
    },
    /// Why steps ran, and what was saved; at the end of a build that was not fully cached.
    Summary {
        /// What there is to say.
        summary: Summary,
    },
}

/// A process's output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

mod bytes_as_base64 {
    //! Output bytes need not be text, so they travel in base64, as in BuildKit's raw JSON.

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
