//! What can go wrong with a container.

use std::io;
use std::path::PathBuf;

use crate::volume::VolumeError;

/// Result with a container's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the container cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as the end of "cannot …".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The name is taken.
    #[error(
        "the container name {name:?} is in use by container {id}; remove that one, or choose another name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The name has characters that a name may not have.
    #[error("invalid container name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// No container has this name or id.
    #[error("no such container: {0}")]
    NotFound(String),
    /// Several containers have an id that begins like this.
    #[error("container id prefix {0:?} is ambiguous")]
    Ambiguous(String),
    /// The container runs.
    #[error("container {0} is running; stop it first, or force")]
    Running(String),
    /// There is nothing to run.
    #[error("no command given, and the image has none")]
    NoCommand,
    /// A `--volume` value is wrong.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The user is not known to the image.
    #[error(transparent)]
    User(#[from] kiln_tree::accounts::AccountError),
    /// The sandbox could not be set up or the command could not be started.
    #[error(transparent)]
    Sandbox(#[from] kiln_executor::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// A file tree could not be read or written.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The container's state cannot be understood.
    #[error("damaged {}", path.display())]
    State {
        /// The state's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Docker's exit code of `run` for this failure: 125, or 126 and 127 for a command that cannot be run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sandbox(error) => error.exit_code(),
            _ => 125,
        }
    }
}

pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
