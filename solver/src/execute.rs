//! Executing one vertex: a fresh upperdir, the operation on it, and the layer that comes of it.

use std::os::fd::AsFd;
use std::sync::Arc;

use kiln_cache::{Layer, LayerDraft, LayerId, Snapshot, Store};
use kiln_tree::Root;
use kiln_tree::copy::Prehashed;
use kiln_tree::walk;

use crate::direct;
use crate::error::StepFailure;
use crate::file::{self, CopyInput, CopyTree};
use crate::graph::{FileAction, FileOp, Op, Vertex, VertexId};
use crate::solve::{Chosen, Solve};
use crate::task::Task;

impl Solve<'_> {
    /// Runs the operation of `vertex` and publishes what it changed as a layer.
    pub(crate) fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        chosen: &[Option<Chosen>],
        task: &Task,
    ) -> Result<Snapshot, StepFailure> {
        let base = self.input_snapshot(inputs, 0)?;
        self.ensure_inputs(inputs, task)?;
        let (draft, written) = self.perform(vertex, inputs, chosen, &base, task)?;
        let layer = commit(&self.engine.store, draft, &written)?;
        self.diff_ids.begin(&layer);
        Ok(base.with(layer.id().clone()))
    }

    /// Runs the operation of `vertex` on `base`. What it changed is in the draft, and nobody knows of it yet. All
    /// layers that it takes are in the store.
    pub(crate) fn perform(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        chosen: &[Option<Chosen>],
        base: &Snapshot,
        task: &Task,
    ) -> Result<(LayerDraft, Prehashed), StepFailure> {
        let draft = self.engine.store.layers().draft()?;
        self.roots.inherit_root(base, &draft)?;
        let written = match &vertex.op {
            Op::Exec(exec) => {
                let mounts = self.prepare_mounts(exec, base, inputs, chosen, task)?;
                self.run_process(exec, &vertex.platform, base, &draft, &mounts, task)?;
                Prehashed::default()
            }
            Op::File(op) => self.apply_files(op, inputs, chosen, base, &draft, task)?,
            Op::Source(_) | Op::Merge => return Err(StepFailure::Graph("nothing that is executed")),
        };
        Ok((draft, written))
    }

    fn apply_files(
        &self,
        op: &FileOp,
        inputs: &[VertexId],
        chosen: &[Option<Chosen>],
        base: &Snapshot,
        draft: &LayerDraft,
        task: &Task,
    ) -> Result<Prehashed, StepFailure> {
        let mut opened: Vec<Option<CopyInput>> = Vec::with_capacity(op.actions.len());
        for (position, action) in op.actions.iter().enumerate() {
            let chosen = chosen.get(position).and_then(Option::as_ref);
            opened.push(match (action, chosen) {
                (FileAction::Copy(copy), Some(chosen)) => Some(self.open_input(copy.from, chosen, inputs)?),
                _ => None,
            });
        }
        let root = match self.open_directly(op, &opened, base, draft)? {
            Some(upper) => upper,
            None => self.roots.writable(base, draft)?,
        };
        let applied = file::apply(op, &root, &opened, &self.stop)?;
        for warning in file::warnings(applied.refused) {
            task.warn(warning, None);
        }
        Ok(applied.written)
    }

    /// The upperdir itself, where an overlay over `base` would add nothing but cost.
    fn open_directly(
        &self,
        op: &FileOp,
        inputs: &[Option<CopyInput>],
        base: &Snapshot,
        draft: &LayerDraft,
    ) -> Result<Option<Root>, StepFailure> {
        let Some(destination) = direct::candidate(op, inputs) else {
            return Ok(None);
        };
        match direct::clear_way(&*self.roots.listing(base)?, &destination) {
            Some(way) => Ok(Some(direct::open(&self.roots.readable(base)?, &way, draft)?)),
            None => Ok(None),
        }
    }

    fn open_input(
        &self,
        slot: usize,
        chosen: &Chosen,
        inputs: &[VertexId],
    ) -> Result<CopyInput, StepFailure> {
        let tree = if let Some(view) = &chosen.view {
            CopyTree::Context(Arc::clone(view))
        } else {
            let snapshot = self.input_snapshot(inputs, slot)?;
            CopyTree::Snapshot(self.roots.readable(&snapshot)?, self.roots.listing(&snapshot)?)
        };
        Ok(CopyInput {
            tree,
            places: chosen.selection.places.clone(),
        })
    }
}

/// Turns a filled draft into a layer. A mount over it is gone by now.
pub(crate) fn commit(
    store: &Store,
    draft: LayerDraft,
    written: &Prehashed,
) -> Result<Arc<Layer>, CommitError> {
    let upper = Root::open(&draft.diff_path())?;
    let listing = walk::layer_with(upper.as_fd(), written)?;
    let id = LayerId::from_content(&listing.content_hash());
    Ok(store.layers().commit(draft, &id, listing)?)
}

/// Why a draft could not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Its files cannot be read.
    #[error("failed to read the files of a new layer")]
    Files(#[from] kiln_tree::Error),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
}

impl From<CommitError> for StepFailure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Files(error) => Self::Files(error),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
