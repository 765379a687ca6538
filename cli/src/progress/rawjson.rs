//! The machine's view: one JSON object a line, in the shape of BuildKit's solve status.
//!
//! Each line may hold `vertexes`, `statuses`, `logs` (data in base64) and `warnings`. A vertex is told again,
//! whole, whenever something about it changes; its `digest` is the sha256 of its number and name.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kiln_image::Digest;
use kiln_solver::event::{Event, EventKind, Stream, TaskId};
use serde_json::{Value, json};

/// Writes JSON lines.
pub(crate) struct RawJson {
    out: Box<dyn Write + Send>,
    began: Timestamp,
    vertexes: HashMap<TaskId, Value>,
    /// When each part began.
    parts: HashMap<(TaskId, String), String>,
}

impl RawJson {
    /// A view that writes to `out`; the build begins now.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            began: Timestamp::now(),
            vertexes: HashMap::new(),
            parts: HashMap::new(),
        }
    }

    /// Takes one event.
    pub(crate) fn event(&mut self, event: Event) {
        let text = format!("{}\n", self.line(event));
        // A closed pipe ends the view, not the build.
        let _ = self.out.write_all(text.as_bytes());
    }

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
                let mut status = json!({
                    "id": part,
                    "vertex": self.digest(task),
                    "current": current,
                    "timestamp": time,
                    "started": self.parts.entry((task, part)).or_insert_with(|| time.clone()),
                });
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
            EventKind::Summary { summary } => json!({ "summary": summary }),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use jiff::Timestamp;
    use kiln_solver::event::{Event, EventKind, Stream, TaskId};
    use serde_json::Value;

    use super::RawJson;
    use crate::progress::plain::Plain;
    use crate::progress::testing::{Buffer, announced, done, failed, output, started};

    fn events() -> Vec<(u64, EventKind)> {
        let part = |current, done| EventKind::Progress {
            task: TaskId(2),
            part: "sha256:ab".to_owned(),
            current,
            total: Some(7_000),
            done,
        };
        vec![
            (0, announced(1, "[1/3] FROM busybox")),
            (0, announced(2, "[2/3] FROM debian")),
            (0, announced(3, "[3/3] RUN b")),
            (0, announced(4, "[4/3] RUN c")),
            (10, EventKind::Cached { task: TaskId(1) }),
            (20, started(2)),
            (30, part(0, false)),
            (6_040, part(3_500, false)),
            (7_050, part(7_000, true)),
            (7_060, done(2, 7_040)),
            (7_100, started(3)),
            (7_200, output(3, "one\ntw")),
            (7_300, output(3, "o\n\u{e9}")),
            (
                7_400,
                EventKind::Warning {
                    task: Some(TaskId(3)),
                    message: "odd".to_owned(),
                    span: None,
                },
            ),
            (7_500, started(4)),
            (8_500, failed(3, "exit code: 1")),
            (8_600, EventKind::Canceled { task: TaskId(4) }),
        ]
    }

    fn raw() -> String {
        let buffer = Buffer::default();
        let mut raw = RawJson::new(Box::new(buffer.clone()));
        for (millis, kind) in events() {
            raw.event(Event {
                elapsed: Duration::from_millis(millis),
                kind,
            });
        }
        buffer.text()
    }

    fn bytes(value: &Value) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD
            .decode(value.as_str().unwrap())
            .unwrap()
    }

    /// Reads a status line back: what a reader of BuildKit's solve status understands of it.
    fn read(line: &Value, began: Timestamp, known: &mut Vec<String>) -> (Duration, EventKind) {
        let elapsed = |value: &Value| {
            let time: Timestamp = value.as_str().unwrap().parse().unwrap();
            Duration::try_from(time.duration_since(began)).unwrap()
        };
        let vertex_of = |value: &Value| {
            TaskId(
                known
                    .iter()
                    .position(|digest| Some(digest.as_str()) == value.as_str())
                    .unwrap() as u64,
            )
        };
        if let Some(log) = line["logs"].get(0) {
            let stream = if log["stream"] == 1 {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            let output = EventKind::Output {
                task: vertex_of(&log["vertex"]),
                stream,
                data: bytes(&log["data"]),
            };
            return (elapsed(&log["timestamp"]), output);
        }
        if let Some(status) = line["statuses"].get(0) {
            let progress = EventKind::Progress {
                task: vertex_of(&status["vertex"]),
                part: status["id"].as_str().unwrap().to_owned(),
                current: status["current"].as_u64().unwrap(),
                total: status["total"].as_u64(),
                done: status.get("completed").is_some(),
            };
            return (elapsed(&status["timestamp"]), progress);
        }
        if let Some(warning) = line["warnings"].get(0) {
            let message = String::from_utf8(bytes(&warning["short"])).unwrap();
            let task = Some(vertex_of(&warning["vertex"]));
            // Warnings have no time of their own.
            return (
                Duration::from_millis(7_400),
                EventKind::Warning {
                    task,
                    message,
                    span: None,
                },
            );
        }
        let vertex = &line["vertexes"][0];
        let digest = vertex["digest"].as_str().unwrap().to_owned();
        if !known.contains(&digest) {
            known.push(digest);
            let name = vertex["name"].as_str().unwrap();
            return (Duration::ZERO, announced(known.len() as u64 - 1, name));
        }
        let task = vertex_of(&vertex["digest"]);
        let Some(completed) = vertex.get("completed").map(elapsed) else {
            return (elapsed(&vertex["started"]), EventKind::Started { task });
        };
        let duration = completed.saturating_sub(elapsed(&vertex["started"]));
        let kind = match vertex.get("error").and_then(Value::as_str) {
            Some("context canceled") => EventKind::Canceled { task },
            Some(message) => EventKind::Failed {
                task,
                duration,
                message: message.to_owned(),
            },
            None if vertex["cached"] == true => EventKind::Cached { task },
            None => EventKind::Done { task, duration },
        };
        (completed, kind)
    }

    #[test]
    fn a_recording_replays_to_the_same_plain_text() {
        let lines: Vec<Value> = raw()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let times = lines
            .iter()
            .filter_map(|line| line["vertexes"][0]["started"].as_str());
        let first: Timestamp = times.map(|time| time.parse().unwrap()).min().unwrap();
        let began = first - jiff::SignedDuration::from_millis(10);
        let mut known = Vec::new();
        let shown = |events: &[(Duration, EventKind)]| {
            let buffer = Buffer::default();
            let mut plain = Plain::new(Box::new(buffer.clone()));
            for (elapsed, kind) in events {
                plain.event(Event {
                    elapsed: *elapsed,
                    kind: kind.clone(),
                });
            }
            plain.finish();
            buffer.text()
        };
        let replayed: Vec<_> = lines.iter().map(|line| read(line, began, &mut known)).collect();
        let original: Vec<_> = events()
            .into_iter()
            .map(|(millis, kind)| (Duration::from_millis(millis), kind))
            .collect();
        let text = shown(&original);
        assert!(text.contains("#3 0.200 two\n#3 WARN: odd\n"), "{text}");
        assert_eq!(shown(&replayed), text);
    }

    #[test]
    fn each_line_is_a_solve_status() {
        let lines: Vec<Value> = raw()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), events().len());
        let failed = &lines[15]["vertexes"][0];
        assert_eq!(failed["name"], "[3/3] RUN b");
        assert_eq!(failed["error"], "exit code: 1");
        assert!(failed["digest"].as_str().unwrap().starts_with("sha256:"));
        let status = &lines[8]["statuses"][0];
        assert_eq!(
            (&status["current"], &status["total"]),
            (&7_000.into(), &7_000.into())
        );
        assert_eq!(status["started"], lines[6]["statuses"][0]["timestamp"]);
        assert_eq!(status["completed"], status["timestamp"]);
    }
}
