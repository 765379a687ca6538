//! The run: a thread for each vertex that has to work, as soon as its inputs are there.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use kiln_cache::{Key, KeyPart, Record, RecordKind, Snapshot};
use kiln_remote::Caller;

use super::taken::with_lists;
use super::{Chosen, Solve};
use crate::cancel::Cancel;
use crate::error::{SolveError, StepFailure};
use crate::graph::{Op, Source, Vertex, VertexId};
use crate::remote::RemoteError;
use crate::report::{MadeOf, StepOutcome};
use crate::schedule::Schedule;
use crate::task::Task;

/// How often a step is begun whose local files change while it copies them.
const ATTEMPTS: u32 = 4;

type Ended = (VertexId, Result<(), StepFailure>);

/// Tells the driving thread how a step ended, even when its thread panics: else it would wait for ever.
struct Ending {
    sender: mpsc::Sender<Ended>,
    id: VertexId,
    result: Option<Result<(), StepFailure>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let panicked = || Err(StepFailure::Graph("the step's thread panicked"));
        // The receiver outlives all steps.
        let _ = self
            .sender
            .send((self.id, self.result.take().unwrap_or_else(panicked)));
    }
}

impl Solve<'_> {
    /// Runs `needed`, each vertex as soon as its inputs are there. `cancel` is the caller's.
    pub(super) fn run(&self, needed: &[VertexId], cancel: &Cancel) -> Result<(), SolveError> {
        let inputs = |id| {
            self.same_as(id)
                .map_or_else(|| self.graph.inputs(id), |first| vec![first])
        };
        let mut schedule = Schedule::new(needed, inputs, self.request.jobs);
        let (sender, receiver) = mpsc::channel::<Ended>();
        let mut failure: Option<SolveError> = None;
        let mut lost: Option<SolveError> = None;
        std::thread::scope(|scope| {
            loop {
                while let Some(id) = schedule.next() {
                    if self.stop.is_raised() {
                        schedule.failed();
                        break;
                    }
                    let sender = sender.clone();
                    let thread = std::thread::Builder::new().name(format!("step-{id}"));
                    let started = thread.spawn_scoped(scope, move || {
                        let mut ending = Ending {
                            sender,
                            id,
                            result: None,
                        };
                        ending.result = Some(self.run_vertex(id));
                    });
                    if let Err(error) = started {
                        schedule.failed();
                        failure.get_or_insert(SolveError::Thread(error));
                        self.stop.raise();
                    }
                }
                if schedule.is_over() {
                    break;
                }
                let Ok((id, result)) = receiver.recv() else { break };
                match result {
                    Ok(()) => schedule.finished(id),
                    // What runs goes on to its end: its result is of use when the rest is begun anew.
                    Err(cause @ StepFailure::CacheLayer { .. }) => {
                        schedule.failed();
                        if let Some(vertex) = self.graph.get(id) {
                            lost.get_or_insert_with(|| SolveError::lost(vertex, cause));
                        }
                    }
                    Err(cause) => {
                        schedule.failed();
                        self.note_failure(id, cause, cancel, &mut failure);
                    }
                }
                if self.stop.is_raised() {
                    schedule.stop();
                }
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None if cancel.is_raised() => Err(SolveError::Canceled),
            None => lost.map_or(Ok(()), Err),
        }
    }

    /// The first failure ends the build; what the others say after it is only that they were stopped.
    fn note_failure(
        &self,
        id: VertexId,
        cause: StepFailure,
        cancel: &Cancel,
        failure: &mut Option<SolveError>,
    ) {
        let Some(vertex) = self.graph.get(id) else { return };
        let began = self.results.began(id).unwrap_or_else(Instant::now);
        if cancel.is_raised() || failure.is_some() {
            self.report(id, vertex, StepOutcome::Canceled, began);
            failure.get_or_insert(SolveError::Canceled);
            return;
        }
        *failure = Some(self.step_error(id, vertex, cause, began));
        self.stop.raise();
    }

    fn run_vertex(&self, id: VertexId) -> Result<(), StepFailure> {
        let vertex = self
            .graph
            .get(id)
            .ok_or(StepFailure::Graph("a vertex that does not exist"))?;
        let began = Instant::now();
        self.results.begin(id, began);
        if let Some(first) = self.same_as(id) {
            let snapshot = self
                .results
                .snapshot(first)
                .ok_or(StepFailure::Graph("a shared result that is missing"))?;
            // Its definition may have changed with the local files that it took.
            if let Some(definition) = self.results.definition(first) {
                self.results.define(id, definition);
            }
            self.results.complete(id, snapshot);
            self.report(id, vertex, StepOutcome::Cached, began);
            return Ok(());
        }
        if matches!(vertex.op, Op::Merge) {
            return if self.merge(id, vertex)? {
                Ok(())
            } else {
                Err(StepFailure::Graph("a merge before its inputs"))
            };
        }
        let mut task = self.task(id).ok_or(StepFailure::Graph("a step without a task"))?;
        let (output, outcome) = match &vertex.op {
            Op::Source(Source::Image(image)) => {
                task.start();
                self.engine.images.fetch_layers(image, &task, &self.stop)?;
                (image.snapshot(), StepOutcome::Ran)
            }
            Op::Source(Source::Http(source)) => {
                task.start();
                let fetched = self.with_caller(&task, |caller| self.engine.fetch_http(source, caller))?;
                (fetched, StepOutcome::Ran)
            }
            Op::Source(Source::Git(source)) => {
                task.start();
                let fetched = self.with_caller(&task, |caller| self.engine.fetch_git(source, caller))?;
                (fetched, StepOutcome::Ran)
            }
            Op::Source(_) | Op::Merge => return Err(StepFailure::Graph("not an operation that runs")),
            Op::Exec(_) | Op::File(_) => self.run_step(id, vertex, &mut task)?,
        };
        self.results.complete(id, output);
        self.report(id, vertex, outcome, began);
        Ok(())
    }

    /// Runs a transfer on behalf of the build.
    fn with_caller<T>(
        &self,
        task: &Task,
        transfer: impl FnOnce(Caller<'_>) -> Result<T, RemoteError>,
    ) -> Result<T, StepFailure> {
        let result = transfer(Caller {
            credentials: &*self.request.credentials,
            progress: &|received, total| task.progress("downloading", received, total, false),
            canceled: &|| self.stop.is_raised(),
        });
        match result {
            Err(error) if error.is_canceled() => Err(StepFailure::Canceled),
            result => Ok(result?),
        }
    }

    /// Runs a step; when a local file that it copies or mounts changes meanwhile, the context is read again and the step
    /// begun anew, under the key of what is there now.
    fn run_step(
        &self,
        id: VertexId,
        vertex: &Vertex,
        task: &mut Task,
    ) -> Result<(Snapshot, StepOutcome), StepFailure> {
        let inputs = self.graph.inputs(id);
        let mut local = self
            .planned
            .get(&id)
            .map(|planned| planned.chosen.clone())
            .unwrap_or_default();
        let mut attempt = 1;
        loop {
            let path = match self.attempt(id, vertex, &inputs, &local, task) {
                Err(StepFailure::SourceChanged { path, .. }) => path,
                other => return other,
            };
            if attempt == ATTEMPTS || self.stop.is_raised() {
                return Err(StepFailure::SourceChanged {
                    path,
                    attempts: attempt,
                });
            }
            attempt += 1;
            local = self.choose_local(&vertex.op, &inputs, Some(&local))?;
        }
    }

    fn attempt(
        &self,
        id: VertexId,
        vertex: &Vertex,
        inputs: &[VertexId],
        local: &[Option<Chosen>],
        task: &mut Task,
    ) -> Result<(Snapshot, StepOutcome), StepFailure> {
        let began = Instant::now();
        // Made again, although the plan has one: local files may have changed since, here or before an input.
        let definition = self.definition_of(vertex, inputs, local)?;
        self.results.define(id, Arc::clone(&definition));
        self.ensure_listings(&vertex.op, inputs, task)?;
        let chosen = self.choose_all(&vertex.op, inputs, local)?;
        let content = self.content_key(vertex, inputs, &chosen)?;
        if !vertex.ignore_cache
            && let Some(found) = self.lookup(id, RecordKind::Content, content.0, &content.1)?
        {
            // Of another step's files the definition has none.
            let lists = self.keep_lists(local, inputs);
            let definition = (definition.key, with_lists(definition.parts.clone(), &lists));
            self.results.note(id, |made| made.content_key = Some(content.0));
            // It is as old as it is, under whichever key.
            let times = (found.created_ms, found.duration_ms);
            self.remember(vertex, definition, None, &found.snapshot, times)?;
            return Ok((found.snapshot, StepOutcome::CachedByContent));
        }
        let lists = self.keep_lists(&chosen, inputs);
        let definition = (definition.key, with_lists(definition.parts.clone(), &lists));
        let content = (content.0, with_lists(content.1, &lists));
        self.results.note(id, |made| {
            made.content_key = Some(content.0);
            made.parts = Some(MadeOf {
                definition: definition.1.clone(),
                content: content.1.clone(),
            });
        });
        task.start();
        let output = self.execute(vertex, inputs, &chosen, task)?;
        let created_ms = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let times = (created_ms, began.elapsed().as_millis() as u64);
        self.remember(vertex, definition, Some(content), &output, times)?;
        Ok((output, StepOutcome::Ran))
    }

    /// Writes the records under which a result is found again, with when it was made and how long that took.
    fn remember(
        &self,
        vertex: &Vertex,
        (key, parts): (Key, Vec<KeyPart>),
        content: Option<(Key, Vec<KeyPart>)>,
        output: &Snapshot,
        (created_ms, duration_ms): (u64, u64),
    ) -> Result<(), StepFailure> {
        let content = content.map(|(key, parts)| (RecordKind::Content, key, parts));
        let definition = (RecordKind::Definition, key, parts);
        for (kind, key, parts) in content.into_iter().chain([definition]) {
            self.engine.store.records().put(&Record {
                key,
                kind,
                parts,
                output: output.layers.clone(),
                step: vertex.name.clone(),
                created_ms,
                duration_ms,
            })?;
        }
        Ok(())
    }
}
