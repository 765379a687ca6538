//! Merges: layers of one snapshot on top of another's, as soon as both are known.

use std::sync::Arc;
use std::time::Instant;

use kiln_cache::{Key, Snapshot};

use super::Solve;
use super::results::Definition;
use crate::error::{SolveError, StepFailure};
use crate::graph::{Op, Source, Vertex, VertexId};
use crate::key;
use crate::report::StepOutcome;

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

    /// Completes those of `targets` that are images, and images below layers of their own, as far as the images' layers
    /// can be had: nobody needs their files. A step that has to run on one fetches them first, as those of any input.
    pub(super) fn complete_lazily(&self, targets: &[VertexId]) -> Result<(), SolveError> {
        for &id in targets {
            let Some(vertex) = self.graph.get(id).filter(|_| !self.results.is_complete(id)) else {
                continue;
            };
            let began = Instant::now();
            match &vertex.op {
                Op::Source(Source::Image(image)) if image.layers.iter().all(|layer| layer.blob.is_some()) => {
                    self.results.complete(id, image.snapshot());
                    self.report(id, vertex, StepOutcome::Cached, began);
                }
                Op::Merge => {
                    self.complete_lazily(&self.graph.inputs(id))?;
                    self.merge(id, vertex)
                        .map_err(|cause| self.step_error(id, vertex, cause, began))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
