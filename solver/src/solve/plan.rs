//! The plan: definition keys and what is found under them. Nothing runs here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use kiln_cache::{Key, KeyPart, RecordKind, Snapshot};

use super::reports::is_silent;
use super::results::Definition;
use super::{Planned, Solve, contexts};
use crate::error::{SolveError, StepFailure};
use crate::event::TaskId;
use crate::graph::{Op, Source, Vertex, VertexId};
use crate::key;
use crate::report::{Missed, StepOutcome};

/// The first vertex with each definition key. Those that must run whatever the cache says share only among
/// themselves.
type ByKey = HashMap<(Key, bool), VertexId>;

impl Solve<'_> {
    /// Announces all vertices and looks up their definition keys.
    pub(super) fn plan(&mut self, order: &[VertexId]) -> Result<(), SolveError> {
        self.announce(order);
        self.read_contexts(order)?;
        let mut by_key = ByKey::new();
        for &id in order {
            if self.stop.is_raised() {
                return Err(SolveError::Canceled);
            }
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let began = Instant::now();
            self.plan_vertex(id, vertex, &mut by_key)
                .map_err(|cause| self.step_error(id, vertex, cause, began))?;
        }
        Ok(())
    }

    fn announce(&mut self, order: &[VertexId]) {
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let inputs = self.graph.inputs(id);
            let task = if is_silent(&vertex.op) {
                None
            } else {
                Some(
                    self.reporter
                        .announce(&vertex.name, self.tasks(&inputs), vertex.span),
                )
            };
            let fresh = vertex.ignore_cache || inputs.iter().any(|input| self.is_fresh(*input));
            self.planned.insert(
                id,
                Planned {
                    task,
                    fresh,
                    ..Planned::default()
                },
            );
        }
    }

    /// The tasks of `inputs`; for a vertex without one, those of its inputs.
    fn tasks(&self, inputs: &[VertexId]) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        let mut stack: Vec<VertexId> = inputs.iter().rev().copied().collect();
        while let Some(input) = stack.pop() {
            match self.task(input) {
                Some(task) => tasks.push(task.id()),
                None => stack.extend(self.graph.inputs(input).into_iter().rev()),
            }
        }
        tasks
    }

    pub(super) fn is_fresh(&self, id: VertexId) -> bool {
        self.planned.get(&id).is_some_and(|planned| planned.fresh)
    }

    /// Reads the local directories.
    fn read_contexts(&self, order: &[VertexId]) -> Result<(), SolveError> {
        for &id in order {
            let (Some(name), Some(vertex)) = (contexts::name(self.graph, id), self.graph.get(id)) else {
                continue;
            };
            let began = Instant::now();
            let mut task = self.task(id);
            if let Some(task) = &mut task {
                task.start();
            }
            let (view, _) = self
                .contexts
                .read(name)
                .map_err(|cause| self.step_error(id, vertex, cause, began))?;
            if let Some(task) = &task {
                task.progress("reading context", view.bytes, Some(view.bytes), true);
            }
            self.report(id, vertex, StepOutcome::Ran, began);
        }
        Ok(())
    }

    /// The vertex has to be made anew: what is known under the definition keys of those after it says nothing.
    fn refresh(&mut self, id: VertexId) {
        if let Some(planned) = self.planned.get_mut(&id) {
            planned.fresh = true;
        }
    }

    fn plan_vertex(&mut self, id: VertexId, vertex: &Vertex, by_key: &mut ByKey) -> Result<(), StepFailure> {
        // An input may have turned out to be too old.
        if self.graph.inputs(id).iter().any(|input| self.is_fresh(*input)) {
            self.refresh(id);
        }
        match &vertex.op {
            Op::Source(Source::Scratch) => {
                self.define_source(id, key::scratch(&vertex.platform));
                self.results.complete(id, Snapshot::default());
                Ok(())
            }
            Op::Source(Source::Image(image)) => {
                let began = Instant::now();
                self.define_source(id, key::image(&image.digest, &vertex.platform));
                if self.engine.images.is_unpacked(image)? {
                    self.engine.images.settle(image)?;
                    self.results.complete(id, image.snapshot());
                    self.report(id, vertex, StepOutcome::Cached, began);
                }
                Ok(())
            }
            Op::Source(Source::Local(_)) => Ok(()),
            Op::Source(Source::Http(source)) => {
                let outcome = if source.fresh {
                    StepOutcome::Ran
                } else {
                    StepOutcome::Cached
                };
                self.plan_remote(id, vertex, key::http(source), outcome)
            }
            Op::Source(Source::Git(source)) => {
                self.plan_remote(id, vertex, key::git(source), StepOutcome::Cached)
            }
            Op::Exec(_) | Op::File(_) => self.plan_step(id, vertex, by_key),
            Op::Merge => self.merge(id, vertex).map(drop),
        }
    }

    /// Looks up what was fetched before. The content is what the key says, so there is no reason to fetch it again
    /// for a step that must run whatever the cache says.
    fn plan_remote(
        &self,
        id: VertexId,
        vertex: &Vertex,
        (key, parts): (Key, Vec<KeyPart>),
        outcome: StepOutcome,
    ) -> Result<(), StepFailure> {
        let began = Instant::now();
        let found = self.lookup(id, RecordKind::Definition, key, &parts)?;
        self.results.define(id, Arc::new(Definition { key, parts }));
        if let Some(found) = found {
            self.results.complete(id, found.snapshot);
            self.report(id, vertex, outcome, began);
        }
        Ok(())
    }

    fn define_source(&self, id: VertexId, key: Key) {
        self.results.define(
            id,
            Arc::new(Definition {
                key,
                parts: Vec::new(),
            }),
        );
    }

    fn plan_step(&mut self, id: VertexId, vertex: &Vertex, by_key: &mut ByKey) -> Result<(), StepFailure> {
        let began = Instant::now();
        let inputs = self.graph.inputs(id);
        let chosen = self.choose_local(&vertex.op, &inputs, None)?;
        let definition = self.definition_of(vertex, &inputs, &chosen)?;
        let key = definition.key;
        self.results.define(id, Arc::clone(&definition));
        let fresh = self.is_fresh(id);
        let first = *by_key.entry((key, fresh)).or_insert(id);
        if let Some(planned) = self.planned.get_mut(&id) {
            planned.chosen = chosen;
            planned.same_as = Some(first).filter(|first| *first != id);
        }
        let found = if first != id {
            self.results.snapshot(first)
        } else if fresh {
            None
        } else {
            self.lookup(id, RecordKind::Definition, key, &definition.parts)?
                .map(|found| found.snapshot)
        };
        let missed = self.results.made(first).missed;
        if found.is_none() && matches!(missed, Some(Missed::Expired { .. })) {
            self.refresh(id);
        }
        if let Some(snapshot) = found {
            self.results.complete(id, snapshot);
            self.report(id, vertex, StepOutcome::Cached, began);
        }
        Ok(())
    }

    /// The vertices that have to run so that all `targets` have a result, in order.
    pub(super) fn needed(&self, targets: &[VertexId], order: &[VertexId]) -> Vec<VertexId> {
        let mut needed: HashSet<VertexId> = HashSet::new();
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            let is_local = contexts::name(self.graph, id).is_some();
            if is_local || self.results.is_complete(id) || !needed.insert(id) {
                continue;
            }
            match self.same_as(id) {
                Some(first) => stack.push(first),
                None => stack.extend(self.graph.inputs(id)),
            }
        }
        order.iter().copied().filter(|id| needed.contains(id)).collect()
    }

    /// Vertices whose result nobody needs count as cached: their work was saved.
    pub(super) fn report_skipped(&self, order: &[VertexId], needed: &[VertexId]) {
        let needed: HashSet<VertexId> = needed.iter().copied().collect();
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let is_local = contexts::name(self.graph, id).is_some();
            let is_new = !self.results.is_complete(id) && !self.results.is_reported(id);
            if !is_local && is_new && !needed.contains(&id) {
                self.report(id, vertex, StepOutcome::Skipped, Instant::now());
            }
        }
    }
}
