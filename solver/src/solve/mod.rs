//! Solving a graph: which vertices have results in the cache, which have to run, and running those.
//!
//! A [`SolveRequest`] asks for it and a [`Solution`] is what comes of it. Two passes. The [*plan*](plan) goes over the
//! vertices in order, on one thread and without running anything: it makes definition keys and looks them up. When the
//! target hits, that is the whole build. Otherwise the [*run*](run) starts a thread for each vertex that the target
//! needs and the plan did not find, as soon as its inputs are there. After it, [`mod@verify`] runs some cached steps once
//! more if the request says so. [`mod@merge`] puts snapshots on each other in both. [`inputs`] says how inputs count in
//! keys, [`contexts`] holds the local directories, [`results`] what is known of each vertex so far, and [`reports`] tells
//! what became of each.

mod cache;
mod contexts;
mod inputs;
mod merge;
mod plan;
mod reports;
mod request;
mod results;
mod run;
mod solution;
mod taken;
mod verify;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use kiln_cache::{LayerId, Snapshot};
use kiln_image::{Descriptor, Reference};

use crate::cancel::Cancel;
use crate::diff_ids::DiffIds;
use crate::engine::Engine;
use crate::error::{SolveError, chain};
use crate::graph::{Graph, NetworkMode, Op, Source, VertexId};
use crate::lazy::Needs;
use crate::push::stream::LARGE;
use crate::remote_cache::SolvedCache;
use crate::remote_cache::import::Imports;
use crate::roots::Roots;
use crate::task::{Reporter, Task};

use contexts::Contexts;
pub(crate) use inputs::Chosen;
pub(crate) use reports::log_name;
pub use request::{Hook, SolveRequest};
use results::Results;
pub use solution::{Solution, Solved, SolvedAll};

/// What the plan found out about one vertex and the run does not change.
#[derive(Debug, Default)]
struct Planned {
    task: Option<Task>,
    /// A vertex before it, or it itself, has to run whatever the cache says, or because its result is too old.
    fresh: bool,
    /// Another vertex with the same definition key whose result it shares.
    same_as: Option<VertexId>,
    /// What its copies and mounts select from local directories, by their position.
    chosen: Vec<Option<Chosen>>,
}

/// One solve under way.
pub(crate) struct Solve<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) request: &'a SolveRequest,
    /// Raised when the caller cancels, and when a step fails.
    pub(crate) stop: Cancel,
    pub(crate) roots: Roots<'a>,
    imports: Arc<Imports<'a>>,
    pub(crate) diff_ids: DiffIds,
    graph: &'a Graph,
    reporter: &'a Reporter,
    contexts: Contexts<'a>,
    /// Milliseconds since 1970 when the solve began: results age against it.
    now_ms: u64,
    planned: HashMap<VertexId, Planned>,
    results: Results,
}

