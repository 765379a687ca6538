//! The standard streams of a sandboxed process.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// Where the process's standard input, output and error lead.
#[derive(Debug)]
pub enum Stdio {
    /// Three independent streams. Bytes pass unchanged; a partial last line stays partial.
    Streams {
        /// Standard input.
        stdin: Stream,
        /// Standard output.
        stdout: Stream,
        /// Standard error.
        stderr: Stream,
    },
    /// A new pseudo-terminal of the container's own devpts; it is the controlling terminal and
    /// `/dev/console`. The master is [`crate::Running::terminal`].
    Terminal(Option<WindowSize>),
}

impl Stdio {
    /// No input, output and error through pipes: what a RUN step wants.
    pub fn piped() -> Self {
        Self::Streams {
            stdin: Stream::Null,
            stdout: Stream::Pipe,
            stderr: Stream::Pipe,
        }
    }
}

/// One standard stream.
#[derive(Debug)]
pub enum Stream {
    /// `/dev/null`.
    Null,
    /// The calling process's own stream.
    Inherit,
    /// A pipe whose other end is in [`crate::Running`].
    Pipe,
    /// An open file of the caller.
    Fd(OwnedFd),
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}
