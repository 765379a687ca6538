//! Where the Dockerfile and its ignore file are.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::arguments::Build;
use crate::report::Failure;

/// A Dockerfile larger than this is a mistake, such as `-f` on an archive.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// The Dockerfile's bytes, its name in messages, and its path when it is a file.
pub(super) fn dockerfile(
    arguments: &Build,
    context: &Path,
) -> Result<(Vec<u8>, String, Option<PathBuf>), Failure> {
    let path = match &arguments.file {
        Some(path) if path.as_os_str() == "-" => {
            let bytes = read(&mut std::io::stdin().lock(), Path::new("standard input"))?;
            return Ok((bytes, "Dockerfile".to_owned(), None));
        }
        Some(path) => path.clone(),
        None => {
            let usual = context.join("Dockerfile");
            // Docker takes the name in small letters, too.
            let small = context.join("dockerfile");
            if !usual.exists() && small.exists() {
                small
            } else {
                usual
            }
        }
    };
    let mut file = std::fs::File::open(&path).map_err(|error| not_found(&path, error))?;
    let bytes = read(&mut file, &path)?;
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    Ok((bytes, name, Some(path)))
}

fn read(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>, Failure> {
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
    let mut near: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .ok()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
        })
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

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` of the context.
pub(super) fn ignore_file(
    dockerfile: Option<&Path>,
    context: &Path,
) -> Result<Option<(String, Vec<u8>)>, Failure> {
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
