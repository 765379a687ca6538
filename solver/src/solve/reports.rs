//! What became of each vertex: told to the events as it happens, and put together for the build's record.

use std::collections::HashMap;
use std::time::Instant;

use super::Solve;
use crate::error::{SolveError, StepError, StepFailure, chain};
use crate::graph::{Op, Source, Vertex, VertexId};
use crate::report::{SourceFacts, StepKind, StepOutcome, StepReport};
use crate::task::Task;

impl Solve<'_> {
    /// Tells the events and the report what became of a vertex.
    pub(super) fn report(&self, id: VertexId, vertex: &Vertex, outcome: StepOutcome, began: Instant) {
        if let Some(task) = self.task(id) {
            match outcome {
                StepOutcome::Ran => task.done(),
                StepOutcome::Cached | StepOutcome::CachedByContent | StepOutcome::Skipped => task.cached(),
                StepOutcome::Canceled => task.canceled(),
                // Told with its cause.
                StepOutcome::Failed => {}
            }
        }
        if is_silent(&vertex.op) {
            return;
        }
        let milliseconds = began.elapsed().as_millis() as u64;
        let now_ms = self.reporter.elapsed().as_millis() as u64;
        let (kind, source) = facts(&vertex.op);
        let log = match (&vertex.op, outcome) {
            (Op::Exec(_), StepOutcome::Ran | StepOutcome::Failed | StepOutcome::Canceled) => {
                self.task(id).map(|task| log_name(&task))
            }
            _ => None,
        };
        let made = self.results.made(id);
        self.results.report(
            id,
            StepReport {
                name: vertex.name.clone(),
                kind,
                outcome,
                key: self.results.definition(id).map(|definition| definition.key),
                content_key: made.content_key,
                began_ms: now_ms.saturating_sub(milliseconds),
                milliseconds,
                // Known when all steps are.
                inputs: Vec::new(),
                in_base: 0,
                source,
                saved_ms: made.saved_ms.filter(|_| outcome.is_cached()),
                bytes: self.bytes(id, kind),
                log,
                ignored_cache: vertex.ignore_cache,
                missed: made.missed.filter(|_| outcome.worked()),
                verified: None,
                line: None,
                why: None,
                span: vertex.span,
                made_of: made.parts.filter(|_| outcome.worked()),
            },
        );
    }

    /// The bytes in the layer that a step made, or in all of those that a source brought.
    fn bytes(&self, id: VertexId, kind: StepKind) -> Option<u64> {
        let layers = self.results.snapshot(id)?.layers;
        let from = match kind {
            StepKind::Source => 0,
            StepKind::Run | StepKind::Files => layers.len().checked_sub(1)?,
        };
        let size = |layer| {
            // What was looked up a moment ago is there; if not, its size is not known.
            let layer = self.engine.store.layers().get(layer).ok()??;
            Some(layer.size())
        };
        layers.get(from..)?.iter().map(size).sum()
    }

    /// The reports in order, each with its inputs among them.
    pub(super) fn reports(&self, order: &[VertexId]) -> Vec<StepReport> {
        let (ids, mut reports): (Vec<VertexId>, Vec<StepReport>) =
            self.results.reports(order).into_iter().unzip();
        let position: HashMap<VertexId, usize> = ids
            .iter()
            .enumerate()
            .map(|(position, id)| (*id, position))
            .collect();
        // A silent vertex stands for what it is made of.
        let mut expanded: HashMap<VertexId, Vec<usize>> = HashMap::new();
        for &id in order {
            let inputs = self.graph.inputs(id);
            let of = |input: &VertexId| expanded.get(input).cloned().unwrap_or_default();
            let by_slot: Vec<Vec<usize>> = inputs.iter().map(of).collect();
            let in_base = by_slot.first().map_or(0, Vec::len);
            let mut all: Vec<usize> = Vec::new();
            for input in by_slot.into_iter().flatten() {
                if !all.contains(&input) {
                    all.push(input);
                }
            }
            match position.get(&id) {
                Some(&at) => {
                    if let Some(report) = reports.get_mut(at) {
                        report.in_base = in_base.min(all.len());
                        report.inputs = all;
                    }
                    expanded.insert(id, vec![at]);
                }
                None => {
                    expanded.insert(id, all);
                }
            }
        }
        reports
    }

    /// Reports the failure of a vertex and makes it the solve's.
    pub(super) fn step_error(
        &self,
        id: VertexId,
        vertex: &Vertex,
        cause: StepFailure,
        began: Instant,
    ) -> SolveError {
        if let Some(task) = self.task(id) {
            task.failed(chain(&cause));
        }
        self.report(id, vertex, StepOutcome::Failed, began);
        SolveError::Step(Box::new(StepError {
            name: vertex.name.clone(),
            span: vertex.span,
            cause,
        }))
    }
}

/// The kind of an operation, and what a source turned out to be.
fn facts(op: &Op) -> (StepKind, Option<SourceFacts>) {
    let facts = |what: &str, digest: String| {
        Some(SourceFacts {
            what: what.to_owned(),
            digest,
            downloaded: matches!(op, Op::Source(Source::Http(file)) if file.fresh),
        })
    };
    match op {
        Op::Exec(_) => (StepKind::Run, None),
        Op::File(_) => (StepKind::Files, None),
        Op::Merge | Op::Source(Source::Scratch | Source::Local(_)) => (StepKind::Source, None),
        Op::Source(Source::Image(image)) => (
            StepKind::Source,
            facts(&image.reference, image.digest.to_string()),
        ),
        Op::Source(Source::Http(file)) => (StepKind::Source, facts(&file.url, file.digest.to_string())),
        Op::Source(Source::Git(git)) => (StepKind::Source, facts(&git.remote, git.commit.clone())),
    }
}

/// What the log of a task's process is called.
pub(crate) fn log_name(task: &Task) -> String {
    format!("{:04}", task.id().0)
}

/// Whether nobody is told of the operation: there is nothing to wait for.
pub(super) fn is_silent(op: &Op) -> bool {
    matches!(op, Op::Source(Source::Scratch) | Op::Merge)
}
