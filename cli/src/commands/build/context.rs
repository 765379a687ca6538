//! What the build context is.

use std::path::{Path, PathBuf};

use crate::report::Failure;

/// The build context that was named.
pub(super) fn context(path: &Path) -> Result<PathBuf, Failure> {
    let text = path.to_string_lossy();
    if text == "-" || text.contains("://") || text.starts_with("git@") {
        return Err(Failure::usage(format!(
            "context {text}: only folders are supported as build context yet"
        )));
    }
    let absolute =
        std::fs::canonicalize(path).map_err(|error| Failure::io("open the build context", path, error))?;
    if absolute.is_dir() {
        Ok(absolute)
    } else {
        Err(Failure::message(format!(
            "the build context {} is not a folder",
            path.display()
        )))
    }
}
