//! The entry point: a Dockerfile and options in, a build graph and an image config out.

use std::collections::BTreeSet;

use kiln_image::ImageConfig;
use kiln_parser::{Diagnostic, Dockerfile};
use kiln_solver::graph::{Graph, VertexId};

use crate::options::LowerOptions;
use crate::resolve::ImageResolver;

/// What a Dockerfile lowers to.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The vertices of the target and of all that it needs.
    pub graph: Graph,
    /// The vertex whose snapshot is the image's root file system.
    pub target: VertexId,
    /// The image's configuration, complete but for the DiffIDs and the creation times. Its history is that of
    /// the base image and one entry for each instruction since.
    pub config: ImageConfig,
    /// The target stage's name, when it has one.
    pub target_stage: Option<String>,
    /// The names of the local contexts that the graph reads.
    pub contexts: BTreeSet<String>,
    /// Build arguments that no ARG declares.
    pub unused_build_args: Vec<UnusedBuildArg>,
    /// Findings that do not stop the build.
    pub warnings: Vec<Diagnostic>,
}

/// A `--build-arg` that no ARG declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedBuildArg {
    /// Its name.
    pub name: String,
    /// An ARG of the file with a similar name.
    pub suggestion: Option<String>,
}

/// Lowers a parsed Dockerfile. Errors come all at once where possible. An error that has no place in the file,
/// such as an unknown target stage, has an empty span.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
) -> Result<Lowered, Vec<Diagnostic>> {
    crate::images::placeholder(dockerfile, options, resolver)
}
