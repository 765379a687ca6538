//! What can go wrong when a tree is read or changed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::{FormatError, TreePath};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when a tree is read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `create directory`.
        operation: &'static str,
        /// On which path; inside a [`crate::Root`] it is relative to that.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file was changed by somebody each time that it was read.
    #[error("{path} keeps changing while it is read")]
    Unstable {
        /// The file.
        path: TreePath,
    },
    /// A layer was made with overlayfs features that leave content elsewhere.
    #[error("{path} has the attribute {attribute}: its content is not in this layer")]
    ForeignLayer {
        /// The path.
        path: TreePath,
        /// The attribute that says so.
        attribute: String,
    },
    /// A path with a NUL byte, which no file system has.
    #[error("path {path:?} has a NUL byte")]
    Nul {
        /// The path.
        path: String,
    },
    /// A stored listing is damaged or foreign.
    #[error("read listing")]
    Format(#[from] FormatError),
}

impl Error {
    /// The system's error, if that is what this is.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The kind of the system's error, `Other` for all else.
    pub fn kind(&self) -> io::ErrorKind {
        self.io().map_or(io::ErrorKind::Other, io::Error::kind)
    }
}

/// Turns a system's error on `path` into an [`Error`]: for `map_err`.
pub(crate) fn io_error<'a, E: Into<io::Error>>(
    operation: &'static str,
    path: &'a [u8],
) -> impl FnOnce(E) -> Error + use<'a, E> {
    move |source| Error::Io {
        operation,
        path: PathBuf::from(OsStr::from_bytes(path)),
        source: source.into(),
    }
}
