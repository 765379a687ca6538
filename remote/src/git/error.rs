//! What can go wrong with a repository.

use std::path::PathBuf;

use crate::caller::SecretError;

/// Why a repository gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The machine has no git.
    #[error("the program git is needed for {remote} and was not found")]
    NoProgram {
        /// What it was needed for.
        remote: String,
    },
    /// Git cannot be started.
    #[error("start git")]
    Start(#[source] std::io::Error),
    /// Git failed.
    #[error("git {action} {remote}: {}", message.trim())]
    Failed {
        /// What it was to do.
        action: &'static str,
        /// The remote, without password.
        remote: String,
        /// The end of what git said.
        message: String,
    },
    /// The remote has no such reference.
    #[error("repository {remote} does not contain ref {reference}")]
    NoReference {
        /// The remote.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// The commit is another than the checksum says.
    #[error("expected checksum of {remote} to match {expected}, got {actual}")]
    Checksum {
        /// The remote.
        remote: String,
        /// The checksum.
        expected: String,
        /// What the reference points at: `<hash>`, or `<tag's hash> or <commit's hash>`.
        actual: String,
    },
    /// The remote does not give the commit away.
    #[error("commit {commit} is not in {remote}, or its server does not give it")]
    NoCommit {
        /// The remote.
        remote: String,
        /// The commit.
        commit: String,
    },
    /// The wanted directory is none.
    #[error("{subdirectory:?} is no directory of {remote}")]
    Subdirectory {
        /// The remote.
        remote: String,
        /// The directory.
        subdirectory: String,
    },
    /// A submodule cannot be fetched.
    #[error("submodule {path:?} of {remote}: {reason}")]
    Submodule {
        /// The repository that it belongs to.
        remote: String,
        /// Its place.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Git said something that it never says.
    #[error("git {action} {remote} gave an answer that cannot be read")]
    Answer {
        /// What it was to do.
        action: &'static str,
        /// The remote.
        remote: String,
    },
    /// A file or directory of our own.
    #[error("{action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The caller does not want it any more.
    #[error("canceled")]
    Canceled,
}

/// What git says, and what helps.
const HINTS: &[(&str, &str)] = &[
    (
        "could not read Username",
        "it may be private: give a token as secret GIT_AUTH_TOKEN, or set up a credential helper of git",
    ),
    (
        "Authentication failed",
        "check the token in the secret GIT_AUTH_TOKEN, or the credential helper of git",
    ),
    (
        "Repository not found",
        "check the address; if the repository is private, give a token as secret GIT_AUTH_TOKEN",
    ),
    (
        "Permission denied (publickey",
        "load a key into the SSH agent (ssh-add) that this server knows",
    ),
    (
        "Host key verification failed",
        "the server's key has changed, or ~/.ssh/known_hosts is wrong",
    ),
    (
        "Could not resolve host",
        "check the network: the host name was not found",
    ),
    ("unable to access", "check the network and the proxy settings"),
    ("cannot run ssh", "install the package openssh-client"),
    (
        "remote-https' is not a git command",
        "install git with HTTPS support",
    ),
];

impl GitError {
    /// What the user can do about it, when something is known to help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoProgram { .. } => {
                Some("install the package git (apt-get install git, apk add git, dnf install git)".to_owned())
            }
            Self::Failed { message, .. } => HINTS
                .iter()
                .find(|(said, _)| message.contains(said))
                .map(|(_, hint)| (*hint).to_owned()),
            Self::NoReference { .. } => Some("a branch, a tag or a full commit hash is expected".to_owned()),
            _ => None,
        }
    }
}
