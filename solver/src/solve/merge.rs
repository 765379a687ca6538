//! Merges: layers of one snapshot on top of another's, as soon as both are known.

use std::sync::Arc;

use kiln_cache::{Key, Snapshot};

use super::Solve;
use super::results::Definition;
use crate::error::StepFailure;
use crate::graph::{Vertex, VertexId};
use crate::key;

impl Solve<'_> {
    /// Defines the merge `id` and completes it when all its inputs are complete; says whether they are.
    pub(super) fn merge(&self, id: VertexId, vertex: &Vertex) -> Result<bool, StepFailure> {
        let inputs = self.graph.inputs(id);
        let keys: Option<Vec<Key>> = inputs
            .iter()
            .map(|input| self.results.definition(*input).map(|definition| definition.key))
            .collect();
        let keys = keys.ok_or(StepFailure::Graph("a merge of something without a key"))?;
        let (key, parts) = key::merge(&vertex.platform, &keys);
        self.results.define(id, Arc::new(Definition { key, parts }));
        let snapshots: Option<Vec<Snapshot>> =
            inputs.iter().map(|input| self.results.snapshot(*input)).collect();
        let Some(snapshots) = snapshots else {
            return Ok(false);
        };
        let layers = snapshots
            .into_iter()
            .flat_map(|snapshot| snapshot.layers)
            .collect();
        self.results.complete(id, Snapshot { layers });
        Ok(true)
    }
}
