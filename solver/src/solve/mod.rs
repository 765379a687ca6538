//! Solving a graph: which vertices have results in the cache, which have to run, and running those.
//!
//! Two passes. The [*plan*](plan) goes over the vertices in order, on one thread and without running anything: it
//! makes definition keys and looks them up. When the target hits, that is the whole build. Otherwise the
//! [*run*](run) starts a thread for each vertex that the target needs and the plan did not find, as soon as its
//! inputs are there. After it, [`mod@verify`] runs some cached steps once more if the request says so. [`mod@merge`] puts snapshots on each other in both. [`inputs`] says how inputs count in keys, [`contexts`] holds the local directories, and
//! [`results`] what is known of each vertex so far.

mod cache;
mod contexts;
mod inputs;
mod merge;
mod plan;
mod results;
mod run;
mod taken;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_cache::{BuildId, LayerId, Snapshot};
use kiln_image::{Descriptor, Reference};
use kiln_remote::Credentials;

use crate::cancel::Cancel;
use crate::compressed::LayerCompression;
use crate::context::LocalContext;
use crate::diff_ids::DiffIds;
use crate::engine::Engine;
use crate::error::{SolveError, StepError, StepFailure, chain};
use crate::graph::{Graph, NetworkMode, Op, Source, Vertex, VertexId};
use crate::lazy::{LazyLayer, Needs};
use crate::limits::Limits;
use crate::push::stream::LARGE;
use crate::remote_cache::import::Imports;
use crate::remote_cache::{CacheLocation, SolvedCache};
use crate::report::{SourceFacts, StepKind, StepOutcome, StepReport};
use crate::roots::Roots;
use crate::secret::Secrets;
use crate::ssh::SshAgents;
use crate::take;
use crate::task::{Reporter, Task};
use crate::verify::Percent;

use contexts::Contexts;
pub(crate) use inputs::Chosen;
use results::Results;

/// What a build asks of the solver beside its graph.
#[derive(Debug, Clone)]
pub struct SolveRequest {
    /// As many steps may run at a time.
    pub jobs: usize,
    /// Local directories by name.
    pub contexts: BTreeMap<String, LocalContext>,
    /// The build whose logs these are.
    pub build: BuildId,
    /// What [`NetworkMode::Default`] means: the host's network or none.
    pub network: NetworkMode,
    /// Secrets that steps may ask for.
    pub secrets: Arc<Secrets>,
    /// SSH agents that steps may ask for.
    pub ssh: Arc<SshAgents>,
    /// Limits of each step's process.
    pub limits: Limits,
    /// What proves to servers of remote sources who asks.
    pub credentials: Arc<dyn Credentials + Send>,
    /// New layers are compressed like this as soon as they exist, beside the steps that follow.
    pub compress: Option<LayerCompression>,
    /// Where a push of the targets, with layers compressed like that, will begin: once all steps have succeeded, large
    /// layers of theirs that are still being compressed are already on their way there.
    pub upload_to: Option<Reference>,
    /// Caches from elsewhere, the first goes first.
    pub cache_imports: Vec<CacheLocation>,
    /// Results of processes count only so long.
    pub cache_ttl: Option<Duration>,
    /// So many of each hundred cached steps are run once more, and the results compared.
    pub verify: Option<Percent>,
    /// Whether [`SolvedAll::cache`] is wanted.
    pub cache_exports: bool,
    /// What is needed of the targets: layers that are only elsewhere are fetched when it takes that.
    pub needs: Needs,
    /// Called once, before the first step runs; never when everything is cached.
    pub on_work: Hook,
}

/// Something to be called; nothing by default.
#[derive(Clone, Default)]
pub struct Hook(Option<Arc<dyn Fn() + Send + Sync>>);

impl Hook {
    /// Calls `call`.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    fn call(&self) {
        if let Some(call) = &self.0 {
            call();
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Hook").field(&self.0.is_some()).finish()
    }
}

/// What came of a solve, good or bad.
#[derive(Debug)]
pub struct Solved {
    /// What became of each step, in order; steps that the build did not come to are left out.
    pub steps: Vec<StepReport>,
    /// The target, or why there is none.
    pub result: Result<Solution, SolveError>,
}

/// What came of a solve of several targets, good or bad.
#[derive(Debug)]
pub struct SolvedAll {
    /// What became of each step, in order; steps that the build did not come to are left out.
    pub steps: Vec<StepReport>,
    /// The targets in the order in which they were given, or why there are none.
    pub result: Result<Vec<Solution>, SolveError>,
    /// What an export writes; empty unless the request asks for it.
    pub cache: SolvedCache,
}

/// A target of a successful solve.
#[derive(Debug)]
pub struct Solution {
    /// The target's root file system.
    pub snapshot: Snapshot,
    pub(crate) diff_ids: Arc<DiffIds>,
    /// The blobs that layers of the build's images came from.
    pub(crate) blobs: Arc<HashMap<LayerId, Descriptor>>,
    /// What is known of layers that are not in the store.
    pub(crate) lazy: Arc<HashMap<LayerId, LazyLayer>>,
}

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

    /// Tells the events and the report what became of a vertex.
    fn report(&self, id: VertexId, vertex: &Vertex, outcome: StepOutcome, began: Instant) {
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
    fn reports(&self, order: &[VertexId]) -> Vec<StepReport> {
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
    fn step_error(&self, id: VertexId, vertex: &Vertex, cause: StepFailure, began: Instant) -> SolveError {
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
fn is_silent(op: &Op) -> bool {
    matches!(op, Op::Source(Source::Scratch) | Op::Merge)
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
