//! Build contexts from elsewhere: a git repository, or an archive or a lone file at an address.
//!
//! They are fetched before anything else, since the Dockerfile is in them. A repository's files are a layer of the
//! store and stay there; an archive is downloaded once and unpacked for each build. Steps then take files from them as
//! from any directory of this machine, so that keys are made of what is taken and nothing else.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use kiln_cache::Snapshot;
use kiln_remote::git::{AddressError, Dialect, GitAddress, Modified, public_remote};
use kiln_remote::{Caller, Credentials, http};
use kiln_solver::remote::RemoteError;
use kiln_solver::task::{Reporter, Task};
use kiln_solver::{Cancel, Engine, LocalKind, chain};
use kiln_tree::Root;

use crate::instruction::remote::is_url;
use crate::unpack::{ARCHIVE_START, UnpackError, UnpackedContext, is_archive, unpack};

/// Where a context from elsewhere is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteContext {
    /// A repository.
    Git(Box<GitAddress>),
    /// A file.
    Http(String),
}

/// How a context is fetched.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// Begins the task's name: `[internal]`, `[context NAME]`.
    pub whose: &'a str,
    /// `.git` stays, when the address says nothing else.
    pub keep_git_dir: bool,
    /// Files of a repository get the commit's time.
    pub commit_time: bool,
    /// What proves to servers who asks.
    pub credentials: &'a dyn Credentials,
    /// Told of the task.
    pub reporter: &'a Reporter,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// A context that was fetched. What was made for this build alone goes with this value.
#[derive(Debug)]
pub struct FetchedContext {
    files: Files,
    lone_file: Option<String>,
}

#[derive(Debug)]
enum Files {
    Stored { directory: PathBuf, root: Root },
    Unpacked(UnpackedContext),
}

/// Why a context could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server or the repository did not give it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The archive is none, or cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
    /// A file could not be read.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// Nothing came.
    #[error("the download has no file")]
    Empty,
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
}

impl FetchError {
    /// What the user can do about it, when something is known to help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote(error) => error.hint(),
            _ => None,
        }
    }
}

impl RemoteContext {
    /// Reads an address; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        if let Some(address) = GitAddress::parse(text, Dialect::Context) {
            return Some(address.map(|address| Self::Git(Box::new(address))));
        }
        is_url(text).then(|| Ok(Self::Http(text.to_owned())))
    }

    /// What messages call it: without secrets.
    pub fn name(&self) -> String {
        match self {
            Self::Http(url) => http::public(url),
            Self::Git(address) => {
                let remote = public_remote(&address.remote);
                let reference = address.reference.as_deref().unwrap_or_default();
                match (reference, address.subdirectory.as_str()) {
                    ("", "") => remote,
                    (reference, "") => format!("{remote}#{reference}"),
                    (reference, subdirectory) => format!("{remote}#{reference}:{subdirectory}"),
                }
            }
        }
    }
}

impl FetchedContext {
    /// Where the files are.
    pub fn path(&self) -> &Path {
        match &self.files {
            Files::Stored { directory, .. } => directory,
            Files::Unpacked(unpacked) => unpacked.path(),
        }
    }

    /// The files. Symbolic links never lead out.
    pub fn root(&self) -> &Root {
        match &self.files {
            Files::Stored { root, .. } => root,
            Files::Unpacked(unpacked) => unpacked.root(),
        }
    }

    /// Whose the directory is.
    pub fn kind(&self) -> LocalKind {
        match &self.files {
            Files::Stored { .. } => LocalKind::Stored,
            Files::Unpacked(_) => LocalKind::Unpacked,
        }
    }

    /// The only file, when what was fetched is no archive: it is the Dockerfile.
    pub fn lone_file(&self) -> Option<&str> {
        self.lone_file.as_deref()
    }
}

