//! The machine's view: one JSON object a line, in the shape of BuildKit's solve status.
//!
//! Each line may hold `vertexes`, `statuses`, `logs` (data in base64) and `warnings`. A vertex is told again,
//! whole, whenever something about it changes; its `digest` is the sha256 of its number and name.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kiln_image::Digest;
use kiln_solver::event::{Event, EventKind, EventSink, Stream, TaskId};
use serde_json::{Value, json};

/// Writes JSON lines.
pub(crate) struct RawJson {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    began: Timestamp,
    vertexes: HashMap<TaskId, Value>,
}

impl RawJson {
    /// A view that writes to `out`; the build begins now.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            state: Mutex::new(State {
                out,
                began: Timestamp::now(),
                vertexes: HashMap::new(),
            }),
        }
    }
}

impl EventSink for RawJson {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = state.line(event);
        // A closed pipe ends the view, not the build.
        let _ = writeln!(state.out, "{line}");
    }
}

impl State {
    fn time(&self, elapsed: Duration) -> String {
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::ZERO);
        self.began.checked_add(elapsed).unwrap_or(self.began).to_string()
    }

    fn digest(&self, task: TaskId) -> Value {
        self.vertexes
            .get(&task)
            .and_then(|vertex| vertex.get("digest"))
            .cloned()
            .unwrap_or_default()
    }

    fn line(&mut self, event: Event) -> Value {
        let time = self.time(event.elapsed);
        match event.kind {
            EventKind::Announced {
                task, name, inputs, ..
            } => {
                let digest = Digest::sha256_of(format!("{task} {name}").as_bytes()).to_string();
                let inputs: Vec<Value> = inputs.into_iter().map(|input| self.digest(input)).collect();
                self.vertexes
                    .insert(task, json!({ "digest": digest, "inputs": inputs, "name": name }));
                self.vertex(task, &[])
            }
            EventKind::Started { task } => self.vertex(task, &[("started", json!(time))]),
            EventKind::Cached { task } => {
                let set = [
                    ("started", json!(time)),
                    ("completed", json!(time)),
                    ("cached", json!(true)),
                ];
                self.vertex(task, &set)
            }
            EventKind::Done { task, .. } => self.vertex(task, &[("completed", json!(time))]),
            EventKind::Failed { task, message, .. } => {
                self.vertex(task, &[("completed", json!(time)), ("error", json!(message))])
            }
            EventKind::Canceled { task } => self.vertex(
                task,
                &[("completed", json!(time)), ("error", json!("context canceled"))],
            ),
            EventKind::Output { task, stream, data } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                let data = base64(&data);
                let vertex = self.digest(task);
                json!({ "logs": [{ "vertex": vertex, "stream": stream, "data": data, "timestamp": time }] })
            }
            EventKind::Progress {
                task,
                part,
                current,
                total,
                done,
            } => {
                let mut status =
                    json!({ "id": part, "vertex": self.digest(task), "current": current, "timestamp": time });
                if let Some(total) = total {
                    status["total"] = json!(total);
                }
                if done {
                    status["completed"] = json!(time);
                }
                json!({ "statuses": [status] })
            }
            EventKind::Warning { task, message, .. } => {
                let vertex = task.map_or(Value::Null, |task| self.digest(task));
                json!({ "warnings": [{ "vertex": vertex, "short": base64(message.as_bytes()) }] })
            }
        }
    }

    fn vertex(&mut self, task: TaskId, set: &[(&str, Value)]) -> Value {
        let Some(vertex) = self.vertexes.get_mut(&task) else {
            return Value::Null;
        };
        for (name, value) in set {
            vertex[*name] = value.clone();
        }
        json!({ "vertexes": [vertex.clone()] })
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
