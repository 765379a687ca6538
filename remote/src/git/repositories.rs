//! The repositories that were fetched before, and what is asked of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::address::{GitAddress, Modified};
use super::credentials::{self, Config};
use super::error::GitError;
use super::program::Program;
use super::{checkout, lookup};
use crate::caller::Caller;

/// Variables that git gets from its user, where they are set. [`GitSettings::environment`] is to hold these and
/// no others: what else the environment says about git is meant for the user's own repositories.
pub const USER_ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];

/// How git is run.
#[derive(Debug, Clone, Default)]
pub struct GitSettings {
    /// Its environment: see [`USER_ENVIRONMENT`].
    pub environment: Vec<(OsString, OsString)>,
    /// Repositories in the file system may be fetched from, too (`file://`). For tests.
    pub allow_files: bool,
}

/// A reference that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedCommit {
    /// The commit's full hash.
    pub commit: String,
    /// The hash of the annotated tag that leads to it.
    pub tag: Option<String>,
    /// The full name of the reference, `refs/heads/main`; `None` when a hash was asked for.
    pub reference: Option<String>,
}

/// What is to be checked out.
#[derive(Debug, Clone)]
pub struct Checkout<'a> {
    /// The remote.
    pub remote: &'a str,
    /// The commit's full hash.
    pub commit: &'a str,
    /// The reference that led there: a way to the commit for servers that give out references only, and a
    /// name in a `.git` that is kept.
    pub reference: Option<&'a str>,
    /// The hash of the annotated tag that led there.
    pub tag: Option<&'a str>,
    /// The directory that is wanted; empty for all.
    pub subdirectory: &'a str,
    /// `.git` stays. Without effect when a subdirectory is wanted.
    pub keep_git_dir: bool,
    /// Submodules come along.
    pub submodules: bool,
    /// The files' times.
    pub modified: Modified,
}

/// Repositories, each in a folder of its own below one, shared by any number of processes.
#[derive(Debug)]
pub struct Repositories {
    pub(super) folder: PathBuf,
    pub(super) settings: GitSettings,
    /// What of the user's own configuration counts; read once.
    user: OnceLock<Config>,
}

impl Repositories {
    /// Repositories kept in `folder`, which is made when it is first needed.
    pub fn new(folder: PathBuf, settings: GitSettings) -> Self {
        Self {
            folder,
            settings,
            user: OnceLock::new(),
        }
    }

    /// Finds the commit of an address. The remote is asked unless the address has the commit's hash.
    pub fn resolve(&self, address: &GitAddress, caller: Caller<'_>) -> Result<ResolvedCommit, GitError> {
        if let Some(commit) = address.commit() {
            return known(address, commit);
        }
        let program = self.program(caller);
        let config = self.config(program, &address.remote, &address.remote)?;
        let found = lookup::reference(program, &address.remote, address.reference.as_deref(), &config)?;
        if let Some(expected) = &address.checksum {
            let matches = |hash: &str| hash.starts_with(expected.as_str());
            if !matches(&found.commit) && !found.tag.as_deref().is_some_and(matches) {
                return Err(GitError::Checksum {
                    remote: address.public_remote(),
                    expected: expected.clone(),
                    actual: match &found.tag {
                        Some(tag) => format!("{tag} (the tag) or {} (its commit)", found.commit),
                        None => found.commit,
                    },
                });
            }
        }
        Ok(found)
    }

    /// Puts the files of a commit into `into`, an empty directory: directories and programs 0755, other files
    /// 0644. What is missing is fetched.
    pub fn check_out(&self, wanted: &Checkout<'_>, into: &Path, caller: Caller<'_>) -> Result<(), GitError> {
        checkout::run(self, wanted, into, caller)
    }

    pub(super) fn program<'a>(&'a self, caller: Caller<'a>) -> Program<'a> {
        Program {
            settings: &self.settings,
            caller,
        }
    }

    pub(super) fn config(&self, program: Program<'_>, remote: &str, main: &str) -> Result<Config, GitError> {
        credentials::for_remote(program, &self.user, remote, main)
    }
}

/// The commit of an address that has its hash.
fn known(address: &GitAddress, commit: &str) -> Result<ResolvedCommit, GitError> {
    if let Some(expected) = &address.checksum
        && !commit.starts_with(expected.as_str())
    {
        return Err(GitError::Checksum {
            remote: address.public_remote(),
            expected: expected.clone(),
            actual: commit.to_owned(),
        });
    }
    let reference = address.reference.as_deref().filter(|name| *name != commit);
    Ok(ResolvedCommit {
        commit: commit.to_owned(),
        tag: None,
        // Without the remote's word a short name is a branch: git prefers those.
        reference: reference.map(|name| match name.strip_prefix("refs/") {
            Some(_) => name.to_owned(),
            None => format!("refs/heads/{name}"),
        }),
    })
}
