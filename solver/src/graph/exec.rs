//! The operation that runs a process, and what the process is given.

use serde::{Deserialize, Serialize};

use super::SourceSpan;

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
