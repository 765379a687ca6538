//! What is known of each vertex so far. Steps on several threads write it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kiln_cache::{Key, KeyPart, Snapshot};

use crate::graph::VertexId;
use crate::report::{MadeOf, Missed, StepOutcome, StepReport};
use crate::verify::Verification;

/// A definition key and what it is made of.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) key: Key,
    pub(super) parts: Vec<KeyPart>,
}

/// What is known of all vertices.
#[derive(Debug, Default)]
pub(super) struct Results {
    by_vertex: Mutex<HashMap<VertexId, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    definition: Option<Arc<Definition>>,
    snapshot: Option<Snapshot>,
    report: Option<StepReport>,
    began: Option<Instant>,
    made: Made,
}

/// What became known of a vertex's keys on the way.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    pub(super) content_key: Option<Key>,
    pub(super) parts: Option<MadeOf>,
    /// What the step of the record that was found took.
    pub(super) saved_ms: Option<u64>,
    /// Why a record did not help.
    pub(super) missed: Option<Missed>,
}

impl Results {
    fn lock(&self) -> MutexGuard<'_, HashMap<VertexId, Known>> {
        self.by_vertex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the definition of a vertex. That of a step whose context changed under way is set again.
    pub(super) fn define(&self, id: VertexId, definition: Arc<Definition>) {
        self.lock().entry(id).or_default().definition = Some(definition);
    }

    pub(super) fn definition(&self, id: VertexId) -> Option<Arc<Definition>> {
        self.lock().get(&id).and_then(|known| known.definition.clone())
    }

    /// Work on the vertex begins.
    pub(super) fn begin(&self, id: VertexId, now: Instant) {
        self.lock().entry(id).or_default().began = Some(now);
    }

    pub(super) fn began(&self, id: VertexId) -> Option<Instant> {
        self.lock().get(&id).and_then(|known| known.began)
    }

    /// The vertex is complete: this is its root file system.
    pub(super) fn complete(&self, id: VertexId, snapshot: Snapshot) {
        self.lock().entry(id).or_default().snapshot = Some(snapshot);
    }

    pub(super) fn snapshot(&self, id: VertexId) -> Option<Snapshot> {
        self.lock().get(&id).and_then(|known| known.snapshot.clone())
    }

    /// The vertex is not complete after all.
    pub(super) fn forget(&self, id: VertexId) {
        if let Some(known) = self.lock().get_mut(&id) {
            known.snapshot = None;
        }
    }

    pub(super) fn is_reported(&self, id: VertexId) -> bool {
        self.lock().get(&id).is_some_and(|known| known.report.is_some())
    }

    pub(super) fn is_complete(&self, id: VertexId) -> bool {
        self.lock().get(&id).is_some_and(|known| known.snapshot.is_some())
    }

    /// Notes something about a vertex's keys.
    pub(super) fn note(&self, id: VertexId, note: impl FnOnce(&mut Made)) {
        note(&mut self.lock().entry(id).or_default().made);
    }

    pub(super) fn made(&self, id: VertexId) -> Made {
        self.lock()
            .get(&id)
            .map(|known| known.made.clone())
            .unwrap_or_default()
    }

    pub(super) fn report(&self, id: VertexId, report: StepReport) {
        self.lock().entry(id).or_default().report = Some(report);
    }

    /// Adds to a report what came of running the step once more.
    pub(super) fn verified(&self, id: VertexId, verification: Verification) {
        if let Some(report) = self.lock().get_mut(&id).and_then(|known| known.report.as_mut()) {
            report.verified = Some(verification);
        }
    }

    /// How a vertex came to its result, as far as that was reported.
    pub(super) fn outcome(&self, id: VertexId) -> Option<StepOutcome> {
        let known = self.lock();
        let report = known.get(&id)?.report.as_ref()?;
        Some(report.outcome)
    }

    /// The reports, in the order of `order`.
    pub(super) fn reports(&self, order: &[VertexId]) -> Vec<(VertexId, StepReport)> {
        let mut known = self.lock();
        order
            .iter()
            .filter_map(|id| Some((*id, known.get_mut(id)?.report.take()?)))
            .collect()
    }
}
