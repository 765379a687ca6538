//! Where the Dockerfile and its ignore file are.

use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_frontend::Fetch;
use kiln_solver::Engine;
use kiln_tree::Root;

use super::context::Context;
use crate::arguments::Build;
use crate::report::Failure;

/// A Dockerfile larger than this is a mistake, such as `-f` on an archive.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// Its name when nothing says another one.
const USUAL: &str = "Dockerfile";
/// Docker takes the name in small letters, too.
const SMALL: &str = "dockerfile";

/// A Dockerfile that was read.
pub(super) struct Dockerfile {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Its name in messages.
    pub(super) name: String,
    /// Its path, when it is a file of this machine.
    pub(super) path: Option<PathBuf>,
}

impl Dockerfile {
    fn new(bytes: Vec<u8>, path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            bytes,
            name: name.to_string_lossy().into_owned(),
            path: None,
        }
    }
}

/// Reads the Dockerfile.
pub(super) fn find(
    arguments: &Build,
    context: &Context,
    engine: &Engine,
    fetch: &Fetch<'_>,
) -> Result<Dockerfile, Failure> {
    let url = arguments.file.as_ref().and_then(|path| path.to_str());
    if let Some(url) = url.filter(|path| path.starts_with("http://") || path.starts_with("https://"))
        && !matches!(context, Context::Dockerfile(..))
    {
        let bytes = kiln_frontend::fetch_file(engine, url, MAX_DOCKERFILE, fetch)
            .map_err(|error| super::context::fetch_failure(&error, "the Dockerfile"))?;
        return Ok(Dockerfile::new(bytes, Path::new(USUAL)));
    }
    match (&arguments.file, context) {
        (_, Context::Dockerfile(bytes, _)) => Ok(Dockerfile::new(bytes.clone(), Path::new(USUAL))),
        (Some(path), _) if path.as_os_str() == "-" => {
            let bytes = read(&mut std::io::stdin().lock(), Path::new("standard input"))?;
            Ok(Dockerfile::new(bytes, Path::new(USUAL)))
        }
        (Some(path), Context::Directory(context)) => {
            from_file(path).map_err(|failure| elsewhere(failure, path, context))
        }
        (None, Context::Directory(context)) => {
            let (usual, small) = (context.join(USUAL), context.join(SMALL));
            from_file(if !usual.exists() && small.exists() {
                &small
            } else {
                &usual
            })
        }
        (path, Context::Archive(files)) => from_archive(path.as_deref(), files.root()),
        // Elsewhere a path that begins at the root is one of this machine.
        (Some(path), Context::Remote(..)) if path.is_absolute() => from_file(path),
        (path, Context::Remote(fetched, _)) => {
            let lone_file = fetched.lone_file().map(Path::new);
            from_archive(lone_file.or(path.as_deref()), fetched.root())
        }
    }
}

fn from_file(path: &Path) -> Result<Dockerfile, Failure> {
    let mut file = std::fs::File::open(path).map_err(|error| not_found(path, error))?;
    let bytes = read(&mut file, path)?;
    Ok(Dockerfile {
        path: Some(path.to_owned()),
        ..Dockerfile::new(bytes, path)
    })
}

/// `-f` is a path as any other: relative to the current folder, not to the context. Who thought otherwise is told.
fn elsewhere(failure: Failure, path: &Path, context: &Path) -> Failure {
    let inside = context.join(path);
    if path.exists() || !inside.exists() {
        return failure;
    }
    failure.hint(format!(
        "--file is relative to the current folder; {} exists",
        inside.display()
    ))
}

/// A Dockerfile inside of the context. Symbolic links in it stay inside.
fn from_archive(path: Option<&Path>, files: &Root) -> Result<Dockerfile, Failure> {
    let there = |name: &str| matches!(files.stat_opt(name), Ok(Some(_)));
    let path = match path {
        Some(path) => path,
        None if !there(USUAL) && there(SMALL) => Path::new(SMALL),
        None => Path::new(USUAL),
    };
    let bytes = files
        .read(path.as_os_str().as_encoded_bytes(), MAX_DOCKERFILE)
        .map_err(|error| {
            let failure = Failure::message(format!(
                "failed to read the Dockerfile {} of the build context: {}",
                path.display(),
                crate::report::chain(&error)
            ));
            let entries = files.read_dir("/").unwrap_or_default();
            let names = entries
                .into_iter()
                .map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
            with_near_names(failure, path, names)
        })?;
    Ok(Dockerfile::new(bytes, path))
}

pub(super) fn read(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read the Dockerfile", path, error))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(Failure::message(format!(
            "{} is larger than any Dockerfile",
            path.display()
        )));
    }
    Ok(bytes)
}

/// A missing Dockerfile: which names would come near.
fn not_found(path: &Path, error: std::io::Error) -> Failure {
    if error.kind() != std::io::ErrorKind::NotFound {
        return Failure::io("read the Dockerfile", path, error);
    }
    let failure = Failure::message(format!(
        "failed to read the Dockerfile: {} does not exist",
        path.display()
    ));
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return failure;
    };
    let names = entries.filter_map(|entry| {
        entry
            .ok()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
    });
    with_near_names(failure, path, names)
}

/// Which of `names` may be meant.
fn with_near_names(failure: Failure, path: &Path, names: impl Iterator<Item = String>) -> Failure {
    let mut near: Vec<String> = names
        .filter(|name| {
            name.to_lowercase().contains("dockerfile") || name.to_lowercase().contains("containerfile")
        })
        .filter(|name| !name.ends_with(".dockerignore"))
        .collect();
    near.sort();
    if near.is_empty() {
        let is_usual = path.file_name().is_some_and(|name| name == "Dockerfile");
        let hint = "no file is called dockerfile in small letters either; name another one with -f";
        if is_usual { failure.hint(hint) } else { failure }
    } else {
        failure.hint(format!("there is {}; name it with -f", near.join(", ")))
    }
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` of the context. An archive is taken as it is,
/// as with Docker.
pub(super) fn ignore_file(
    dockerfile: Option<&Path>,
    context: &Context,
) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let Context::Directory(context) = context else {
        return Ok(None);
    };
    let specific = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in specific.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                return Ok(Some((name, bytes)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io("read", &path, error)),
        }
    }
    Ok(None)
}
