//! What parent and sandbox process say to each other.
//!
//! The parent passes three descriptors by number in the arguments: the sealed plan, a socket for
//! reports, and the root. The sandbox process answers on the socket, one packet a message; the
//! socket closes when the command has been executed, which is how success is told.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::CommandError;
use crate::mountpoints::Created;

/// First argument (`argv[0]`) of the sandbox process.
pub(crate) const INIT_NAME: &str = "kiln-sandbox-init";

/// Largest packet.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// A message of the sandbox process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// These mountpoints had to be made in the root.
    Created(Vec<Created>),
    /// The process is in a new user namespace and waits for its ids: the answer is one packet with an error number,
    /// or 0.
    UserNamespace,
    /// The setup is complete; the command is about to be executed.
    Executing,
    /// The terminal's master is attached to this packet.
    Terminal,
    /// The sandbox cannot be completed. Nothing follows.
    Failed(Failure),
}

/// Why the sandbox could not be completed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// A step of the setup failed.
    Setup { action: String, errno: i32 },
    /// The command cannot be executed.
    Command(CommandError),
}

impl Failure {
    pub(crate) fn setup(action: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let action = action.into();
        match error.raw_os_error() {
            Some(errno) => Self::Setup { action, errno },
            None => Self::Setup {
                action: format!("{action}: {error}"),
                errno: libc::EINVAL,
            },
        }
    }
}

/// A path that leads to an open descriptor.
pub(crate) fn proc_fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
