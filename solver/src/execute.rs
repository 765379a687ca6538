//! Executing one vertex: a fresh upperdir, the operation on it, and the layer that comes of it.

use std::os::fd::AsFd;
use std::sync::Arc;

use kiln_cache::{Layer, LayerDraft, LayerId, Snapshot};
use kiln_tree::copy::Prehashed;
use kiln_tree::walk;
use kiln_tree::{Listing, Root};

use crate::error::StepFailure;
use crate::file::{self, CopyInput};
use crate::graph::{FileAction, FileOp, Op, Vertex, VertexId};
use crate::select::Selection;
use crate::solve::Solve;
use crate::task::Task;

impl Solve<'_> {
    /// Runs the operation of `vertex` and publishes what it changed as a layer.
    pub(crate) fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        selections: &[Option<Selection>],
        task: &Task,
    ) -> Result<Snapshot, StepFailure> {
        let base = self.input_snapshot(inputs, 0)?;
        let draft = self.engine.store.layers().draft()?;
        self.roots.inherit_root(&base, &draft)?;
        let written = match &vertex.op {
            Op::Exec(exec) => {
                self.run_process(exec, &base, &draft, task)?;
                Prehashed::default()
            }
            Op::File(op) => self.apply_files(op, inputs, selections, &base, &draft)?,
            Op::Source(_) => return Err(StepFailure::Graph("a source has no operation to execute")),
        };
        let layer = self.commit(draft, &written)?;
        self.diff_ids.begin(&layer);
        Ok(base.with(layer.id().clone()))
    }

    fn apply_files(
        &self,
        op: &FileOp,
        inputs: &[VertexId],
        selections: &[Option<Selection>],
        base: &Snapshot,
        draft: &LayerDraft,
    ) -> Result<Prehashed, StepFailure> {
        // The roots and listings live as long as the copies that borrow them.
        let mut opened: Vec<Option<(Root, Arc<Listing>)>> = Vec::with_capacity(op.actions.len());
        for action in &op.actions {
            opened.push(match action {
                FileAction::Copy(copy) if self.context_view(inputs, copy.from).is_none() => {
                    let snapshot = self.input_snapshot(inputs, copy.from)?;
                    Some((self.roots.readable(&snapshot)?, self.roots.listing(&snapshot)?))
                }
                _ => None,
            });
        }
        let mut sources = Vec::with_capacity(op.actions.len());
        for (action, opened) in op.actions.iter().zip(&opened) {
            sources.push(match (action, opened) {
                (_, Some((root, listing))) => Some(CopyInput {
                    root,
                    listing,
                    verify: false,
                }),
                (FileAction::Copy(copy), None) => {
                    self.context_view(inputs, copy.from).map(|view| CopyInput {
                        root: &view.root,
                        listing: &view.listing,
                        verify: true,
                    })
                }
                _ => None,
            });
        }
        let root = self.roots.writable(base, draft)?;
        file::apply(op, &root, &sources, selections)
    }

    /// Turns a filled draft into a layer. The mount over it is gone by now.
    fn commit(&self, draft: LayerDraft, written: &Prehashed) -> Result<Arc<Layer>, StepFailure> {
        let upper = Root::open(&draft.diff_path())?;
        let listing = walk::layer_with(upper.as_fd(), written)?;
        let id = LayerId::from_content(&listing.content_hash());
        Ok(self.engine.store.layers().commit(draft, &id, listing)?)
    }
}
