//! The local directories of a build: which of their files count, and what an ignore file leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kiln_parser::ignore::IgnoreFile;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, ContextPolicy, Engine, LocalContext, LocalKind, SolveError};
use kiln_tree::TreePath;
use kiln_tree::walk::{Decision, WalkPolicy};

use crate::MAIN_CONTEXT;
use crate::build::{BuildError, BuildRequest, MainContext};
use crate::contexts::ContextValue;
use crate::fetch::{Fetch, FetchError, FetchedContext, RemoteContext, fetch_context};

/// The ignore file of a directory.
const IGNORE_FILE: &str = ".dockerignore";

/// The main build context.
pub(crate) fn main(request: &BuildRequest, ignore: Option<Arc<IgnoreFile>>) -> LocalContext {
    let (directory, kind) = match &request.context {
        MainContext::Directory(path) => (path, LocalKind::Directory),
        MainContext::Fetched { directory, kind, .. } => (directory, *kind),
    };
    LocalContext {
        title: "the build context".to_owned(),
        directory: directory.clone(),
        kind,
        policy: match ignore {
            None => Arc::new(Everything),
            Some(file) => Arc::new(Ignoring { file }),
        },
    }
}

/// The ignore file of the main build context.
pub(crate) fn ignore_file(
    request: &BuildRequest,
    reporter: &Reporter,
) -> Result<Option<Arc<IgnoreFile>>, BuildError> {
    let file = request.ignore.as_ref();
    file.map(|(name, bytes)| read_ignore_file("[internal]", name, bytes, reporter))
        .transpose()
}

/// The local directories of a build.
#[derive(Debug)]
pub(crate) struct Locals {
    /// By name.
    pub(crate) contexts: BTreeMap<String, LocalContext>,
    /// What the directories of some of them go with.
    _fetched: Vec<FetchedContext>,
}

/// The contexts called `names`, the main one among them. Of the others, no file was looked at before.
pub(crate) fn all(
    engine: &Engine,
    main: LocalContext,
    names: &BTreeSet<String>,
    request: &BuildRequest,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Locals, BuildError> {
    let mut contexts = BTreeMap::from([(MAIN_CONTEXT.to_owned(), main)]);
    let mut all_fetched = Vec::new();
    for name in names {
        let context = match request.options.contexts.get(name) {
            Some(ContextValue::Directory(directory)) => named(name, directory, reporter)?,
            Some(ContextValue::Remote(remote)) => {
                let fetched = fetch(engine, name, remote, request, reporter, cancel)?;
                let context = LocalContext {
                    title: title(name),
                    directory: fetched.path().to_owned(),
                    kind: fetched.kind(),
                    policy: Arc::new(Everything),
                };
                all_fetched.push(fetched);
                context
            }
            _ => continue,
        };
        contexts.insert(name.clone(), context);
    }
    Ok(Locals {
        contexts,
        _fetched: all_fetched,
    })
}

fn fetch(
    engine: &Engine,
    name: &str,
    context: &RemoteContext,
    request: &BuildRequest,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<FetchedContext, BuildError> {
    let fetch = Fetch {
        whose: &format!("[context {name}]"),
        keep_git_dir: false,
        commit_time: false,
        credentials: &*request.credentials,
        reporter,
        cancel,
    };
    fetch_context(engine, context, &fetch).map_err(|source| match source {
        FetchError::Canceled => BuildError::Solve(SolveError::Canceled),
        source => BuildError::Context {
            name: name.to_owned(),
            source,
        },
    })
}

/// What messages call a named context.
fn title(name: &str) -> String {
    format!("the context {name:?}")
}

/// A named context. The file `<Dockerfile>.dockerignore` is not for it, only its own `.dockerignore`.
fn named(name: &str, directory: &Path, reporter: &Reporter) -> Result<LocalContext, BuildError> {
    let path = directory.join(IGNORE_FILE);
    let shown = path.to_string_lossy();
    let policy: Arc<dyn ContextPolicy> = match std::fs::read(&path) {
        Ok(bytes) => {
            let file = read_ignore_file(&format!("[context {name}]"), &shown, &bytes, reporter)?;
            Arc::new(Ignoring { file })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Arc::new(Everything),
        Err(error) => {
            return Err(BuildError::Ignore {
                name: shown.into_owned(),
                message: error.to_string(),
            });
        }
    };
    Ok(LocalContext {
        title: title(name),
        directory: directory.to_owned(),
        kind: LocalKind::Directory,
        policy,
    })
}

/// Reads an ignore file as a task of the build. `name` is for messages.
fn read_ignore_file(
    whose: &str,
    name: &str,
    bytes: &[u8],
    reporter: &Reporter,
) -> Result<Arc<IgnoreFile>, BuildError> {
    let mut task = reporter.announce(format!("{whose} load {IGNORE_FILE}"), Vec::new(), None);
    task.start();
    let file = IgnoreFile::parse(bytes, name).map_err(|error| {
        task.failed(error.to_string());
        BuildError::Ignore {
            name: name.to_owned(),
            message: error.to_string(),
        }
    })?;
    let size = bytes.len() as u64;
    task.progress("transferring context", size, Some(size), true);
    task.done();
    Ok(Arc::new(file))
}

/// A context without an ignore file.
#[derive(Debug)]
struct Everything;

impl WalkPolicy for Everything {
    fn decide(&self, _path: &TreePath, _is_dir: bool) -> Decision {
        Decision::Include
    }
}

impl ContextPolicy for Everything {
    fn why_excluded(&self, _path: &TreePath) -> Option<String> {
        None
    }
}

/// A context less what an ignore file names.
#[derive(Debug)]
struct Ignoring {
    file: Arc<IgnoreFile>,
}

impl WalkPolicy for Ignoring {
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision {
        if !self.file.matches(path.as_bytes()).excluded {
            Decision::Include
        } else if is_dir && self.file.could_reinclude_below(path.as_bytes()) {
            Decision::ExcludeButDescend
        } else {
            Decision::Prune
        }
    }
}

impl ContextPolicy for Ignoring {
    fn why_excluded(&self, path: &TreePath) -> Option<String> {
        let verdict = self.file.matches(path.as_bytes());
        let (line, pattern) = verdict.pattern.filter(|_| verdict.excluded)?;
        Some(format!("{}:{line} ({pattern})", self.file.name()))
    }
}
