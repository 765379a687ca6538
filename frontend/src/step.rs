//! Steps: what the instructions of a stage will do, and how they get into the graph.
//!
//! A step becomes a vertex only when its stage is complete, because its name says how many steps there are.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Platform;
use kiln_parser::Span;
use kiln_solver::graph::{Graph, LocalSource, Op, Source, SourceSpan, Vertex, VertexId};

use crate::MAIN_CONTEXT;
use crate::images::{ImageKey, Images};
use crate::naming::{self, Target};
use crate::remote::{RemoteRequest, Remotes};
use crate::stage::Origin;

/// One step of a stage. It works on the result of the step before.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What it does.
    pub(crate) op: Op,
    /// Its inputs from slot 1 on; slot 0 is the step before.
    pub(crate) inputs: Vec<Input>,
    /// The instruction as a person sees it, without the `[stage 1/2]` before it.
    pub(crate) text: String,
    /// The instruction's place.
    pub(crate) span: Span,
}

/// Where a step takes files from.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The main build context.
    Context,
    /// The result of a stage, by number.
    Stage(usize),
    /// An image.
    Image(ImageKey),
    /// Nothing (`--from=scratch`).
    Scratch,
    /// A file or a repository from elsewhere, and where it is written.
    Remote(RemoteRequest, Span),
}

impl Input {
    /// The input that an origin means; the main build context without one.
    pub(crate) fn from_origin(origin: Option<&Origin>) -> Self {
        match origin {
            None => Self::Context,
            Some(Origin::Scratch) => Self::Scratch,
            Some(Origin::Stage(number)) => Self::Stage(*number),
            Some(Origin::Image(request)) => Self::Image(request.key()),
        }
    }
}

/// What a stage stands on, in the graph.
#[derive(Debug, Clone)]
pub(crate) enum Ground {
    /// Nothing.
    Scratch,
    /// The result of an earlier stage.
    Stage(usize),
    /// An image.
    Image(ImageKey),
}

/// Everything about a stage that its vertices need.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// The stage's number.
    pub(crate) number: usize,
    /// The name shown in step names; empty when the file has one stage only.
    pub(crate) label: &'a str,
    /// What it stands on.
    pub(crate) ground: Ground,
    /// The place of its FROM.
    pub(crate) from: Span,
    /// What it is built for.
    pub(crate) platform: &'a Platform,
    /// Whether its steps run even when their results are known.
    pub(crate) ignore_cache: bool,
    /// Platforms for the step names of a multi-platform build.
    pub(crate) naming: Option<Naming<'a>>,
}

/// What the step names of a multi-platform build tell.
#[derive(Debug)]
pub(crate) struct Naming<'a> {
    /// The platform that the stage was asked for.
    pub(crate) platform: &'a Platform,
    /// For each step, the target that its variables speak of.
    pub(crate) targets: &'a [Option<Target>],
}

impl Layout<'_> {
    /// `[linux/arm64 build 3/12] ` before the name of a step, or of FROM when there is no step.
    fn position(&self, step: Option<usize>, number: usize, total: usize) -> String {
        let Some(naming) = &self.naming else {
            return position(self.label, number, total);
        };
        let target = step.and_then(|step| naming.targets.get(step)?.as_ref());
        let platform = naming::label(naming.platform, target);
        let label = match self.label {
            "" => platform,
            label => format!("{platform} {label}"),
        };
        position(&label, number, total)
    }
}

/// Turns steps into vertices.
#[derive(Debug)]
pub(crate) struct Emitter<'a> {
    graph: Graph,
    images: &'a Images,
    remotes: &'a Remotes,
    remote_vertices: Vec<(RemoteRequest, VertexId)>,
    context: Option<VertexId>,
    scratch: BTreeMap<String, VertexId>,
    image_vertices: BTreeMap<ImageKey, VertexId>,
    stages: BTreeMap<usize, VertexId>,
    platform: &'a Platform,
}

impl<'a> Emitter<'a> {
    /// An emitter with an empty graph. `platform` is that of the build context.
    pub(crate) fn new(images: &'a Images, remotes: &'a Remotes, platform: &'a Platform) -> Self {
        Self {
            graph: Graph::new(),
            images,
            remotes,
            remote_vertices: Vec::new(),
            context: None,
            scratch: BTreeMap::new(),
            image_vertices: BTreeMap::new(),
            stages: BTreeMap::new(),
            platform,
        }
    }

    /// The last vertex of a stage that was added.
    pub(crate) fn stage_vertex(&self, number: usize) -> Option<VertexId> {
        self.stages.get(&number).copied()
    }

    /// The graph and the local contexts that it reads.
    pub(crate) fn finish(self) -> (Graph, BTreeSet<String>) {
        let contexts = self
            .context
            .map(|_| MAIN_CONTEXT.to_owned())
            .into_iter()
            .collect();
        (self.graph, contexts)
    }

