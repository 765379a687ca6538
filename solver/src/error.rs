//! Why a build's graph could not be solved.

use std::path::PathBuf;

use kiln_tree::TreePath;
use kiln_tree::accounts::AccountError;

use crate::context::ContextError;
use crate::diff_ids::DiffIdError;
use crate::graph::{Graph, SourceSpan, VertexId};
use crate::platform::CannotRun;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{name}")]
pub struct StepError {
    /// The step as a person sees it.
    pub name: String,
    /// The place that it came from.
    pub span: Option<SourceSpan>,
    /// The cause.
    #[source]
    pub cause: StepFailure,
}

/// How a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepFailure {
    /// The process did not succeed.
    #[error("process {command:?} did not complete successfully: {status}")]
    Process {
        /// The command as written.
        command: String,
        /// `exit code: 1`, `killed by SIGKILL`.
        status: String,
        /// The exit code, 128 + the number for a signal.
        code: i32,
        /// The kernel killed it, or a process of it, because it used more memory than the request allows.
        out_of_memory: bool,
        /// The store's file system was full when it ended: not every program says so.
        disk_full: bool,
        /// The last lines of its output.
        last_output: Vec<String>,
        /// Where the whole output is kept.
        log: Option<PathBuf>,
    },
    /// The request has no such secret, and the step requires it.
    #[error("secret {id}: not found")]
    MissingSecret {
        /// Its id.
        id: String,
        /// Where the mount was written.
        span: Option<SourceSpan>,
    },
    /// A secret was passed and cannot be had.
    #[error("{source}")]
    Secret {
        /// Why.
        source: crate::secret::SecretError,
        /// Where the mount was written.
        span: Option<SourceSpan>,
    },
    /// The request has no such SSH agent, and the step requires it.
    #[error("unset ssh forward key {id}")]
    MissingAgent {
        /// Its id.
        id: String,
        /// Where the mount was written.
        span: Option<SourceSpan>,
    },
    /// An SSH agent was passed and cannot be used.
    #[error("{source}")]
    Agent {
        /// Why.
        source: crate::ssh::AgentError,
        /// Where the mount was written.
        span: Option<SourceSpan>,
    },
    /// A resource limit cannot be set as asked.
    #[error(transparent)]
    Limit(#[from] crate::limits::LimitError),
    /// The sandbox could not be set up or the command could not be started.
    #[error("failed to run {command:?}")]
    Sandbox {
        /// The command as written.
        command: String,
        /// The cause.
        #[source]
        source: kiln_executor::Error,
    },
    /// The process is of another platform, and nothing on this machine runs it.
    #[error(transparent)]
    Platform(#[from] CannotRun),
    /// A copy's source is not there.
    #[error("\"/{path}\": not found in {place}")]
    SourceNotFound {
        /// The path as the source tree would have it.
        path: TreePath,
        /// What was looked through, such as `the build context`.
        place: String,
        /// Which rule of an ignore file hides it.
        ignored_by: Option<String>,
        /// Names beside it that resemble it.
        similar: Vec<String>,
        /// Where this source was written.
        span: Option<SourceSpan>,
    },
    /// A copy's source cannot be looked up.
    #[error("{message}")]
    Source {
        /// What is wrong.
        message: String,
        /// Where this source was written.
        span: Option<SourceSpan>,
    },
    /// Files of the build context were changed again and again while the step copied them.
    #[error("\"/{path}\" changed while it was copied from the build context ({attempts} attempts)")]
    SourceChanged {
        /// A file that changed.
        path: TreePath,
        /// How often the step was begun.
        attempts: u32,
    },
    /// Copying failed.
    #[error("failed to copy to {destination}")]
    Copy {
        /// The destination as written.
        destination: String,
        /// The cause.
        #[source]
        source: kiln_tree::copy::CopyError,
    },
    /// An archive cannot be unpacked.
    #[error("failed to unpack {path}")]
    Unpack {
        /// The archive.
        path: TreePath,
        /// The cause.
        #[source]
        source: kiln_image::layer::LayerError,
    },
    /// A `--chmod` value is malformed.
    #[error(transparent)]
    Mode(#[from] kiln_tree::copy::ModeParseError),
    /// A user or group is not known.
    #[error(transparent)]
    User(#[from] AccountError),
    /// A directory or file of the step's root could not be read or written.
    #[error("failed to change the step's files")]
    Files(#[from] kiln_tree::Error),
    /// The root file system could not be mounted.
    #[error("failed to mount the step's root file system")]
    Mount(#[source] kiln_executor::Error),
    /// A file of the step's surroundings could not be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The build context could not be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// An image could not be fetched.
    #[error(transparent)]
    Pull(#[from] crate::image::PullError),
    /// A file or repository from elsewhere could not be fetched.
    #[error(transparent)]
    Remote(#[from] crate::remote::RemoteError),
    /// A cache from elsewhere promised a layer that cannot be had from it. The solver goes on without it.
    #[error("layer {layer} of the cache cannot be had")]
    CacheLayer {
        /// The layer.
        layer: kiln_cache::LayerId,
    },
    /// A layer's digest could not be computed.
    #[error(transparent)]
    DiffId(#[from] DiffIdError),
    /// The step was stopped because the build ends.
    #[error("canceled")]
    Canceled,
    /// The graph asks for what it cannot have: a fault of the frontend.
    #[error("internal error: {0}")]
    Graph(&'static str),
}

/// Why solving ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// A step failed; the first one, when several did.
    #[error("failed to solve: {0}")]
    Step(#[source] Box<StepError>),
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
    /// No thread could be started for a step.
    #[error("failed to start a thread for a step")]
    Thread(#[source] std::io::Error),
}

impl SolveError {
    /// The result of `vertex` cannot be had, because of a layer that a cache promised.
    pub(crate) fn lost(vertex: &crate::graph::Vertex, cause: StepFailure) -> Self {
        Self::Step(Box::new(StepError {
            name: vertex.name.clone(),
            span: vertex.span,
            cause,
        }))
    }

    /// Whether a cache's promise is all that failed.
    pub(crate) fn is_lost_layer(&self) -> bool {
        matches!(self, Self::Step(step) if matches!(step.cause, StepFailure::CacheLayer { .. }))
    }

    /// A target that nothing was made for: a fault of the solver.
    pub(crate) fn no_root(graph: &Graph, target: VertexId) -> Self {
        let name = graph
            .get(target)
            .map(|vertex| vertex.name.clone())
            .unwrap_or_default();
        Self::Step(Box::new(StepError {
            name,
            span: None,
            cause: StepFailure::Graph("the target has no root file system"),
        }))
    }
}

/// An error with its sources, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}