/// Fetches a context, as a task of the build.
pub fn fetch_context(
    engine: &Engine,
    context: &RemoteContext,
    fetch: &Fetch<'_>,
) -> Result<FetchedContext, FetchError> {
    let name = match context {
        RemoteContext::Git(_) => format!("{} load git source {}", fetch.whose, context.name()),
        RemoteContext::Http(_) => format!("{} load remote build context", fetch.whose),
    };
    fetch.task(name, |task| match context {
        RemoteContext::Git(address) => git(engine, address, fetch, task),
        RemoteContext::Http(url) => file_or_archive(engine, url, fetch, task),
    })
}

/// Fetches one file of at most `limit` bytes, as a task of the build.
pub fn fetch_file(engine: &Engine, url: &str, limit: u64, fetch: &Fetch<'_>) -> Result<Vec<u8>, FetchError> {
    let name = format!("{} load {}", fetch.whose, http::public(url));
    fetch.task(name, |task| {
        let (stored, name) = download(engine, url, fetch, task)?;
        Ok(stored.root().read(&name, limit)?)
    })
}

impl Fetch<'_> {
    fn task<T>(
        &self,
        name: String,
        work: impl FnOnce(&Task) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut task = self.reporter.announce(name, Vec::new(), None);
        task.start();
        match work(&task) {
            Ok(done) => {
                task.done();
                Ok(done)
            }
            Err(_) if self.cancel.is_raised() => {
                task.canceled();
                Err(FetchError::Canceled)
            }
            Err(error) => {
                task.failed(chain(&error));
                Err(error)
            }
        }
    }

    /// Runs a transfer on behalf of the build.
    fn transfer<T>(
        &self,
        task: &Task,
        transfer: impl FnOnce(Caller<'_>) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        transfer(Caller {
            credentials: self.credentials,
            progress: &|received, total| task.progress("downloading", received, total, false),
            canceled: &|| self.cancel.is_raised(),
        })
    }
}

fn git(
    engine: &Engine,
    address: &GitAddress,
    fetch: &Fetch<'_>,
    task: &Task,
) -> Result<FetchedContext, FetchError> {
    let mut address = address.clone();
    address.keep_git_dir = address.keep_git_dir.or(Some(fetch.keep_git_dir));
    if fetch.commit_time {
        address.modified = Modified::Commit;
    }
    let source = fetch.transfer(task, |caller| engine.resolve_git(&address, caller))?;
    let snapshot = fetch.transfer(task, |caller| engine.fetch_git(&source, caller))?;
    stored(engine, &snapshot)
}

/// Downloads a file, unless it is unchanged since the last time. It is a layer of its own.
fn download(
    engine: &Engine,
    url: &str,
    fetch: &Fetch<'_>,
    task: &Task,
) -> Result<(FetchedContext, String), FetchError> {
    let source = fetch.transfer(task, |caller| engine.resolve_http(url, None, caller))?;
    let snapshot = fetch.transfer(task, |caller| engine.fetch_http(&source, caller))?;
    Ok((stored(engine, &snapshot)?, source.name))
}

fn file_or_archive(
    engine: &Engine,
    url: &str,
    fetch: &Fetch<'_>,
    task: &Task,
) -> Result<FetchedContext, FetchError> {
    let (downloaded, name) = download(engine, url, fetch, task)?;
    let mut file = downloaded.root().open_read(&name)?;
    let mut start = Vec::new();
    (&mut file)
        .take(ARCHIVE_START as u64)
        .read_to_end(&mut start)
        .map_err(UnpackError::Read)?;
    if !is_archive(&start) {
        return Ok(FetchedContext {
            lone_file: Some(name),
            ..downloaded
        });
    }
    let unpacked = unpack(engine, Cursor::new(start).chain(file), fetch.cancel, task)?;
    Ok(FetchedContext {
        files: Files::Unpacked(unpacked),
        lone_file: None,
    })
}

/// The directory of what was fetched, which is one layer.
fn stored(engine: &Engine, snapshot: &Snapshot) -> Result<FetchedContext, FetchError> {
    let layer = snapshot.layers.first().ok_or(FetchError::Empty)?;
    let directory = engine.store().layers().require(layer)?.diff_path();
    let root = Root::open(&directory)?;
    Ok(FetchedContext {
        files: Files::Stored { directory, root },
        lone_file: None,
    })
}