    /// Adds the vertices of a stage and returns its last one. The stages that it needs were added before;
    /// `None` if one was not.
    pub(crate) fn stage(&mut self, layout: &Layout<'_>, steps: &[Step]) -> Option<VertexId> {
        let from_counts = usize::from(matches!(layout.ground, Ground::Image(_)));
        let total = from_counts + steps.len();
        let mut current = self.ground(layout, total)?;
        for (index, step) in steps.iter().enumerate() {
            let mut inputs = vec![current];
            for input in &step.inputs {
                inputs.push(self.input(input, layout, step.span)?);
            }
            let vertex = Vertex {
                op: step.op.clone(),
                platform: layout.platform.clone(),
                name: format!(
                    "{}{}",
                    layout.position(Some(index), from_counts + index + 1, total),
                    step.text
                ),
                span: Some(source_span(step.span)),
                ignore_cache: layout.ignore_cache,
            };
            current = self.graph.add(vertex, &inputs);
        }
        self.stages.insert(layout.number, current);
        Some(current)
    }

    fn ground(&mut self, layout: &Layout<'_>, total: usize) -> Option<VertexId> {
        match &layout.ground {
            Ground::Scratch => Some(self.scratch(layout.platform)),
            Ground::Stage(number) => self.stages.get(number).copied(),
            Ground::Image(key) => self.image(key, &layout.position(None, 1, total), layout.from),
        }
    }

    fn input(&mut self, input: &Input, layout: &Layout<'_>, span: Span) -> Option<VertexId> {
        match input {
            Input::Context => Some(self.context()),
            Input::Stage(number) => self.stages.get(number).copied(),
            Input::Scratch => Some(self.scratch(layout.platform)),
            Input::Image(key) if self.images.is_empty_image(key) => Some(self.scratch(layout.platform)),
            Input::Image(key) => self.image(key, "", span),
            Input::Remote(request, span) => self.remote(request, *span),
        }
    }

    fn scratch(&mut self, platform: &Platform) -> VertexId {
        let key = platform.to_string();
        if let Some(vertex) = self.scratch.get(&key) {
            return *vertex;
        }
        let op = Op::Source(Source::Scratch);
        let name = "[internal] empty root file system".to_owned();
        let vertex = self.source(op, platform.clone(), name, None);
        self.scratch.insert(key, vertex);
        vertex
    }

    /// The vertex of an image; one for all its uses, named after the first.
    fn image(&mut self, key: &ImageKey, position: &str, span: Span) -> Option<VertexId> {
        if let Some(vertex) = self.image_vertices.get(key) {
            return Some(*vertex);
        }
        let image = self.images.get(key)?;
        let name = format!(
            "{position}FROM {}",
            display_reference(&image.source.reference, &image.source.digest)
        );
        let op = Op::Source(Source::Image(image.source.clone()));
        let vertex = self.source(op, image.platform.clone(), name, Some(span));
        self.image_vertices.insert(key.clone(), vertex);
        Some(vertex)
    }

    /// The vertex of a remote source; one for all its uses.
    fn remote(&mut self, request: &RemoteRequest, span: Span) -> Option<VertexId> {
        let made = self.remote_vertices.iter().find(|(other, _)| other == request);
        if let Some((_, vertex)) = made {
            return Some(*vertex);
        }
        let op = self.remotes.get(request)?.clone();
        let vertex = self.source(op, self.platform.clone(), request.step_name(), Some(span));
        self.remote_vertices.push((request.clone(), vertex));
        Some(vertex)
    }

    fn context(&mut self) -> VertexId {
        if let Some(vertex) = self.context {
            return vertex;
        }
        let op = Op::Source(Source::Local(LocalSource {
            name: MAIN_CONTEXT.to_owned(),
        }));
        let vertex = self.source(
            op,
            self.platform.clone(),
            "[internal] load build context".to_owned(),
            None,
        );
        *self.context.insert(vertex)
    }

    fn source(&mut self, op: Op, platform: Platform, name: String, span: Option<Span>) -> VertexId {
        let span = span.map(source_span);
        self.graph.add(
            Vertex {
                op,
                platform,
                name,
                span,
                ignore_cache: false,
            },
            &[],
        )
    }
}

/// `docker.io/library/busybox:latest@sha256:…`.
fn display_reference(reference: &str, digest: &kiln_image::Digest) -> String {
    if reference.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}@{digest}")
    }
}

/// `[build  3/12] `: all numbers of a stage have the same width.
fn position(label: &str, number: usize, total: usize) -> String {
    let width = total.to_string().len();
    let separator = if label.is_empty() { "" } else { " " };
    format!("[{label}{separator}{number:>width$}/{total}] ")
}

/// A parser's span as the graph has it.
pub(crate) fn source_span(span: Span) -> SourceSpan {
    SourceSpan {
        start: span.start,
        end: span.end,
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn positions_line_up() {
        // Docker prints "[build  1/15] FROM …" and "[2/2] RUN …".
        assert_eq!(position("build", 1, 15), "[build  1/15] ");
        assert_eq!(position("", 2, 2), "[2/2] ");
    }
}