impl Engine {
    /// Solves `target`. Events go to `reporter`; raising `cancel` ends the solve after its processes are gone.
    pub fn solve(
        &self,
        graph: &Graph,
        target: VertexId,
        request: &SolveRequest,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Solved {
        let SolvedAll { steps, result, .. } = self.solve_all(graph, &[target], request, reporter, cancel);
        let lost = || SolveError::no_root(graph, target);
        let result = result.and_then(|solutions| solutions.into_iter().next().ok_or_else(lost));
        Solved { steps, result }
    }

    /// Solves several targets in one schedule: whatever they share runs once.
    pub fn solve_all(
        &self,
        graph: &Graph,
        targets: &[VertexId],
        request: &SolveRequest,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> SolvedAll {
        let order = graph.order(targets);
        let stop = Cancel::new();
        let stopper = stop.clone();
        let _link = cancel.on_raise(move || stopper.raise());
        let imports = Arc::new(Imports::new(
            self,
            &request.cache_imports,
            reporter,
            graph,
            &order,
        ));
        let mut solve = Solve {
            engine: self,
            request,
            stop,
            roots: Roots::new(Arc::clone(&self.store), Arc::clone(&imports)),
            imports,
            diff_ids: DiffIds::new(
                cancel,
                request.compress.map(|form| (Arc::clone(&self.layer_blobs), form)),
            ),
            graph,
            reporter,
            contexts: Contexts::new(self, request, graph, &order),
            now_ms: jiff::Timestamp::now().as_millisecond().unsigned_abs(),
            planned: HashMap::new(),
            results: Results::default(),
        };
        let result = solve.all(targets, &order, cancel);
        if let (Ok(snapshots), Some(name)) = (&result, &request.upload_to) {
            solve.begin_uploads(snapshots, name, cancel);
        }
        if let Err(error) = solve.imports.keep() {
            let message = format!("hits of imported caches are not kept: {}", chain(&error));
            self.note(message);
        }
        let cache = if request.cache_exports && result.is_ok() {
            solve.used(&order)
        } else {
            SolvedCache::default()
        };
        let steps = solve.reports(&order);
        let lazy = Arc::new(solve.lazy(targets));
        let diff_ids = Arc::new(solve.diff_ids);
        let blobs = Arc::new(blobs(graph, &order));
        let solution = |snapshot| Solution {
            snapshot,
            diff_ids: Arc::clone(&diff_ids),
            blobs: Arc::clone(&blobs),
            lazy: Arc::clone(&lazy),
        };
        let result = result.map(|snapshots| snapshots.into_iter().map(solution).collect());
        SolvedAll { steps, result, cache }
    }
}

impl Solve<'_> {
    /// Uploads are begun that the push will go on with. It tells of whatever is wrong with the registry.
    fn begin_uploads(&self, snapshots: &[Snapshot], name: &Reference, cancel: &Cancel) {
        let Some(form) = self.request.compress.map(|compression| compression.form()) else {
            return;
        };
        let engine = self.engine;
        for id in snapshots.iter().flat_map(|snapshot| &snapshot.layers) {
            let way = (name.name(), id.clone(), form.clone());
            if let Some(growth) = self.diff_ids.growing(id)
                && let Ok(Some(layer)) = engine.store.layers().get(id)
                && layer.size() >= LARGE
                && !engine.streams.is_kept(&way)
                && let Ok(client) = engine.images.shared_client()
                && let Some(stream) = engine.streams.begin(client, name, &growth, cancel)
            {
                engine.streams.keep(way, stream);
            }
        }
    }

    fn all(
        &mut self,
        targets: &[VertexId],
        order: &[VertexId],
        cancel: &Cancel,
    ) -> Result<Vec<Snapshot>, SolveError> {
        self.plan(order)?;
        if self.request.needs != Needs::Files {
            self.complete_lazily(targets)?;
        }
        let mut announced = false;
        loop {
            let needed = self.needed(targets, order);
            self.report_skipped(order, &needed);
            self.check_platforms(&needed)?;
            if !needed.is_empty() && !std::mem::replace(&mut announced, true) {
                self.request.on_work.call();
            }
            let result = self
                .run(&needed, cancel)
                .and_then(|()| self.fetch_targets(targets));
            match result {
                Ok(()) => break,
                // A cache promised layers that it does not have. Each time there is one layer less to hope for.
                Err(error) if error.is_lost_layer() && self.forget_lost(order)? => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(percent) = self.request.verify {
            self.verify(order, percent, announced)?;
        }
        let snapshot = |target: &VertexId| {
            let snapshot = self.results.snapshot(*target);
            snapshot.ok_or_else(|| SolveError::no_root(self.graph, *target))
        };
        targets.iter().map(snapshot).collect()
    }

    /// Fails before anything runs when this machine cannot run one of the processes.
    fn check_platforms(&self, needed: &[VertexId]) -> Result<(), SolveError> {
        for &id in needed {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            if let Op::Exec(_) = vertex.op
                && let Err(cause) = self.engine.emulators.get(&vertex.platform)
            {
                return Err(self.step_error(id, vertex, cause.into(), Instant::now()));
            }
        }
        Ok(())
    }

    pub(crate) fn network(&self, mode: NetworkMode) -> NetworkMode {
        match mode {
            NetworkMode::Default => self.request.network,
            mode => mode,
        }
    }

    fn task(&self, id: VertexId) -> Option<Task> {
        self.planned.get(&id).and_then(|planned| planned.task.clone())
    }

    fn same_as(&self, id: VertexId) -> Option<VertexId> {
        self.planned.get(&id).and_then(|planned| planned.same_as)
    }
}

/// The blobs of all images in `order`, by layer: a push then need not compress these layers again.
fn blobs(graph: &Graph, order: &[VertexId]) -> HashMap<LayerId, Descriptor> {
    let mut blobs = HashMap::new();
    for vertex in order.iter().filter_map(|id| graph.get(*id)) {
        if let Op::Source(Source::Image(image)) = &vertex.op {
            blobs.extend(
                image
                    .layers
                    .iter()
                    .filter_map(|layer| Some((layer.layer.clone(), layer.blob.clone()?))),
            );
        }
    }
    blobs
}
