//! What the build context is, and what the named contexts are.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use kiln_frontend::{ContextValue, MainContext, NamedContexts, UnpackError, UnpackedContext};
use kiln_solver::Cancel;
use kiln_solver::Engine;
use kiln_solver::task::Reporter;

use super::stdin::Stdin;
use crate::arguments::Build;
use crate::report::Failure;

/// Where the build context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A directory, by its canonical path.
    Directory(PathBuf),
    /// Standard input: an archive, or a Dockerfile without any context.
    Stdin,
}

/// The build context, ready to be read.
#[derive(Debug)]
pub(super) enum Context {
    /// A directory of the user's.
    Directory(PathBuf),
    /// An archive, unpacked for this build.
    Archive(UnpackedContext),
    /// Standard input was a Dockerfile, and there is nothing else.
    Dockerfile(Vec<u8>, UnpackedContext),
}

impl Context {
    /// What the build takes files from.
    pub(super) fn main(&self) -> MainContext {
        match self {
            Self::Directory(path) => MainContext::Directory(path.clone()),
            Self::Archive(files) | Self::Dockerfile(_, files) => {
                MainContext::Unpacked(files.path().to_owned())
            }
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
    if !path.is_dir() && (text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/"))
    {
        return Err(Failure::usage(format!(
            "context {text}: addresses and git repositories are not supported as build context yet"
        )));
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
    engine: &Engine,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Context, Failure> {
    match origin {
        Origin::Directory(path) => Ok(Context::Directory(path)),
        Origin::Stdin => from_stdin(has_file, engine, reporter, cancel),
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
            ContextValue::Git(text) | ContextValue::Http(text) => {
                return Err(Failure::usage(format!(
                    "--build-context {name}={text}: addresses and git repositories are not supported as contexts yet"
                )));
            }
            ContextValue::Scratch | ContextValue::Image(_) => {}
        }
    }
    Ok(contexts)
}
