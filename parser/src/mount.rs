//! `RUN --mount`: its options as written, and the typed mount that they make once expanded.

use crate::ast::Word;
use crate::span::{Span, Spanned};

/// A `--mount` as written: options in order, values not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value as a whole.
    pub span: Span,
    /// The options in order.
    pub options: Vec<MountOption>,
}

/// One option of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// Which option (aliases resolved), and where its key stands.
    pub key: Spanned<MountKey>,
    /// Its value, to be expanded (except `from`); none for a bare `required`, `ro`, `rw`.
    pub value: Option<Word>,
}

/// The five types of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Docker's own")]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// The keys of mount options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Docker's own")]
pub enum MountKey {
    Type,
    Target,
    Source,
    From,
    ReadOnly,
    ReadWrite,
    Id,
    Sharing,
    Required,
    Size,
    Mode,
    Uid,
    Gid,
    Env,
}

/// How builds that run at the same time share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All use the directory at once.
    #[default]
    Shared,
    /// Each gets a directory of its own when the first is in use.
    Private,
    /// The second waits.
    Locked,
}

/// A mount with its values expanded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSpec {
    /// A read-only (or scratch-writable) view of the context or of another stage.
    Bind {
        /// Mount point; relative to the working directory.
        target: String,
        /// Path inside `from`.
        source: Option<String>,
        /// Stage, named context or image; the build context when absent.
        from: Option<String>,
        /// Writes are allowed and thrown away.
        read_write: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Mount point; relative to the working directory.
        target: String,
        /// Identity; the cleaned target when absent.
        id: Option<String>,
        /// What concurrent builds do.
        sharing: Sharing,
        /// Stage, named context or image whose content the new cache starts with.
        from: Option<String>,
        /// Path inside `from`.
        source: Option<String>,
        /// Mode of the new directory.
        mode: Option<u32>,
        /// Owner of the new directory.
        uid: Option<u32>,
        /// Group of the new directory.
        gid: Option<u32>,
        /// No writes.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Mount point.
        target: String,
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, a variable, or both.
    Secret {
        /// Which secret.
        id: String,
        /// File path; `/run/secrets/<id>` when neither this nor `env` is given.
        target: Option<String>,
        /// Variable that holds the secret.
        env: Option<String>,
        /// A missing secret fails the build.
        required: bool,
        /// Mode of the file (0400 when absent).
        mode: Option<u32>,
        /// Owner of the file.
        uid: Option<u32>,
        /// Group of the file.
        gid: Option<u32>,
    },
    /// The forwarded SSH agent socket.
    Ssh {
        /// Which agent (`default` when absent).
        id: Option<String>,
        /// Socket path.
        target: Option<String>,
        /// A missing agent fails the build.
        required: bool,
        /// Mode of the socket (0600 when absent).
        mode: Option<u32>,
        /// Owner of the socket.
        uid: Option<u32>,
        /// Group of the socket.
        gid: Option<u32>,
    },
}
