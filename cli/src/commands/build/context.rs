//! What the build context is, and what the named contexts are.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use kiln_frontend::{
    ContextValue, Fetch, FetchError, FetchedContext, LowerOptions, MainContext, NamedContexts, RemoteContext,
    UnpackError, UnpackedContext,
};
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine, LocalKind};

use crate::arguments::Build;
use crate::commands::stdin::Stdin;
use crate::report::Failure;

/// Where the build context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A directory, by its canonical path.
    Directory(PathBuf),
    /// Standard input: an archive, or a Dockerfile without any context.
    Stdin,
    /// A repository or an address.
    Remote(RemoteContext),
}

/// The build context, ready to be read.
#[derive(Debug)]
pub(super) enum Context {
    /// A directory of the user's.
    Directory(PathBuf),
    /// An archive, unpacked for this build.
    Archive(UnpackedContext),
    /// Fetched from elsewhere, and what that is called.
    Remote(FetchedContext, String),
    /// Standard input was a Dockerfile, and there is nothing else.
    Dockerfile(Vec<u8>, UnpackedContext),
}

impl Context {
    /// What the build takes files from.
    pub(super) fn main(&self) -> MainContext {
        match self {
            Self::Directory(path) => MainContext::Directory(path.clone()),
            Self::Archive(files) | Self::Dockerfile(_, files) => MainContext::Fetched {
                directory: files.path().to_owned(),
                kind: LocalKind::Unpacked,
                name: "-".to_owned(),
            },
            Self::Remote(fetched, name) => MainContext::Fetched {
                directory: fetched.path().to_owned(),
                kind: fetched.kind(),
                name: name.clone(),
            },
        }
    }
}

/// Finds out where the build context comes from; reads nothing.
pub(super) fn origin(arguments: &Build) -> Result<Origin, Failure> {
    let path = &arguments.context;
    let text = path.to_string_lossy();
    if text == "-" {
        if arguments
            .file
            .as_ref()
            .is_some_and(|file| file.as_os_str() == "-")
        {
            return Err(Failure::usage(
                "build context and Dockerfile cannot both be read from standard input",
            ));
        }
        return Ok(Origin::Stdin);
    }
    if !path.is_dir()
        && let Some(remote) = RemoteContext::parse(&text)
    {
        return remote
            .map(Origin::Remote)
            .map_err(|error| Failure::usage(format!("context {text}: {error}")));
    }
    directory(path, "the build context").map(Origin::Directory)
}

/// The canonical path of a directory.
fn directory(path: &Path, what: &str) -> Result<PathBuf, Failure> {
    let absolute =
        std::fs::canonicalize(path).map_err(|error| Failure::io(&format!("open {what}"), path, error))?;
    if absolute.is_dir() {
        Ok(absolute)
    } else {
        Err(Failure::message(format!(
            "{what} {} is not a folder",
            path.display()
        )))
    }
}

/// Has the build context ready.
pub(super) fn open(
    origin: Origin,
    has_file: bool,
    options: &LowerOptions,
    engine: &Engine,
    fetch: &Fetch<'_>,
) -> Result<Context, Failure> {
    match origin {
        Origin::Directory(path) => Ok(Context::Directory(path)),
        Origin::Stdin => from_stdin(has_file, engine, fetch.reporter, fetch.cancel),
        Origin::Remote(remote) => {
            let argument = |name: &str| options.build_args.get(name).and_then(Option::as_deref);
            let fetch = Fetch {
                keep_git_dir: argument(KEEP_GIT_DIR).is_some_and(is_true),
                commit_time: argument(EPOCH).is_some_and(|epoch| !epoch.is_empty()),
                ..*fetch
            };
            let fetched = kiln_frontend::fetch_context(engine, &remote, &fetch)
                .map_err(|error| fetch_failure(&error, "the build context"))?;
            Ok(Context::Remote(fetched, remote.name()))
        }
    }
}

/// The build argument that keeps `.git` in a context from a repository.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The build argument that makes images repeatable: files of a repository then have the commit's time.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// A truth value as Go reads it.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The failure to fetch something.
pub(super) fn fetch_failure(error: &FetchError, what: &str) -> Failure {
    if matches!(error, FetchError::Canceled) {
        return Failure::canceled();
    }
    let failure = Failure::message(format!("failed to load {what}: {}", crate::report::chain(error)));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn from_stdin(
    has_file: bool,
    engine: &Engine,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Context, Failure> {
    let mut stdin = Stdin::new(cancel);
    let failed = |error| Failure::io("read", "standard input", error);
    let mut start = Vec::new();
    (&mut stdin)
        .take(kiln_frontend::ARCHIVE_START as u64)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if kiln_frontend::is_archive(&start) {
        let whole = Cursor::new(start).chain(stdin);
        let files =
            kiln_frontend::unpack_context(engine, whole, reporter, cancel).map_err(|error| match &error {
                UnpackError::Canceled => Failure::canceled(),
                other => Failure::error(other),
            })?;
        return Ok(Context::Archive(files));
    }
    if has_file {
        return Err(
            Failure::message("standard input is a Dockerfile, and --file names another one")
                .hint("to build a folder with a Dockerfile from standard input: kiln build -f - FOLDER"),
        );
    }
    let bytes = super::dockerfile::read(&mut Cursor::new(start).chain(stdin), Path::new("standard input"))?;
    let empty = UnpackedContext::empty(engine).map_err(|error| Failure::error(&error))?;
    Ok(Context::Dockerfile(bytes, empty))
}

/// The values of `--build-context`. Directories must exist, as with Docker; what is in them is not looked at.
pub(super) fn named(arguments: &[String]) -> Result<NamedContexts, Failure> {
    let mut contexts = NamedContexts::default();
    for argument in arguments.iter().filter(|argument| !argument.is_empty()) {
        contexts
            .add(argument)
            .map_err(|error| Failure::usage(format!("--build-context {error}")))?;
    }
    for (name, value) in contexts.iter_mut() {
        match value {
            ContextValue::Directory(path) => *path = directory(path, &format!("the context {name}"))?,
            ContextValue::Layout(layout) => {
                layout.path = std::path::absolute(&layout.path)
                    .map_err(|error| Failure::io("find", &layout.path, error))?;
            }
            ContextValue::Scratch | ContextValue::Image(_) | ContextValue::Remote(_) => {}
        }
    }
    Ok(contexts)
}
