//! Running cached steps once more, and comparing what they make with what the cache has.
//!
//! A step runs on the very layers that its cached result stands on, and what comes of it is thrown away: no record is
//! written, and the build goes on with the cached result.

use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kiln_cache::{Snapshot, verify};
use kiln_tree::{Root, walk};

use super::{Solve, contexts, log_name};
use crate::error::{SolveError, StepFailure, chain};
use crate::graph::{Op, Vertex, VertexId};
use crate::report::StepOutcome;
use crate::task::Task;
use crate::verify::{Percent, Verification, Verified, compare};

impl Solve<'_> {
    /// Runs `percent` of the cached steps of `order` once more. `announced` says whether others know of the build.
    pub(super) fn verify(
        &self,
        order: &[VertexId],
        percent: Percent,
        announced: bool,
    ) -> Result<(), SolveError> {
        let is_cached = |id: &VertexId| {
            let step = self
                .graph
                .get(*id)
                .is_some_and(|vertex| matches!(vertex.op, Op::Exec(_) | Op::File(_)));
            step && self.same_as(*id).is_none()
                && self.results.outcome(*id).is_some_and(StepOutcome::is_cached)
        };
        let sample = percent.sample(order.iter().copied().filter(is_cached).collect());
        if sample.is_empty() {
            return Ok(());
        }
        if !announced {
            self.request.on_work.call();
        }
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<SolveError>> = Mutex::default();
        let work = || {
            while let Some(id) = sample.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.is_raised() {
                    return;
                }
                if let Err(error) = self.verify_step(*id) {
                    failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.request.jobs.clamp(1, sample.len()) {
                scope.spawn(work);
            }
        });
        if self.stop.is_raised() {
            return Err(SolveError::Canceled);
        }
        failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    /// Runs one step once more. Only that the build is stopped is an error.
    fn verify_step(&self, id: VertexId) -> Result<(), SolveError> {
        let Some(vertex) = self.graph.get(id) else {
            return Ok(());
        };
        let name = format!("verifying {}", vertex.name);
        let inputs = self.task(id).map(|task| task.id()).into_iter().collect();
        let mut task = self.reporter.announce(name, inputs, vertex.span);
        task.start();
        let began = Instant::now();
        let outcome = match self.run_again(id, vertex, &task) {
            Ok(outcome) => outcome,
            Err(_) if self.stop.is_raised() => {
                task.canceled();
                return Err(SolveError::Canceled);
            }
            Err(error @ StepFailure::Process { .. }) => Verified::Failed {
                message: chain(&error),
            },
            Err(error) => Verified::NotRun {
                reason: chain(&error),
            },
        };
        match &outcome {
            Verified::Same { .. } => task.progress(outcome.to_string(), 0, None, true),
            _ => task.warn(format!("{}: {outcome}", vertex.name), vertex.span),
        }
        task.done();
        let has_log = matches!(vertex.op, Op::Exec(_)) && !matches!(outcome, Verified::NotRun { .. });
        self.results.verified(
            id,
            Verification {
                outcome,
                milliseconds: began.elapsed().as_millis() as u64,
                log: has_log.then(|| log_name(&task)),
            },
        );
        Ok(())
    }

    fn run_again(&self, id: VertexId, vertex: &Vertex, task: &Task) -> Result<Verified, StepFailure> {
        let lost = StepFailure::Graph("a cached step without a layer");
        let Some(cached) = self.results.snapshot(id) else {
            return Err(lost);
        };
        let Some((layer, below)) = cached.layers.split_last() else {
            return Err(lost);
        };
        let inputs = self.graph.inputs(id);
        for input in inputs.iter().skip(1) {
            if contexts::name(self.graph, *input).is_none() && !self.results.is_complete(*input) {
                return Ok(Verified::NotRun {
                    reason: "the result of a step that it takes files from is not in the cache".to_owned(),
                });
            }
        }
        self.imports.ensure(&cached, task, &self.stop)?;
        self.ensure_inputs(inputs.get(1..).unwrap_or_default(), task)?;
        let damage = verify::layer(
            &self.engine.store,
            layer,
            verify::Options {
                // In a user namespace neither may be as it was made.
                owners: !self.engine.store.userxattr(),
                devices: !self.engine.store.userxattr(),
            },
        )?;
        if let Some(damage) = damage {
            return Ok(Verified::Damaged {
                reason: damage.to_string(),
            });
        }
        let local = self
            .planned
            .get(&id)
            .map(|planned| planned.chosen.clone())
            .unwrap_or_default();
        let chosen = self.choose_all(&vertex.op, &inputs, &local)?;
        let base = Snapshot {
            layers: below.to_vec(),
        };
        let (draft, _) = self.perform(vertex, &inputs, &chosen, &base, task)?;
        let upper = Root::open(&draft.diff_path())?;
        let new = walk::layer(upper.as_fd())?;
        let cached = self.engine.store.layers().require(layer)?.listing()?;
        Ok(compare(&cached, &new))
    }
}
