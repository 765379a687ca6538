//! Overlayfs's own extended attributes: read for what they mean, never listed.

use crate::error::io_error;
use crate::root::Subject;
use crate::{Error, Result, TreePath, Xattrs};

/// What overlayfs's attributes say about a path of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// A directory that hides what is below.
    pub opaque: bool,
    /// An empty file that stands for a whiteout.
    pub whiteout: bool,
}

/// The attributes that belong to the tree, and what the others say. `layer` tells whether there may be any others.
pub(super) fn read_xattrs(subject: &Subject<'_>, path: &TreePath, layer: bool) -> Result<(Xattrs, Marks)> {
    // The label belongs to the policy of this machine, not to the image.
    let mut xattrs = subject
        .read(|name| name != b"security.selinux")
        .map_err(io_error("read extended attributes", path.as_bytes()))?;
    if !layer {
        return Ok((xattrs, Marks::default()));
    }
    let mut marks = Marks::default();
    let mut foreign = None;
    xattrs.retain(|name, value| {
        let Some(private) = private(name) else { return true };
        match private {
            b"opaque" => marks.opaque |= value == b"y",
            b"whiteout" => marks.whiteout = true,
            // The content is elsewhere; only mount options that Kiln never uses make these.
            b"redirect" | b"metacopy" => foreign = Some(String::from_utf8_lossy(name).into_owned()),
            _ => {}
        }
        false
    });
    match foreign {
        Some(attribute) => Err(Error::ForeignLayer {
            path: path.clone(),
            attribute,
        }),
        None => Ok((xattrs, marks)),
    }
}

/// The name without overlayfs's prefix, if it has one.
fn private(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"trusted.overlay.")
        .or_else(|| name.strip_prefix(b"user.overlay."))
}
