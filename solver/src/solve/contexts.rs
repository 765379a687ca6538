//! The local directories of one solve: each is read once, where some step of the build looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_tree::TreePath;

use super::SolveRequest;
use crate::context::{ContextView, LocalContext};
use crate::engine::Engine;
use crate::error::StepFailure;
use crate::graph::{Graph, Op, Source, Vertex, VertexId};
use crate::take;

/// The local directories of one solve.
#[derive(Debug)]
pub(super) struct Contexts<'a> {
    engine: &'a Engine,
    request: &'a SolveRequest,
    /// By the context's name, every source of a copy or a mount that some vertex of the build takes from it.
    patterns: BTreeMap<&'a str, Vec<TreePath>>,
    views: Mutex<BTreeMap<String, Arc<ContextView>>>,
}

impl<'a> Contexts<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        request: &'a SolveRequest,
        graph: &'a Graph,
        order: &[VertexId],
    ) -> Self {
        let mut patterns: BTreeMap<&str, Vec<TreePath>> = BTreeMap::new();
        for &id in order {
            let Some(Vertex { op, .. }) = graph.get(id) else {
                continue;
            };
            let inputs = graph.inputs(id);
            for take in take::takes(op).into_iter().flatten() {
                if let Some(name) = inputs.get(take.slot()).and_then(|input| name(graph, *input)) {
                    patterns.entry(name).or_default().extend(take.patterns());
                }
            }
        }
        Self {
            engine,
            request,
            patterns,
            views: Mutex::default(),
        }
    }

    /// The directory that the request gives the name.
    pub(super) fn local(&self, name: &str) -> Option<&'a LocalContext> {
        self.request.contexts.get(name)
    }

    /// The context as it was read last; reads it the first time. Says whether it was read now.
    pub(super) fn read(&self, name: &str) -> Result<(Arc<ContextView>, bool), StepFailure> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(name) {
            return Ok((Arc::clone(view), false));
        }
        let view = Arc::new(self.read_now(name)?);
        views.insert(name.to_owned(), Arc::clone(&view));
        Ok((view, true))
    }

    /// Reads the context again because `stale` turned out to be so; steps that notice it together read it once.
    pub(super) fn read_again(
        &self,
        name: &str,
        stale: &Arc<ContextView>,
    ) -> Result<Arc<ContextView>, StepFailure> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        match views.get(name) {
            Some(view) if !Arc::ptr_eq(view, stale) => Ok(Arc::clone(view)),
            _ => {
                let view = Arc::new(self.read_now(name)?);
                views.insert(name.to_owned(), Arc::clone(&view));
                Ok(view)
            }
        }
    }

    fn read_now(&self, name: &str) -> Result<ContextView, StepFailure> {
        let context = self
            .local(name)
            .ok_or(StepFailure::Graph("a local directory that nobody named"))?;
        let patterns = self.patterns.get(name).map(Vec::as_slice).unwrap_or_default();
        let root = context.open()?;
        // Opened before the walk: what changes after this moment is not remembered.
        let memory = self.engine.store.hashes().open(&context.directory)?;
        let view = ContextView::read(context, root, patterns, &memory)?;
        // Losing the memory costs time in the next build, nothing else.
        if let Err(error) = memory.save() {
            self.engine.note(format!(
                "failed to save the file hashes of the build context: {error}"
            ));
        }
        Ok(view)
    }
}

/// The name of the local directory that `id` stands for.
pub(super) fn name(graph: &Graph, id: VertexId) -> Option<&str> {
    match &graph.get(id)?.op {
        Op::Source(Source::Local(source)) => Some(&source.name),
        _ => None,
    }
}
