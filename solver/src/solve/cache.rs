//! What a solve has to do with caches from elsewhere: looking keys up in the store and then there, having layers
//! when they are needed, going on without a cache that breaks its promise, and telling an export what was used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use kiln_cache::{Key, KeyPart, LayerId, PortableRecord, RecordKind, Snapshot};

use super::Solve;
use crate::error::{SolveError, StepFailure};
use crate::graph::{Op, Source, Vertex, VertexId};
use crate::lazy::{LazyLayer, Needs};
use crate::remote_cache::SolvedCache;
use crate::report::{Missed, StepOutcome};
use crate::take;
use crate::task::Task;

/// What a lookup found.
pub(super) struct FoundResult {
    pub(super) snapshot: Snapshot,
    /// How long it took to make.
    pub(super) duration_ms: u64,
    /// When it was made.
    pub(super) created_ms: u64,
}

impl Solve<'_> {
    /// What is known under a key, here or elsewhere.
    pub(super) fn lookup(
        &self,
        id: VertexId,
        kind: RecordKind,
        key: Key,
        parts: &[KeyPart],
    ) -> Result<Option<FoundResult>, StepFailure> {
        if let Some(record) = self.find(id, &key)? {
            return Ok(Some(FoundResult {
                snapshot: Snapshot {
                    layers: record.output,
                },
                duration_ms: record.duration_ms,
                created_ms: record.created_ms,
            }));
        }
        let Some(record) = self.imports.find(&key, kind)? else {
            return Ok(None);
        };
        if let Some(missed) = self.expired(id, record.created_ms) {
            self.results.note(id, |made| made.missed = Some(missed));
            return Ok(None);
        }
        let found = FoundResult {
            snapshot: Snapshot {
                layers: record.output.clone(),
            },
            duration_ms: record.duration_ms,
            created_ms: record.created_ms,
        };
        self.results
            .note(id, |made| made.saved_ms = Some(found.duration_ms));
        if let Some(vertex) = self.graph.get(id) {
            self.imports.note(key, parts.to_vec(), &vertex.name, record);
        }
        Ok(Some(found))
    }

    /// Whether what a process made is older than the request allows. What files are copied does not age: its key has
    /// all that decides about it.
    pub(super) fn expired(&self, id: VertexId, created_ms: u64) -> Option<Missed> {
        let ttl = self.request.cache_ttl?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let is_process = matches!(self.graph.get(id)?.op, Op::Exec(_));
        let age_ms = self.now_ms.saturating_sub(created_ms);
        (is_process && age_ms > ttl_ms).then_some(Missed::Expired { age_ms, ttl_ms })
    }

    /// Makes sure that the layers of all inputs are in the store: a step is about to run on them.
    pub(crate) fn ensure_inputs(&self, inputs: &[VertexId], task: &Task) -> Result<(), StepFailure> {
        for input in inputs {
            if let Some(snapshot) = self.results.snapshot(*input) {
                self.imports.ensure(&snapshot, task, &self.stop)?;
            }
        }
        Ok(())
    }

    /// Makes sure that what `op` selects from other steps can be listed. A listing that came along does for that.
    pub(super) fn ensure_listings(
        &self,
        op: &Op,
        inputs: &[VertexId],
        task: &Task,
    ) -> Result<(), StepFailure> {
        for take in take::takes(op).into_iter().flatten() {
            let snapshot = inputs
                .get(take.slot())
                .and_then(|input| self.results.snapshot(*input));
            let Some(snapshot) = snapshot else { continue };
            for id in &snapshot.layers {
                if self.engine.store.layers().get(id)?.is_none() && self.imports.listing(id).is_none() {
                    self.imports.ensure(&snapshot, task, &self.stop)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Brings the targets' layers into the store as far as the request needs their files.
    pub(super) fn fetch_targets(&self, targets: &[VertexId]) -> Result<(), SolveError> {
        if self.request.needs == Needs::Nothing {
            return Ok(());
        }
        let mut task: Option<Task> = None;
        for &target in targets {
            let (Some(snapshot), Some(vertex)) = (self.results.snapshot(target), self.graph.get(target))
            else {
                continue;
            };
            let began = Instant::now();
            let result = self.is_here(&snapshot).and_then(|is_here| {
                if is_here {
                    return Ok(());
                }
                let task = task.get_or_insert_with(|| {
                    let name = match self.request.needs {
                        Needs::Blobs(_) => "looking for cached layers",
                        Needs::Files | Needs::Nothing => "fetching cached layers",
                    };
                    let mut task = self.reporter.announce(name, Vec::new(), None);
                    task.start();
                    task
                });
                match self.request.needs {
                    Needs::Blobs(form) => self.imports.ensure_blobs(&snapshot, form, task, &self.stop),
                    Needs::Files | Needs::Nothing => self.imports.ensure(&snapshot, task, &self.stop),
                }
            });
            match result {
                Ok(()) => {}
                Err(cause) => {
                    if let Some(task) = &task {
                        // The step that the layers are of is told of as well, unless it is done again.
                        task.canceled();
                    }
                    return Err(match cause {
                        StepFailure::Canceled => SolveError::Canceled,
                        lost @ StepFailure::CacheLayer { .. } => SolveError::lost(vertex, lost),
                        cause => self.step_error(target, vertex, cause, began),
                    });
                }
            }
        }
        if let Some(task) = task {
            task.done();
        }
        Ok(())
    }

    /// The layers of the targets that are not in the store, and what is known of them.
    pub(super) fn lazy(&self, targets: &[VertexId]) -> HashMap<LayerId, LazyLayer> {
        if self.request.needs == Needs::Files {
            return HashMap::new();
        }
        let snapshots = targets.iter().filter_map(|target| self.results.snapshot(*target));
        snapshots
            .flat_map(|snapshot| snapshot.layers)
            .filter(|id| matches!(self.engine.store.layers().get(id), Ok(None)))
            .filter_map(|id| {
                let lazy = self.imports.lazy(&id)?;
                Some((id, lazy))
            })
            .collect()
    }

    fn is_here(&self, snapshot: &Snapshot) -> Result<bool, StepFailure> {
        for id in &snapshot.layers {
            if self.engine.store.layers().get(id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets the results whose layers turned out not to be had, and looks for others. Says whether there was any.
    pub(super) fn forget_lost(&self, order: &[VertexId]) -> Result<bool, SolveError> {
        let mut any = false;
        for &id in order {
            let (Some(snapshot), Some(vertex)) = (self.results.snapshot(id), self.graph.get(id)) else {
                continue;
            };
            let began = Instant::now();
            let fail = |cause| self.step_error(id, vertex, cause, began);
            if self.imports.available(&snapshot.layers).map_err(fail)? {
                continue;
            }
            any = true;
            self.results.forget(id);
            let definition = self.results.definition(id).filter(|_| !self.is_fresh(id));
            if matches!(
                vertex.op,
                Op::Exec(_) | Op::File(_) | Op::Source(Source::Http(_) | Source::Git(_))
            ) && let Some(definition) = definition
            {
                let kind = RecordKind::Definition;
                let found = self
                    .lookup(id, kind, definition.key, &definition.parts)
                    .map_err(fail)?;
                if let Some(found) = found {
                    self.results.complete(id, found.snapshot);
                    self.report(id, vertex, StepOutcome::Cached, began);
                }
            }
        }
        Ok(any)
    }

    /// What the build used, for exports: the records of every step that has a result.
    pub(super) fn used(&self, order: &[VertexId]) -> SolvedCache {
        let mut base = HashSet::new();
        let mut records = BTreeMap::new();
        for &id in order {
            let Some(vertex) = self.graph.get(id) else {
                continue;
            };
            match &vertex.op {
                Op::Source(Source::Image(image)) => {
                    base.extend(image.layers.iter().map(|layer| layer.layer.clone()));
                }
                Op::Exec(_) | Op::File(_) | Op::Source(Source::Http(_) | Source::Git(_)) => {
                    if self.results.is_complete(id)
                        && let Some(definition) = self.results.definition(id)
                    {
                        records.extend(self.record_of(&definition.key));
                    }
                    if let Some(key) = self.content_of(id, vertex) {
                        records.extend(self.record_of(&key));
                    }
                }
                Op::Source(Source::Scratch | Source::Local(_)) | Op::Merge => {}
            }
        }
        let outputs = records
            .values()
            .flat_map(|record: &PortableRecord| &record.output);
        let outputs: HashSet<LayerId> = outputs.cloned().collect();
        let imported: HashMap<_, _> = outputs
            .into_iter()
            .filter_map(|id| Some((id.clone(), self.imports.origin(&id)?)))
            .collect();
        SolvedCache {
            records,
            base,
            imported,
        }
    }

    fn record_of(&self, key: &Key) -> Option<(Key, PortableRecord)> {
        let stored = self.engine.store.records().get(key).ok().flatten();
        let record = match stored {
            Some(record) => PortableRecord {
                kind: record.kind,
                output: record.output,
                step: record.step,
                created_ms: record.created_ms,
                duration_ms: record.duration_ms,
                seen: 0,
            },
            None => PortableRecord {
                seen: 0,
                ..self.imports.record(key)?
            },
        };
        Some((*key, record))
    }

    /// The content key of a step with a result, as far as it can be made without fetching anything. An export can do
    /// without it.
    fn content_of(&self, id: VertexId, vertex: &Vertex) -> Option<Key> {
        if !matches!(vertex.op, Op::Exec(_) | Op::File(_)) || !self.results.is_complete(id) {
            return None;
        }
        let inputs = self.graph.inputs(id);
        for input in &inputs {
            let is_local = super::contexts::name(self.graph, *input).is_some();
            if !is_local && !self.is_here(&self.results.snapshot(*input)?).ok()? {
                return None;
            }
        }
        let local = &self.planned.get(&id)?.chosen;
        let chosen = self.choose_all(&vertex.op, &inputs, local).ok()?;
        let (key, _) = self.content_key(vertex, &inputs, &chosen).ok()?;
        Some(key)
    }
}
