//! Several graphs as one, in which what they have in common exists once.
//!
//! A build for several platforms lowers its file once for each. Stages that are the same for all (those on the
//! platform of the build machine, up to the first step that looks at the target) give the same vertices each time; as
//! one vertex they run once, have one task and one name.

use std::collections::HashMap;

use crate::graph::{Graph, VertexId};

/// Joins graphs.
#[derive(Debug, Default)]
pub struct Joiner {
    graph: Graph,
    /// By operation, platform and inputs, as they are in the joint graph.
    known: HashMap<(Vec<u8>, Vec<VertexId>), VertexId>,
}

impl Joiner {
    /// Adds what `target` needs and returns where it is now. A vertex that is there already keeps its first name.
    pub fn add(&mut self, graph: &Graph, target: VertexId) -> Option<VertexId> {
        let mut moved: HashMap<VertexId, VertexId> = HashMap::new();
        for id in graph.order(&[target]) {
            let vertex = graph.get(id)?;
            let inputs = graph
                .inputs(id)
                .iter()
                .map(|input| moved.get(input).copied())
                .collect::<Option<Vec<VertexId>>>()?;
            // Only a map with keys that are no strings could fail; then the vertex is like no other.
            let identity = serde_json::to_vec(&(&vertex.op, &vertex.platform, vertex.ignore_cache)).ok();
            let known = identity.map(|identity| (identity, inputs.clone()));
            let place = match known.as_ref().and_then(|known| self.known.get(known)) {
                Some(place) => *place,
                None => self.graph.add(vertex.clone(), &inputs),
            };
            if let Some(known) = known {
                self.known.insert(known, place);
            }
            moved.insert(id, place);
        }
        moved.get(&target).copied()
    }

    /// The joint graph.
    pub fn finish(self) -> Graph {
        self.graph
    }
}

#[cfg(test)]
mod tests {
    use kiln_image::Platform;

    use super::Joiner;
    use crate::graph::{Exec, Graph, Op, Source, Vertex, VertexId};

    fn vertex(graph: &mut Graph, op: Op, platform: &str, inputs: &[VertexId]) -> VertexId {
        let platform: Platform = platform.parse().unwrap();
        let name = format!("{} for {platform}", graph.len());
        graph.add(
            Vertex {
                op,
                platform,
                name,
                span: None,
                ignore_cache: false,
            },
            inputs,
        )
    }

    fn run(command: &str) -> Op {
        Op::Exec(Exec {
            args: vec![command.to_owned()],
            ..Exec::default()
        })
    }

    /// A build stage on amd64 that looks at the target in its second step, and a target stage.
    fn cross(target: &str) -> (Graph, VertexId) {
        let mut graph = Graph::new();
        let scratch = Op::Source(Source::Scratch);
        let base = vertex(&mut graph, scratch.clone(), "linux/amd64", &[]);
        let tools = vertex(&mut graph, run("tools"), "linux/amd64", &[base]);
        let built = vertex(
            &mut graph,
            run(&format!("make {target}")),
            "linux/amd64",
            &[tools],
        );
        let own = vertex(&mut graph, scratch, target, &[]);
        let last = vertex(&mut graph, run("install"), target, &[own, built]);
        (graph, last)
    }

    #[test]
    fn what_graphs_have_in_common_exists_once() {
        let mut joiner = Joiner::default();
        let targets: Vec<VertexId> = ["linux/arm64", "linux/s390x", "linux/arm64"]
            .into_iter()
            .map(|target| {
                let (graph, last) = cross(target);
                joiner.add(&graph, last).unwrap()
            })
            .collect();
        let graph = joiner.finish();
        assert_eq!(targets[0], targets[2]);
        assert_ne!(targets[0], targets[1]);
        // The base and the tools once, three vertices of their own for each platform.
        assert_eq!(graph.len(), 2 + 2 * 3);
        let order = graph.order(&targets);
        assert_eq!(order.len(), 8);
        assert_eq!(
            graph
                .get(graph.inputs(targets[1])[0])
                .unwrap()
                .platform
                .to_string(),
            "linux/s390x"
        );
    }

    #[test]
    fn inputs_in_another_order_make_another_vertex() {
        let mut joiner = Joiner::default();
        let mut add = |swapped: bool| {
            let mut graph = Graph::new();
            let one = vertex(&mut graph, run("one"), "linux/amd64", &[]);
            let two = vertex(&mut graph, run("two"), "linux/amd64", &[]);
            let inputs = if swapped { [two, one] } else { [one, two] };
            let last = vertex(&mut graph, run("last"), "linux/amd64", &inputs);
            joiner.add(&graph, last).unwrap()
        };
        let (first, second) = (add(false), add(true));
        assert_ne!(first, second);
        assert_eq!(joiner.finish().len(), 4);
    }
}
