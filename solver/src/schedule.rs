//! Which vertex may run when: a pure state machine without threads, clocks or I/O.
//!
//! [`Schedule::next`] hands out vertices whose inputs are complete, at most `jobs` at a time;
//! [`Schedule::finished`] releases those that waited. What drives it decides what "running" means.

use std::collections::{HashMap, VecDeque};

use crate::graph::VertexId;

/// The vertices that still have to run, and what each waits for.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Inputs that are not complete yet.
    waiting: HashMap<VertexId, usize>,
    /// Who waits for a vertex.
    consumers: HashMap<VertexId, Vec<VertexId>>,
    ready: VecDeque<VertexId>,
    running: usize,
    remaining: usize,
    jobs: usize,
    stopped: bool,
}

impl Schedule {
    /// A schedule of `order` (each vertex after its inputs), where `inputs` gives a vertex's inputs; those
    /// that are not in `order` count as complete. At most `jobs` run at a time, at least one.
    pub(crate) fn new(order: &[VertexId], inputs: impl Fn(VertexId) -> Vec<VertexId>, jobs: usize) -> Self {
        let mut waiting: HashMap<VertexId, usize> = order.iter().map(|&vertex| (vertex, 0)).collect();
        let mut consumers: HashMap<VertexId, Vec<VertexId>> = HashMap::new();
        for &vertex in order {
            let mut needed = inputs(vertex);
            needed.sort_unstable();
            needed.dedup();
            needed.retain(|input| waiting.contains_key(input));
            for input in &needed {
                consumers.entry(*input).or_default().push(vertex);
            }
            waiting.insert(vertex, needed.len());
        }
        let ready = order
            .iter()
            .copied()
            .filter(|vertex| waiting.get(vertex) == Some(&0))
            .collect();
        Self {
            waiting,
            consumers,
            ready,
            running: 0,
            remaining: order.len(),
            jobs: jobs.max(1),
            stopped: false,
        }
    }

    /// The next vertex to start, or `None` when all that can run does.
    pub(crate) fn next(&mut self) -> Option<VertexId> {
        if self.stopped || self.running >= self.jobs {
            return None;
        }
        let vertex = self.ready.pop_front()?;
        self.running += 1;
        Some(vertex)
    }

    /// A vertex that was handed out is complete: what waited for it may become ready.
    pub(crate) fn finished(&mut self, vertex: VertexId) {
        self.running = self.running.saturating_sub(1);
        self.remaining = self.remaining.saturating_sub(1);
        for consumer in self.consumers.remove(&vertex).unwrap_or_default() {
            if let Some(count) = self.waiting.get_mut(&consumer) {
                *count -= 1;
                if *count == 0 {
                    self.ready.push_back(consumer);
                }
            }
        }
    }

    /// A vertex that was handed out failed: nothing more is handed out.
    pub(crate) fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.stopped = true;
    }

    /// Hands out nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether nothing runs and nothing more will.
    pub(crate) fn is_over(&self) -> bool {
        self.running == 0 && (self.stopped || self.remaining == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::Schedule;
    use crate::graph::{Graph, Op, Source, Vertex, VertexId};

    fn graph(edges: &[Vec<usize>]) -> (Graph, Vec<VertexId>) {
        let mut graph = Graph::new();
        let mut ids: Vec<VertexId> = Vec::new();
        for inputs in edges {
            let inputs: Vec<VertexId> = inputs
                .iter()
                .filter_map(|&input| ids.get(input).copied())
                .collect();
            let vertex = Vertex {
                op: Op::Source(Source::Scratch),
                platform: kiln_image::Platform::host(),
                name: String::new(),
                span: None,
                ignore_cache: false,
            };
            ids.push(graph.add(vertex, &inputs));
        }
        (graph, ids)
    }

    proptest! {
        /// Whatever the graph and the order of completion: each vertex starts once, after its inputs, and
        /// never more than `jobs` run.
        #[test]
        fn order_and_limit_hold(
            edges in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 1..12),
            jobs in 1usize..5,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 12),
        ) {
            let (graph, ids) = graph(&edges);
            let order = graph.order(&ids);
            let mut schedule = Schedule::new(&order, |vertex| graph.inputs(vertex), jobs);
            let (mut started, mut complete, mut running) = (HashSet::new(), HashSet::new(), Vec::new());
            for pick in picks {
                while let Some(vertex) = schedule.next() {
                    prop_assert!(started.insert(vertex));
                    prop_assert!(graph.inputs(vertex).iter().all(|input| complete.contains(input)));
                    running.push(vertex);
                    prop_assert!(running.len() <= jobs);
                }
                if running.is_empty() {
                    break;
                }
                let vertex = running.swap_remove(pick.index(running.len()));
                complete.insert(vertex);
                schedule.finished(vertex);
            }
            while let Some(vertex) = running.pop() {
                complete.insert(vertex);
                schedule.finished(vertex);
                while let Some(vertex) = schedule.next() {
                    prop_assert!(started.insert(vertex));
                    running.push(vertex);
                }
            }
            prop_assert!(schedule.is_over());
            prop_assert_eq!(complete.len(), ids.len());
        }
    }

    #[test]
    fn nothing_starts_after_a_failure() {
        let (graph, ids) = graph(&[vec![], vec![], vec![0]]);
        let mut schedule = Schedule::new(&graph.order(&ids), |vertex| graph.inputs(vertex), 2);
        let first = schedule.next();
        assert!(first.is_some() && schedule.next().is_some());
        schedule.failed();
        assert!(!schedule.is_over());
        if let Some(first) = first {
            schedule.finished(first);
        }
        assert!(schedule.next().is_none() && schedule.is_over());
    }
}
