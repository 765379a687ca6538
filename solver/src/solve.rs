//! Solving a graph: which vertices have results in the cache, which have to run, and running those.
//!
//! Two passes. The *plan* goes over the vertices in order, on one thread and without running anything: it makes
//! definition keys and looks them up. When the target hits, that is the whole build. Otherwise the *run* starts
//! a thread for each vertex that the target needs and the plan did not find, as soon as its inputs are there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use kiln_cache::{BuildId, Key, KeyPart, Record, RecordKind, Snapshot};
use kiln_tree::{ResolveError, TreePath};

use crate::cancel::Cancel;
use crate::context::{ContextView, LocalContext};
use crate::diff_ids::DiffIds;
use crate::engine::Engine;
use crate::error::{SolveError, StepError, StepFailure};
use crate::graph::{FileAction, FileOp, Graph, NetworkMode, Op, Source, Vertex, VertexId};
use crate::key::{self, InputIdentity};
use crate::roots::Roots;
use crate::schedule::Schedule;
use crate::select::{self, SelectError, Selection};
use crate::task::{Reporter, Task};

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
}

/// How a step came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Found by its definition key.
    Cached,
    /// Found by the content of its inputs, which had to be made anew.
    CachedByContent,
    /// It ran.
    Ran,
    /// Nothing needed it.
    Skipped,
}

/// One step of a solved build, for its record and for a later explanation.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct StepReport {
    /// The step as a person sees it.
    pub name: String,
    /// How it came to its result.
    pub outcome: StepOutcome,
    /// Its definition key.
    pub key: Key,
    /// Milliseconds that it took in this build.
    pub milliseconds: u64,
}

/// The result of a solve.
#[derive(Debug)]
pub struct Solution {
    /// The target's root file system.
    pub snapshot: Snapshot,
    /// What became of each step, in order.
    pub steps: Vec<StepReport>,
    pub(crate) diff_ids: DiffIds,
}

/// Everything about one vertex that the plan found out.
#[derive(Debug)]
struct Planned {
    task: Option<Task>,
    definition: Option<(Key, Vec<KeyPart>)>,
    /// A vertex before it, or it itself, has to run whatever the cache says.
    fresh: bool,
    /// Another vertex with the same definition key whose result it shares.
    same_as: Option<VertexId>,
    selections: Vec<Option<Selection>>,
}

/// One solve under way.
pub(crate) struct Solve<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) graph: &'a Graph,
    pub(crate) request: &'a SolveRequest,
    pub(crate) cancel: &'a Cancel,
    pub(crate) roots: Roots,
    pub(crate) diff_ids: DiffIds,
    contexts: BTreeMap<String, ContextView>,
    planned: HashMap<VertexId, Planned>,
    snapshots: Mutex<HashMap<VertexId, Snapshot>>,
    reports: Mutex<HashMap<VertexId, StepReport>>,
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
    ) -> Result<Solution, SolveError> {
        let mut solve = Solve {
            engine: self,
            graph,
            request,
            cancel,
            roots: Roots::new(Arc::clone(&self.store)),
            diff_ids: DiffIds::default(),
            contexts: BTreeMap::new(),
            planned: HashMap::new(),
            snapshots: Mutex::default(),
            reports: Mutex::default(),
        };
        let order = graph.order(&[target]);
        solve.plan(&order, reporter)?;
        let needed = solve.needed(target, &order);
        solve.report_skipped(&order, &needed);
        solve.run(&needed)?;
        solve.finish(target, &order)
    }
}

