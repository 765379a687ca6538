//! The build graph: vertices that carry operations, edges that say whose output goes where.
//!
//! The operations are shaped like BuildKit's LLB (source, exec, file, merge, diff) so that other frontends
//! fit on the same engine. Nothing here names a Dockerfile keyword, and nothing here holds a path of the
//! host: an operation is plain data that could be sent to another machine.

mod exec;
mod files;
mod source;

use std::fmt;

use kiln_image::Platform;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};

pub use self::exec::{
    Exec, ExtraHost, Mount, MountKind, NetworkMode, SandboxFile, SecurityMode, Sharing, Ulimit,
};
pub use self::files::{Copy, CopySource, FileAction, FileOp, MakeDirectory, MakeFile};
pub use self::source::{GitSource, HttpSource, ImageSource, LocalSource, Source, SourceLayer};

/// Names a vertex within one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(NodeIndex<u32>);

impl VertexId {
    /// A small number that is unique within the graph, in order of creation.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

impl fmt::Display for VertexId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.index())
    }
}

/// The place in a source text that a vertex came from, as byte offsets into that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpan {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// One node of the graph.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vertex {
    /// What is to be done.
    pub op: Op,
    /// The platform that it is done for.
    pub platform: Platform,
    /// What a person sees, for example `[build 2/4] RUN make`.
    pub name: String,
    /// Where it came from.
    pub span: Option<SourceSpan>,
    /// Run it even when the cache has its result.
    pub ignore_cache: bool,
}

/// An operation. Its inputs are the vertex's incoming edges, by slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Op {
    /// Brings something in from outside; it has no inputs.
    Source(Source),
    /// Runs a process; slot 0 is its root file system.
    Exec(Exec),
    /// Changes files without running a process; slot 0 is the base.
    File(FileOp),
    /// Puts the layers of slots 1 and up, in order, on top of those of slot 0. Nothing is copied or run: the result
    /// is the list of all their layers, so that a layer made on an empty root stays what it is on every base.
    Merge,
}

/// The graph of a build.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Edges run from producer to consumer and carry the consumer's input slot.
    dag: StableDiGraph<Vertex, usize, u32>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex whose inputs, by slot, are `inputs`. Inputs exist already, so no cycle can arise.
    pub fn add(&mut self, vertex: Vertex, inputs: &[VertexId]) -> VertexId {
        let node = self.dag.add_node(vertex);
        for (slot, input) in inputs.iter().enumerate() {
            self.dag.add_edge(input.0, node, slot);
        }
        VertexId(node)
    }

    /// The vertex `id`, or `None` when it is not of this graph.
    pub fn get(&self, id: VertexId) -> Option<&Vertex> {
        self.dag.node_weight(id.0)
    }

    /// The inputs of `id`, ordered by slot.
    pub fn inputs(&self, id: VertexId) -> Vec<VertexId> {
        let mut inputs: Vec<(usize, VertexId)> = self
            .dag
            .edges_directed(id.0, Direction::Incoming)
            .map(|edge| (*edge.weight(), VertexId(edge.source())))
            .collect();
        inputs.sort_unstable();
        inputs.into_iter().map(|(_, id)| id).collect()
    }

    /// Everything that `targets` need, each vertex after its inputs. What no target needs is left out.
    pub fn order(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let mut order = Vec::new();
        let mut seen = vec![
            false;
            self.dag
                .node_indices()
                .map(|node| node.index() + 1)
                .max()
                .unwrap_or(0)
        ];
        // An explicit stack: graphs of 100,000 steps in a row must not exhaust the call stack.
        let mut stack: Vec<(VertexId, bool)> = targets.iter().rev().map(|&id| (id, false)).collect();
        while let Some((id, expanded)) = stack.pop() {
            if expanded {
                order.push(id);
                continue;
            }
            match seen.get_mut(id.index()) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            stack.push((id, true));
            stack.extend(self.inputs(id).into_iter().rev().map(|input| (input, false)));
        }
        order
    }

    /// The number of vertices.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.dag.node_count() == 0
    }
}
