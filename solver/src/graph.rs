//! The build graph: vertices that carry operations, edges that say whose output goes where.
//!
//! The operations are shaped like BuildKit's LLB (source, exec, file, merge, diff) so that other frontends
//! fit on the same engine. Nothing here names a Dockerfile keyword, and nothing here holds a path of the
//! host: an operation is plain data that could be sent to another machine.

use std::fmt;

use kiln_image::{Descriptor, Digest, Platform};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};

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
}

/// Where outside content comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// Nothing at all: an empty root file system (`FROM scratch`).
    Scratch,
    /// An image whose manifest was resolved beforehand.
    Image(ImageSource),
    /// A local directory that the request of the build names.
    Local(LocalSource),
    /// One file from a server, whose content is known beforehand.
    Http(HttpSource),
    /// The files of a commit that was looked up beforehand.
    Git(GitSource),
}

/// A file from a server. Its result is one layer with this file in its root, for root alone to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where it is.
    pub url: String,
    /// Its content.
    pub digest: Digest,
    /// What it is called in the layer.
    pub name: String,
    /// What the server says about its time, in seconds since 1970. Not known for a file whose content was named
    /// beforehand: its server need not be asked.
    pub modified: Option<u64>,
    /// It was downloaded a moment ago, when its content was looked up: its result is there, and yet new.
    #[serde(default)]
    pub fresh: bool,
}

/// The files of a commit. Its result is one layer with them in its root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository, as git is given it.
    pub remote: String,
    /// The commit's full hash.
    pub commit: String,
    /// The full name of the reference that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The hash of the annotated tag that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The directory that is wanted; empty for all.
    #[serde(default)]
    pub subdirectory: String,
    /// `.git` stays.
    #[serde(default)]
    pub keep_git_dir: bool,
    /// Submodules come along.
    pub submodules: bool,
    /// The files have the commit's time and not that of their checkout.
    #[serde(default)]
    pub commit_time: bool,
}

/// A resolved image: everything that is needed to have its layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageSource {
    /// Canonical reference as asked for, such as `docker.io/library/busybox:latest`.
    pub reference: String,
    /// Digest of the platform's manifest, or of the configuration for an image that was built or imported
    /// here and has no manifest yet.
    pub digest: Digest,
    /// The layers, bottom first.
    pub layers: Vec<SourceLayer>,
}

/// A layer of an [`ImageSource`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceLayer {
    /// Identity in the store.
    pub layer: kiln_cache::LayerId,
    /// Digest of the uncompressed layer tar.
    pub diff_id: Digest,
    /// The compressed blob in the registry, when there is one.
    pub blob: Option<Descriptor>,
}

/// A local directory, by the name under which the request lists it (`context` is the main one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// The context's name.
    pub name: String,
}

impl GitSource {
    /// Whether the result has a `.git`: a directory of a repository never has.
    pub fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir && self.subdirectory.is_empty()
    }
}

/// A process in a sandbox; what it changes in its root becomes a layer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// The environment as `NAME=value`, in order. All of it is part of the key.
    pub env: Vec<String>,
    /// Environment that is given to the process but is no part of the key (proxy settings).
    pub unkeyed_env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty means root. Resolved against the root's own files.
    pub user: String,
    /// Which network the process sees.
    pub network: NetworkMode,
    /// Files put into the sandbox read-only for this process alone; they never reach the layer.
    pub files: Vec<SandboxFile>,
    /// What is mounted over the root for this process alone, by ascending target; no target stands twice.
    pub mounts: Vec<Mount>,
    /// What the process may do to the machine.
    pub security: SecurityMode,
    /// The host name that the process sees; the engine's own, the same on every machine, when absent.
    pub hostname: Option<String>,
    /// Names in the process's `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
}

/// What the process of an [`Exec`] may do to the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityMode {
    /// What a container may do.
    #[default]
    Sandbox,
    /// Everything that the engine itself may do: all capabilities, no system call filter, nothing masked.
    Insecure,
}

/// A name in `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name. It is part of the key.
    pub name: String,
    /// What it stands for. It is no part of the key: where a machine is must not decide what is built on it.
    pub address: std::net::IpAddr,
}

/// A resource limit of a process, as `setrlimit` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The name without `RLIMIT_`, in small letters: `nofile`.
    pub name: String,
    /// What the process begins with; -1 for no limit.
    pub soft: i64,
    /// How far it may raise that; -1 for no limit.
    pub hard: i64,
}

