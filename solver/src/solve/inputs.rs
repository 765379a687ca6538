//! How a vertex's inputs count in its keys, and what its copies select from them.

use std::sync::Arc;

use kiln_cache::{Key, KeyPart, RecordKind, Snapshot};
use kiln_tree::ResolveError;

use super::results::Definition;
use super::{Solve, contexts};
use crate::context::{self, ContextView};
use crate::error::StepFailure;
use crate::graph::{Copy, CopySource, FileAction, FileOp, Op, Vertex, VertexId};
use crate::key::{self, CopyIdentity, RootIdentity};
use crate::select::{self, SelectError, Selection};

/// What a copy selects, and of what.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) selection: Selection,
    /// The local directory as it was when the selection was made; `None` for another vertex's root, which
    /// never changes.
    pub(crate) view: Option<Arc<ContextView>>,
}

impl Solve<'_> {
    /// What the copies of `op` select from local directories, by the action's position. With `stale`, an earlier
    /// answer to the same question, the directories are read again.
    pub(super) fn choose_local(
        &self,
        op: &FileOp,
        inputs: &[VertexId],
        stale: Option<&[Option<Chosen>]>,
    ) -> Result<Vec<Option<Chosen>>, StepFailure> {
        let mut chosen = Vec::with_capacity(op.actions.len());
        for (position, action) in op.actions.iter().enumerate() {
            let FileAction::Copy(copy) = action else {
                chosen.push(None);
                continue;
            };
            let Some(name) = inputs
                .get(copy.from)
                .and_then(|input| contexts::name(self.graph, *input))
            else {
                chosen.push(None);
                continue;
            };
            let old = stale.and_then(|stale| stale.get(position)?.as_ref()?.view.as_ref());
            let view = match old {
                Some(old) => self.contexts.read_again(name, old)?,
                None => self.contexts.read(name)?.0,
            };
            let selection = select::select(&view.listing, &copy.sources)
                .map_err(|(source, error)| self.missing(error, source, Some((name, &view))))?;
            chosen.push(Some(Chosen {
                selection,
                view: Some(view),
            }));
        }
        Ok(chosen)
    }

    /// Completes `local` by what is selected from other vertices, whose results are there by now.
    pub(super) fn choose_all(
        &self,
        op: &FileOp,
        inputs: &[VertexId],
        local: &[Option<Chosen>],
    ) -> Result<Vec<Option<Chosen>>, StepFailure> {
        let mut chosen = Vec::with_capacity(op.actions.len());
        for (position, action) in op.actions.iter().enumerate() {
            let known = local.get(position).cloned().flatten();
            chosen.push(match (known, action) {
                (Some(known), _) => Some(known),
                (None, FileAction::Copy(copy)) => Some(self.choose(copy, inputs)?),
                (None, _) => None,
            });
        }
        Ok(chosen)
    }

    fn choose(&self, copy: &Copy, inputs: &[VertexId]) -> Result<Chosen, StepFailure> {
        let listing = self.roots.listing(&self.input_snapshot(inputs, copy.from)?)?;
        let selection = select::select(&listing, &copy.sources)
            .map_err(|(source, error)| self.missing(error, source, None))?;
        Ok(Chosen {
            selection,
            view: None,
        })
    }

    /// Turns a failed selection into the facts that help: whether an ignore rule hides it, what is near.
    fn missing(
        &self,
        error: SelectError,
        source: &CopySource,
        context: Option<(&str, &Arc<ContextView>)>,
    ) -> StepFailure {
        let SelectError::Resolve {
            path,
            error: ResolveError::NotFound { path: missing },
        } = error
        else {
            return StepFailure::Source {
                message: error.to_string(),
                span: source.span,
            };
        };
        let local = context.and_then(|(name, view)| Some((self.contexts.local(name)?, view)));
        let place = local.map_or("the source stage or image", |(local, _)| &local.title);
        StepFailure::SourceNotFound {
            ignored_by: local.and_then(|(local, view)| context::why_hidden(local, &view.root, &missing)),
            similar: local.map_or_else(Vec::new, |(local, view)| {
                context::similar_names(local, &view.root, &missing)
            }),
            place: place.to_owned(),
            path,
            span: source.span,
        }
    }

    /// The definition key, from the definitions of the inputs and what is selected from local directories.
    pub(super) fn definition_of(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        local: &[Option<Chosen>],
    ) -> Result<Arc<Definition>, StepFailure> {
        let key_of = |slot: usize| {
            let definition = inputs.get(slot).and_then(|input| self.results.definition(*input));
            definition
                .map(|definition| definition.key)
                .ok_or(StepFailure::Graph("an input without a key"))
        };
        let base = RootIdentity::Definition(key_of(0)?);
        let copies = copy_identities(vertex, |position, copy| {
            Ok(match local.get(position).and_then(Option::as_ref) {
                Some(chosen) => CopyIdentity::Files(chosen.selection.hash),
                None => CopyIdentity::Definition(key_of(copy.from)?),
            })
        })?;
        let (key, parts) = self.key(RecordKind::Definition, vertex, base, &copies)?;
        Ok(Arc::new(Definition { key, parts }))
    }

    /// The key by what the inputs turned out to be.
    pub(super) fn content_key(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        chosen: &[Option<Chosen>],
    ) -> Result<(Key, Vec<KeyPart>), StepFailure> {
        let base = RootIdentity::Content(self.input_snapshot(inputs, 0)?.content_key());
        let copies = copy_identities(vertex, |position, _| {
            let chosen = chosen.get(position).and_then(Option::as_ref);
            let chosen = chosen.ok_or(StepFailure::Graph("a copy without a selection"))?;
            Ok(CopyIdentity::Files(chosen.selection.hash))
        })?;
        self.key(RecordKind::Content, vertex, base, &copies)
    }

    fn key(
        &self,
        kind: RecordKind,
        vertex: &Vertex,
        base: RootIdentity,
        copies: &[Option<CopyIdentity>],
    ) -> Result<(Key, Vec<KeyPart>), StepFailure> {
        match &vertex.op {
            Op::Exec(exec) => Ok(key::exec(
                kind,
                exec,
                self.network(exec.network),
                &vertex.platform,
                base,
            )),
            Op::File(op) => Ok(key::file(kind, op, &vertex.platform, base, copies)),
            Op::Source(_) => Err(StepFailure::Graph("a source has no key by its inputs")),
        }
    }

    pub(crate) fn input_snapshot(&self, inputs: &[VertexId], slot: usize) -> Result<Snapshot, StepFailure> {
        inputs
            .get(slot)
            .and_then(|input| self.results.snapshot(*input))
            .ok_or(StepFailure::Graph("an input without a root file system"))
    }
}

/// How the copies of a vertex count, by the action's position.
fn copy_identities(
    vertex: &Vertex,
    identity: impl Fn(usize, &Copy) -> Result<CopyIdentity, StepFailure>,
) -> Result<Vec<Option<CopyIdentity>>, StepFailure> {
    let Op::File(op) = &vertex.op else {
        return Ok(Vec::new());
    };
    let actions = op.actions.iter().enumerate();
    actions
        .map(|(position, action)| match action {
            FileAction::Copy(copy) => identity(position, copy).map(Some),
            FileAction::MakeDirectory(_) | FileAction::MakeFile(_) => Ok(None),
        })
        .collect()
}
