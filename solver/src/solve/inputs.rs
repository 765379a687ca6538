//! How a vertex's inputs count in its keys, and what its copies and mounts select from them.

use std::sync::Arc;

use kiln_cache::{Key, KeyPart, RecordKind, Snapshot};
use kiln_tree::ResolveError;

use super::results::Definition;
use super::{Solve, contexts};
use crate::context::{self, ContextView};
use crate::error::StepFailure;
use crate::graph::{Op, SourceSpan, Vertex, VertexId};
use crate::key::{self, RootIdentity, TakenIdentity};
use crate::select::{SelectError, Selection};
use crate::take::{self, Take};

/// What a copy or a mount selects, and of what.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) selection: Selection,
    /// The local directory as it was when the selection was made; `None` for another vertex's root, which
    /// never changes.
    pub(crate) view: Option<Arc<ContextView>>,
    /// The input slot.
    pub(crate) slot: usize,
}

impl Solve<'_> {
    /// What the copies and mounts of `op` select from local directories, by their position. With `stale`, an earlier
    /// answer to the same question, the directories are read again.
    pub(super) fn choose_local(
        &self,
        op: &Op,
        inputs: &[VertexId],
        stale: Option<&[Option<Chosen>]>,
    ) -> Result<Vec<Option<Chosen>>, StepFailure> {
        let mut chosen = Vec::new();
        for (position, take) in take::takes(op).into_iter().enumerate() {
            let local = take.and_then(|take| {
                let input = inputs.get(take.slot())?;
                Some((take, contexts::name(self.graph, *input)?))
            });
            let Some((take, name)) = local else {
                chosen.push(None);
                continue;
            };
            let old = stale.and_then(|stale| stale.get(position)?.as_ref()?.view.as_ref());
            let view = match old {
                Some(old) => self.contexts.read_again(name, old)?,
                None => self.contexts.read(name)?.0,
            };
            let selection = take
                .select(&view.listing)
                .map_err(|(span, error)| self.missing(error, span, Some((name, &view))))?;
            chosen.push(Some(Chosen {
                selection,
                view: Some(view),
                slot: take.slot(),
            }));
        }
        Ok(chosen)
    }

    /// Completes `local` by what is selected from other vertices, whose results are there by now.
    pub(super) fn choose_all(
        &self,
        op: &Op,
        inputs: &[VertexId],
        local: &[Option<Chosen>],
    ) -> Result<Vec<Option<Chosen>>, StepFailure> {
        let mut chosen = Vec::new();
        for (position, take) in take::takes(op).into_iter().enumerate() {
            let known = local.get(position).cloned().flatten();
            chosen.push(match (known, take) {
                (Some(known), _) => Some(known),
                (None, Some(take)) => Some(self.choose(take, inputs)?),
                (None, None) => None,
            });
        }
        Ok(chosen)
    }

    fn choose(&self, take: Take<'_>, inputs: &[VertexId]) -> Result<Chosen, StepFailure> {
        let listing = self.roots.listing(&self.input_snapshot(inputs, take.slot())?)?;
        let selection = take
            .select(&listing)
            .map_err(|(span, error)| self.missing(error, span, None))?;
        Ok(Chosen {
            selection,
            view: None,
            slot: take.slot(),
        })
    }

    /// Turns a failed selection into the facts that help: whether an ignore rule hides it, what is near.
    fn missing(
        &self,
        error: SelectError,
        span: Option<SourceSpan>,
        context: Option<(&str, &Arc<ContextView>)>,
    ) -> StepFailure {
        let SelectError::Resolve {
            path,
            error: ResolveError::NotFound { path: missing },
        } = error
        else {
            return StepFailure::Source {
                message: error.to_string(),
                span,
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
            span,
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
        let taken = identities(vertex, |position, take| {
            Ok(match local.get(position).and_then(Option::as_ref) {
                Some(chosen) => TakenIdentity::Files(chosen.selection.hash),
                None => TakenIdentity::Definition(key_of(take.slot())?),
            })
        })?;
        let (key, parts) = self.key(RecordKind::Definition, vertex, base, &taken)?;
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
        let taken = identities(vertex, |position, _| {
            let chosen = chosen.get(position).and_then(Option::as_ref);
            let chosen = chosen.ok_or(StepFailure::Graph("a source without a selection"))?;
            Ok(TakenIdentity::Files(chosen.selection.hash))
        })?;
        self.key(RecordKind::Content, vertex, base, &taken)
    }

    fn key(
        &self,
        kind: RecordKind,
        vertex: &Vertex,
        base: RootIdentity,
        taken: &[Option<TakenIdentity>],
    ) -> Result<(Key, Vec<KeyPart>), StepFailure> {
        match &vertex.op {
            Op::Exec(exec) => Ok(key::exec(
                kind,
                exec,
                self.network(exec.network),
                &vertex.platform,
                base,
                taken,
            )),
            Op::File(op) => Ok(key::file(kind, op, &vertex.platform, base, taken)),
            Op::Source(_) | Op::Merge => Err(StepFailure::Graph("not a step that has such a key")),
        }
    }

    pub(crate) fn input_snapshot(&self, inputs: &[VertexId], slot: usize) -> Result<Snapshot, StepFailure> {
        inputs
            .get(slot)
            .and_then(|input| self.results.snapshot(*input))
            .ok_or(StepFailure::Graph("an input without a root file system"))
    }
}

/// How what a vertex takes from its inputs counts, by position.
fn identities(
    vertex: &Vertex,
    identity: impl Fn(usize, Take<'_>) -> Result<TakenIdentity, StepFailure>,
) -> Result<Vec<Option<TakenIdentity>>, StepFailure> {
    let takes = take::takes(&vertex.op).into_iter().enumerate();
    takes
        .map(|(position, take)| take.map(|take| identity(position, take)).transpose())
        .collect()
}
