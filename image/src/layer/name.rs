//! Names of a tar's entries as paths in the layer.

use kiln_tree::TreePath;

use super::LayerError;
use crate::limits;
use crate::tarball::shown;

/// The canonical form of an entry's name: absolute names and `..` never lead out.
pub(crate) fn checked_path(name: &[u8]) -> Result<TreePath, LayerError> {
    if name.len() > limits::PATH_SIZE {
        return Err(name_error(name, "has too long a path"));
    }
    let path = TreePath::clean(name).map_err(|_| name_error(name, "has a NUL byte in its path"))?;
    if path.components().any(|part| part.len() > limits::NAME_SIZE) {
        return Err(name_error(name, "has too long a name"));
    }
    Ok(path)
}

pub(super) fn name_error(path: &[u8], reason: &'static str) -> LayerError {
    LayerError::Name {
        path: shown(path),
        reason,
    }
}