impl Solve<'_> {
    /// Announces all vertices and looks up their definition keys.
    fn plan(&mut self, order: &[VertexId], reporter: &Reporter) -> Result<(), SolveError> {
        self.announce(order, reporter);
        self.read_contexts(order)?;
        let mut by_key: HashMap<Key, VertexId> = HashMap::new();
        for &id in order {
            if self.cancel.is_raised() {
                return Err(SolveError::Canceled);
            }
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            self.plan_vertex(id, vertex, &mut by_key)
                .map_err(|cause| self.step_error(id, vertex, cause))?;
        }
        Ok(())
    }

    fn announce(&mut self, order: &[VertexId], reporter: &Reporter) {
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let inputs = self.graph.inputs(id);
            let task_inputs = inputs
                .iter()
                .filter_map(|input| self.planned.get(input)?.task.as_ref().map(Task::id))
                .collect();
            let task = match vertex.op {
                Op::Source(Source::Scratch) => None,
                _ => Some(reporter.announce(&vertex.name, task_inputs, vertex.span)),
            };
            let fresh = vertex.ignore_cache || inputs.iter().any(|input| self.is_fresh(*input));
            let planned = Planned {
                task,
                definition: None,
                fresh,
                same_as: None,
                selections: Vec::new(),
            };
            self.planned.insert(id, planned);
        }
    }

    fn is_fresh(&self, id: VertexId) -> bool {
        self.planned.get(&id).is_some_and(|planned| planned.fresh)
    }

    /// Reads each local directory once, where some step of the build looks.
    fn read_contexts(&mut self, order: &[VertexId]) -> Result<(), SolveError> {
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let Op::Source(Source::Local(source)) = &vertex.op else {
                continue;
            };
            if self.contexts.contains_key(&source.name) {
                continue;
            }
            let patterns = self.patterns_of(order, &source.name);
            let mut task = self.task(id);
            if let Some(task) = &mut task {
                task.start();
            }
            let view = self
                .read_context(&source.name, &patterns)
                .map_err(|cause| self.step_error(id, vertex, cause))?;
            if let Some(task) = &task {
                task.progress("reading context", view.bytes, Some(view.bytes), true);
                task.done();
            }
            self.contexts.insert(source.name.clone(), view);
        }
        Ok(())
    }

    fn read_context(&self, name: &str, patterns: &[TreePath]) -> Result<ContextView, StepFailure> {
        let context = self
            .request
            .contexts
            .get(name)
            .ok_or(StepFailure::Graph("a local directory that nobody named"))?;
        let memory = self.engine.store.hashes().open(&context.directory)?;
        let view = ContextView::read(context, patterns, &memory)?;
        // Losing the memory costs time in the next build, nothing else.
        if let Err(error) = memory.save() {
            self.engine.note(format!(
                "failed to save the file hashes of the build context: {error}"
            ));
        }
        Ok(view)
    }

    /// Every copy source that some vertex of the build takes from the local directory `name`.
    fn patterns_of(&self, order: &[VertexId], name: &str) -> Vec<TreePath> {
        let mut patterns = Vec::new();
        for &id in order {
            let Some(Vertex { op: Op::File(op), .. }) = self.graph.get(id) else {
                continue;
            };
            let inputs = self.graph.inputs(id);
            for action in &op.actions {
                let FileAction::Copy(copy) = action else { continue };
                let from = inputs.get(copy.from).and_then(|input| self.graph.get(*input));
                let local = matches!(from, Some(Vertex { op: Op::Source(Source::Local(source)), .. }) if source.name == name);
                if local {
                    patterns.extend(
                        copy.sources
                            .iter()
                            .filter_map(|source| TreePath::clean(&source.pattern).ok()),
                    );
                }
            }
        }
        patterns
    }

    fn plan_vertex(
        &mut self,
        id: VertexId,
        vertex: &Vertex,
        by_key: &mut HashMap<Key, VertexId>,
    ) -> Result<(), StepFailure> {
        match &vertex.op {
            Op::Source(Source::Scratch) => {
                self.define(id, key::scratch(&vertex.platform), Vec::new());
                self.set_snapshot(id, Snapshot::default());
                Ok(())
            }
            Op::Source(Source::Image(image)) => {
                self.define(id, key::image(&image.digest, &vertex.platform), Vec::new());
                if self.engine.images.is_unpacked(image)? {
                    self.engine.images.settle(image)?;
                    self.set_snapshot(id, image.snapshot());
                    self.report(id, vertex, StepOutcome::Cached, Instant::now());
                }
                Ok(())
            }
            Op::Source(Source::Local(_)) => Ok(()),
            Op::Exec(_) | Op::File(_) => self.plan_step(id, vertex, by_key),
        }
    }

    fn plan_step(
        &mut self,
        id: VertexId,
        vertex: &Vertex,
        by_key: &mut HashMap<Key, VertexId>,
    ) -> Result<(), StepFailure> {
        let began = Instant::now();
        let inputs = self.graph.inputs(id);
        if let Op::File(op) = &vertex.op {
            let selections = self.local_selections(op, &inputs)?;
            if let Some(planned) = self.planned.get_mut(&id) {
                planned.selections = selections;
            }
        }
        let identities = self.definition_identities(id, &inputs)?;
        let (key, parts) = self.key(vertex, &identities);
        self.define(id, key, parts);
        if let Some(&first) = by_key.get(&key) {
            if let Some(planned) = self.planned.get_mut(&id) {
                planned.same_as = Some(first);
            }
            if let Some(snapshot) = self.snapshot(first) {
                self.set_snapshot(id, snapshot);
                self.report(id, vertex, StepOutcome::Cached, began);
            }
            return Ok(());
        }
        by_key.insert(key, id);
        if !self.is_fresh(id)
            && let Some(record) = self.engine.store.records().get(&key)?
        {
            self.set_snapshot(
                id,
                Snapshot {
                    layers: record.output,
                },
            );
            self.report(id, vertex, StepOutcome::Cached, began);
        }
        Ok(())
    }

    /// What the copies of `op` select from local directories, by the action's position.
    fn local_selections(
        &self,
        op: &FileOp,
        inputs: &[VertexId],
    ) -> Result<Vec<Option<Selection>>, StepFailure> {
        let mut selections = Vec::with_capacity(op.actions.len());
        for action in &op.actions {
            let FileAction::Copy(copy) = action else {
                selections.push(None);
                continue;
            };
            selections.push(
                match inputs.get(copy.from).and_then(|input| self.context_name(*input)) {
                    None => None,
                    Some(name) => {
                        let view = self
                            .contexts
                            .get(name)
                            .ok_or(StepFailure::Graph("a local directory that was not read"))?;
                        let selection = select::select(&view.listing, &copy.sources);
                        Some(
                            selection
                                .map_err(|(source, error)| self.missing_source(error, source, Some(name)))?,
                        )
                    }
                },
            );
        }
        Ok(selections)
    }

    fn context_name(&self, id: VertexId) -> Option<&str> {
        match self.graph.get(id).map(|vertex| &vertex.op) {
            Some(Op::Source(Source::Local(source))) => Some(&source.name),
            _ => None,
        }
    }

    /// Turns a failed selection into the facts that help: whether an ignore rule hides it, what is near.
    pub(crate) fn missing_source(
        &self,
        error: SelectError,
        source: &crate::graph::CopySource,
        context: Option<&str>,
    ) -> StepFailure {
        let SelectError::Resolve(ResolveError::NotFound { path }) = error else {
            return StepFailure::Source {
                message: error.to_string(),
                span: source.span,
            };
        };
        let local = context.and_then(|name| self.request.contexts.get(name));
        StepFailure::SourceNotFound {
            ignored_by: local.and_then(|local| {
                path.ancestors()
                    .chain([path.clone()])
                    .find_map(|path| local.policy.why_excluded(&path))
            }),
            similar: local.map_or_else(Vec::new, |local| {
                crate::context::similar_names(&local.directory, &path)
            }),
            place: crate::file::place_name(context.is_none()).to_owned(),
            path,
            span: source.span,
        }
    }

    /// How the inputs of `id` count in its definition key.
    fn definition_identities(
        &self,
        id: VertexId,
        inputs: &[VertexId],
    ) -> Result<Vec<InputIdentity>, StepFailure> {
        let mut identities = Vec::with_capacity(inputs.len());
        for input in inputs {
            let planned = self
                .planned
                .get(input)
                .ok_or(StepFailure::Graph("an input before its vertex"))?;
            match (&planned.definition, self.context_name(*input)) {
                (Some((key, _)), _) => identities.push(InputIdentity::Key(*key)),
                (None, Some(_)) => {}
                (None, None) => return Err(StepFailure::Graph("an input without a key")),
            }
        }
        let selections = self
            .planned
            .get(&id)
            .into_iter()
            .flat_map(|planned| &planned.selections);
        identities.extend(
            selections
                .flatten()
                .filter_map(|selection| selection.hash)
                .map(InputIdentity::Files),
        );
        Ok(identities)
    }

    pub(crate) fn key(&self, vertex: &Vertex, identities: &[InputIdentity]) -> (Key, Vec<KeyPart>) {
        match &vertex.op {
            Op::Exec(exec) => key::exec(exec, self.network(exec.network), &vertex.platform, identities),
            Op::File(op) => key::file(op, &vertex.platform, identities),
            Op::Source(_) => (key::scratch(&vertex.platform), Vec::new()),
        }
    }

    pub(crate) fn network(&self, mode: NetworkMode) -> NetworkMode {
        match mode {
            NetworkMode::Default => self.request.network,
            mode => mode,
        }
    }

    /// The vertices that have to run so that `target` has a result, in order.
    fn needed(&self, target: VertexId, order: &[VertexId]) -> Vec<VertexId> {
        let mut needed: HashSet<VertexId> = HashSet::new();
        let mut stack = vec![target];
        while let Some(id) = stack.pop() {
            let is_local = self.context_name(id).is_some();
            if is_local || self.snapshot(id).is_some() || !needed.insert(id) {
                continue;
            }
            match self.planned.get(&id).and_then(|planned| planned.same_as) {
                Some(first) => stack.push(first),
                None => stack.extend(self.graph.inputs(id)),
            }
        }
        order.iter().copied().filter(|id| needed.contains(id)).collect()
    }

    /// Vertices whose result nobody needs count as cached: their work was saved.
    fn report_skipped(&self, order: &[VertexId], needed: &[VertexId]) {
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            let open =
                self.context_name(id).is_none() && self.snapshot(id).is_none() && !needed.contains(&id);
            if open {
                self.report(id, vertex, StepOutcome::Skipped, Instant::now());
            }
        }
    }

    /// Runs `needed`, each vertex as soon as its inputs are there.
    fn run(&self, needed: &[VertexId]) -> Result<(), SolveError> {
        if needed.is_empty() {
            return Ok(());
        }
        let inputs = |id| match self.planned.get(&id).and_then(|planned| planned.same_as) {
            Some(first) => vec![first],
            None => self.graph.inputs(id),
        };
        let mut schedule = Schedule::new(needed, inputs, self.request.jobs);
        let (sender, receiver) = mpsc::channel::<(VertexId, Result<(), StepFailure>)>();
        let mut failure: Option<SolveError> = None;
        std::thread::scope(|scope| {
            loop {
                while let Some(id) = schedule.next() {
                    let sender = sender.clone();
                    let thread = std::thread::Builder::new().name(format!("step-{id}"));
                    let started = thread.spawn_scoped(scope, move || {
                        let result = self.run_vertex(id);
                        // The receiver outlives all steps.
                        let _ = sender.send((id, result));
                    });
                    if let Err(error) = started {
                        schedule.failed();
                        failure.get_or_insert(SolveError::Thread(error));
                        self.cancel.raise();
                    }
                }
                if schedule.is_over() {
                    break;
                }
                let Ok((id, result)) = receiver.recv() else { break };
                match result {
                    Ok(()) if self.cancel.is_raised() => {
                        schedule.finished(id);
                        schedule.stop();
                    }
                    Ok(()) => schedule.finished(id),
                    Err(cause) => {
                        schedule.failed();
                        self.note_failure(id, cause, &mut failure);
                    }
                }
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None if self.cancel.is_raised() => Err(SolveError::Canceled),
            None => Ok(()),
        }
    }

    /// The first failure ends the build; what the others say after it is only that they were stopped.
    fn note_failure(&self, id: VertexId, cause: StepFailure, failure: &mut Option<SolveError>) {
        let Some(vertex) = self.graph.get(id) else { return };
        if self.cancel.is_raised() {
            if let Some(task) = self.task(id) {
                task.canceled();
            }
            failure.get_or_insert(SolveError::Canceled);
            return;
        }
        *failure = Some(self.step_error(id, vertex, cause));
        self.cancel.raise();
    }

    fn run_vertex(&self, id: VertexId) -> Result<(), StepFailure> {
        let vertex = self
            .graph
            .get(id)
            .ok_or(StepFailure::Graph("a vertex that does not exist"))?;
        let began = Instant::now();
        if let Some(first) = self.planned.get(&id).and_then(|planned| planned.same_as) {
            let snapshot = self
                .snapshot(first)
                .ok_or(StepFailure::Graph("a shared result that is missing"))?;
            self.set_snapshot(id, snapshot);
            self.report(id, vertex, StepOutcome::Cached, began);
            return Ok(());
        }
        let Some(mut task) = self.task(id) else {
            return Err(StepFailure::Graph("a step without a task"));
        };
        if let Op::Source(Source::Image(image)) = &vertex.op {
            task.start();
            self.engine.images.fetch_layers(image, &task, self.cancel)?;
            self.set_snapshot(id, image.snapshot());
            self.report(id, vertex, StepOutcome::Ran, began);
            return Ok(());
        }
        let inputs = self.graph.inputs(id);
        let selections = self.all_selections(id, vertex, &inputs)?;
        let (content_key, content_parts) = self.content_key(vertex, &inputs, &selections)?;
        if !vertex.ignore_cache
            && let Some(record) = self.engine.store.records().get(&content_key)?
        {
            let output = Snapshot {
                layers: record.output,
            };
            self.remember(id, vertex, &output, record.duration_ms, None)?;
            self.set_snapshot(id, output);
            self.report(id, vertex, StepOutcome::CachedByContent, began);
            return Ok(());
        }
        task.start();
        let output = self.execute(vertex, &inputs, &selections, &task)?;
        let duration_ms = began.elapsed().as_millis() as u64;
        self.remember(
            id,
            vertex,
            &output,
            duration_ms,
            Some((content_key, content_parts)),
        )?;
        self.set_snapshot(id, output);
        self.report(id, vertex, StepOutcome::Ran, began);
        Ok(())
    }

    /// The selections of all copies of a vertex; those from other steps are made now, from their listings.
    fn all_selections(
        &self,
        id: VertexId,
        vertex: &Vertex,
        inputs: &[VertexId],
    ) -> Result<Vec<Option<Selection>>, StepFailure> {
        let Op::File(op) = &vertex.op else {
            return Ok(Vec::new());
        };
        let planned = self
            .planned
            .get(&id)
            .map(|planned| planned.selections.clone())
            .unwrap_or_default();
        let mut selections = Vec::with_capacity(op.actions.len());
        for (position, action) in op.actions.iter().enumerate() {
            let known = planned.get(position).cloned().flatten();
            selections.push(match (known, action) {
                (Some(selection), _) => Some(selection),
                (None, FileAction::Copy(copy)) => {
                    let snapshot = self.input_snapshot(inputs, copy.from)?;
                    let listing = self.roots.listing(&snapshot)?;
                    let selection = select::select(&listing, &copy.sources);
                    Some(selection.map_err(|(source, error)| self.missing_source(error, source, None))?)
                }
                (None, _) => None,
            });
        }
        Ok(selections)
    }

    /// The key by what the inputs turned out to be.
    fn content_key(
        &self,
        vertex: &Vertex,
        inputs: &[VertexId],
        selections: &[Option<Selection>],
    ) -> Result<(Key, Vec<KeyPart>), StepFailure> {
        let mut identities = Vec::new();
        if !inputs.is_empty() {
            identities.push(InputIdentity::Root(self.input_snapshot(inputs, 0)?.content_key()));
        }
        identities.extend(
            selections
                .iter()
                .flatten()
                .filter_map(|selection| selection.hash)
                .map(InputIdentity::Files),
        );
        // A domain of its own: a definition key is never mistaken for a content key.
        let (_, mut parts) = self.key(vertex, &identities);
        parts.push(KeyPart::new("kind", "content"));
        Ok((Key::of("content", &parts), parts))
    }

    pub(crate) fn input_snapshot(&self, inputs: &[VertexId], slot: usize) -> Result<Snapshot, StepFailure> {
        inputs
            .get(slot)
            .and_then(|input| self.snapshot(*input))
            .ok_or(StepFailure::Graph("an input without a root file system"))
    }

    pub(crate) fn context_view(&self, inputs: &[VertexId], slot: usize) -> Option<&ContextView> {
        inputs
            .get(slot)
            .and_then(|input| self.context_name(*input))
            .and_then(|name| self.contexts.get(name))
    }

    /// Writes the records under which a result is found again.
    fn remember(
        &self,
        id: VertexId,
        vertex: &Vertex,
        output: &Snapshot,
        duration_ms: u64,
        content: Option<(Key, Vec<KeyPart>)>,
    ) -> Result<(), StepFailure> {
        let definition = self
            .planned
            .get(&id)
            .and_then(|planned| planned.definition.clone());
        let created_ms = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let content = content.map(|key| (RecordKind::Content, key));
        for (kind, (key, parts)) in content
            .into_iter()
            .chain(definition.map(|key| (RecordKind::Definition, key)))
        {
            self.engine.store.records().put(&Record {
                key,
                kind,
                parts,
                output: output.layers.clone(),
                step: vertex.name.clone(),
                identity: Some(Key::of("step", &[KeyPart::new("name", &vertex.name)])),
                created_ms,
                duration_ms,
            })?;
        }
        Ok(())
    }

    fn finish(self, target: VertexId, order: &[VertexId]) -> Result<Solution, SolveError> {
        let snapshot = self.snapshot(target).unwrap_or_default();
        let mut reports = self.reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        let steps = order.iter().filter_map(|id| reports.remove(id)).collect();
        Ok(Solution {
            snapshot,
            steps,
            diff_ids: self.diff_ids,
        })
    }

    fn define(&mut self, id: VertexId, key: Key, parts: Vec<KeyPart>) {
        if let Some(planned) = self.planned.get_mut(&id) {
            planned.definition = Some((key, parts));
        }
    }

    fn task(&self, id: VertexId) -> Option<Task> {
        self.planned.get(&id).and_then(|planned| planned.task.clone())
    }

    pub(crate) fn snapshot(&self, id: VertexId) -> Option<Snapshot> {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    fn set_snapshot(&self, id: VertexId, snapshot: Snapshot) {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, snapshot);
    }

    /// Tells the events and the report what became of a vertex.
    fn report(&self, id: VertexId, vertex: &Vertex, outcome: StepOutcome, began: Instant) {
        let Some(planned) = self.planned.get(&id) else {
            return;
        };
        if let Some(task) = &planned.task {
            match outcome {
                StepOutcome::Ran => task.done(),
                StepOutcome::Cached | StepOutcome::CachedByContent | StepOutcome::Skipped => task.cached(),
            }
        }
        let Some((key, _)) = planned.definition else {
            return;
        };
        let milliseconds = began.elapsed().as_millis() as u64;
        let report = StepReport {
            name: vertex.name.clone(),
            outcome,
            key,
            milliseconds,
        };
        self.reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, report);
    }

    fn step_error(&self, id: VertexId, vertex: &Vertex, cause: StepFailure) -> SolveError {
        if let Some(task) = self.task(id) {
            task.failed(crate::diff_ids::chain(&cause));
        }
        SolveError::Step(Box::new(StepError {
            name: vertex.name.clone(),
            span: vertex.span,
            cause,
        }))
    }
}
