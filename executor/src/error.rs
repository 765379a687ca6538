//! What can go wrong between a specification and a running process.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cgroup::CgroupError;
use crate::namespace::NamespaceError;
use crate::overlay::OverlayError;
use crate::seccomp::SeccompError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The process could not enter its namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The root could not be mounted.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A resource limit could not be applied.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The seccomp profile cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The specification asks for something impossible or unknown.
    #[error("invalid sandbox specification: {reason}")]
    Spec {
        /// What is wrong, naming the field.
        reason: String,
    },
    /// The sandbox could not be set up around the command.
    #[error("cannot set up the sandbox: {action}: {source}")]
    Setup {
        /// What was attempted, naming the path.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The sandbox is fine, the command is not.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The sandbox process died before it could execute the command.
    #[error("the sandbox process ended during setup ({status})")]
    DiedDuringSetup {
        /// How it ended.
        status: crate::ExitStatus,
    },
    /// The sandbox process sent something that is not part of the protocol.
    #[error("unexpected message from the sandbox process: {reason}")]
    Protocol {
        /// What was expected and what came.
        reason: String,
    },
    /// A system call in the parent failed.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// The exit code that Docker gives for this failure: 125 for the engine's own, 126 for a
    /// command that cannot be executed, 127 for one that is not there.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command(command) => command.exit_code(),
            _ => 125,
        }
    }

    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action: action.into(),
            source: source.into(),
        }
    }

    pub(crate) fn spec(reason: impl Into<String>) -> Self {
        Self::Spec {
            reason: reason.into(),
        }
    }
}

/// Why a command cannot be executed in an otherwise complete sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CommandError {
    /// The specification has no arguments.
    #[error("no command given")]
    Empty,
    /// No such file, or none in `$PATH`.
    #[error("{command}: executable file not found{}", in_path(path.as_ref()))]
    NotFound {
        /// First argument as given.
        command: String,
        /// The `PATH` that was searched, when one was.
        path: Option<String>,
    },
    /// The file is there but its interpreter (`#!` line or ELF loader) is not.
    #[error("{command}: its interpreter {interpreter} is not in the image")]
    BadInterpreter {
        /// Path of the file.
        command: String,
        /// The interpreter it names.
        interpreter: String,
    },
    /// Permission denied, a directory, or not a program of this machine.
    #[error("{command}: cannot execute: {reason}")]
    NotExecutable {
        /// Path of the file.
        command: String,
        /// Cause in the kernel's words.
        reason: String,
    },
    /// The working directory does not exist or cannot be entered.
    #[error("working directory {}: {reason}", cwd.display())]
    CwdMissing {
        /// The directory.
        cwd: PathBuf,
        /// Cause in the kernel's words.
        reason: String,
    },
}

fn in_path(path: Option<&String>) -> String {
    path.map(|path| format!(" in PATH ({path})")).unwrap_or_default()
}

impl CommandError {
    /// 126 or 127, as Docker gives them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotExecutable { .. } => 126,
            Self::NotFound { .. } | Self::BadInterpreter { .. } | Self::CwdMissing { .. } => 127,
            Self::Empty => 125,
        }
    }
}