/// Something mounted over the root of an [`Exec`]. Nothing of it reaches the layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the sandbox, without `.`, `..` and double slashes; never the root itself.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// The process cannot write to it.
    pub read_only: bool,
    /// Where the mount was written, for messages.
    pub span: Option<SourceSpan>,
}

/// The kinds of mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of another input. Writes, where the mount is not read-only, are thrown away.
    Bind {
        /// The input slot (never 0).
        input: usize,
        /// Path below the input's root, without a leading slash; empty for the root. No wildcards.
        source: String,
    },
    /// A directory that outlives the build. What makes two of them the same: all but `sharing`.
    Cache {
        /// Keeps caches of equal ids apart; empty unless the request says otherwise.
        namespace: String,
        /// Its name.
        id: String,
        /// What processes do that want it at the same time.
        sharing: Sharing,
        /// The input slot that a new directory is filled from (never 0).
        input: Option<usize>,
        /// Path below that input's root.
        source: String,
        /// Permission bits of the new directory; 0755, or those of the source, when absent.
        mode: Option<u32>,
        /// Owner of the new directory; root, or that of the source, when absent.
        uid: Option<u32>,
        /// Group of the new directory; root, or that of the source, when absent.
        gid: Option<u32>,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Limit in bytes; the kernel's own (half of the memory) when absent.
        size: Option<u64>,
    },
    /// A secret of the request, as a file at the target, as an environment variable, or both.
    Secret {
        /// Which secret.
        id: String,
        /// The variable that holds it.
        environment: Option<String>,
        /// Whether there is a file. If not, the target means nothing.
        file: bool,
        /// The step fails when the request has no such secret.
        required: bool,
        /// Permission bits of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The socket of an SSH agent that the request offers.
    Ssh {
        /// Which agent.
        id: String,
        /// The step fails when the request has no such agent.
        required: bool,
        /// Permission bits of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// What processes do that want the same cache directory at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// All use it at once.
    #[default]
    Shared,
    /// Each gets a directory of its own.
    Private,
    /// One waits for the other.
    Locked,
}

impl MountKind {
    /// The type's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Cache { .. } => "cache",
            Self::Tmpfs { .. } => "tmpfs",
            Self::Secret { .. } => "secret",
            Self::Ssh { .. } => "ssh",
        }
    }

    /// The input slot that the mount takes its content from.
    pub fn input(&self) -> Option<usize> {
        match self {
            Self::Bind { input, .. } => Some(*input),
            Self::Cache { input, .. } => *input,
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}

/// The network of an [`Exec`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// What the request chose for the whole build.
    #[default]
    Default,
    /// The host's network.
    Host,
    /// Loopback alone.
    None,
}

/// A file that a sandbox sees read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFile {
    /// Absolute path inside the sandbox.
    pub path: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A chain of file actions, applied in order to the base in slot 0; together they make one layer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One change of files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FileAction {
    /// Copies from another input.
    Copy(Copy),
    /// Makes a directory and its missing parents; an existing one is left alone.
    MakeDirectory(MakeDirectory),
    /// Writes a file.
    MakeFile(MakeFile),
}

/// Copies files into the base. Semantics: Docker's `COPY` and `ADD`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// The input slot that is copied from (never 0).
    pub from: usize,
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Absolute destination; a trailing slash means a directory.
    pub destination: String,
    /// The new owner as written (`user[:group]`), resolved against the base's own files.
    pub owner: Option<String>,
    /// The new mode as written, octal or symbolic.
    pub mode: Option<String>,
    /// Local tar archives are unpacked (`ADD`).
    pub unpack: bool,
}

/// One source of a [`struct@Copy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// Path below the input's root; with wildcards as in Go's `filepath.Match`.
    pub pattern: String,
    /// Where this source was written, for messages.
    pub span: Option<SourceSpan>,
}

/// Makes a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Absolute path.
    pub path: String,
    /// Permission bits of each directory that is made.
    pub mode: u32,
    /// Owner as `user[:group]`, resolved against the base's own files; empty means root.
    pub owner: String,
}

/// Writes a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeFile {
    /// Absolute path; a trailing slash or an existing directory takes `name` below it.
    pub destination: String,
    /// The file's name when the destination is a directory.
    pub name: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// New mode as written, octal or symbolic; 0644 when absent.
    pub mode: Option<String>,
    /// The new owner as written, resolved against the base's own files; root when absent.
    pub owner: Option<String>,
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
