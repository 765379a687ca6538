//! Hard links: to what the layer holds already, or to a file of a lower layer.

use kiln_tree::{EntryKind, TreePath};

use super::{Kind, Node, Unpacker};
use crate::layer::name::checked_path;
use crate::layer::place::{file_error, place_error};
use crate::layer::{Attributes, LayerError};
use crate::tarball::{TarEntry, shown};

impl Unpacker<'_> {
    pub(super) fn hard_link(&mut self, path: TreePath, entry: &TarEntry) -> Result<(), LayerError> {
        let missing = || LayerError::HardLinkTarget {
            path: shown(&entry.path),
            target: shown(&entry.link),
        };
        let named = checked_path(&entry.link)?;
        let (Some(name), Some(parent)) = (named.file_name(), named.parent()) else {
            return Err(missing());
        };
        // An absent target must not leave directories behind, so only look.
        let target = self.look(&parent)?.ok_or_else(missing)?;
        let target = target.join_name(name).map_err(|_| missing())?;
        if target == path {
            // A link to itself changes nothing, if it is there.
            return if self.nodes.contains_key(&path) {
                Ok(())
            } else {
                Err(missing())
            };
        }
        match self.nodes.get(&target).cloned() {
            Some(node) if !matches!(node.kind, Kind::Directory { .. }) => {
                if target.starts_with(&path) {
                    // It would be cleared away with the directory that the link replaces.
                    return Err(missing());
                }
                self.clear(&path)?;
                let node = match node.kind {
                    Kind::File { .. } => {
                        self.dest.hard_link(&target, &path).map_err(place_error(&path))?;
                        node
                    }
                    // A second one of these is as good as a second name.
                    kind => self.make(&path, kind, node.attributes)?,
                };
                self.nodes.insert(path, node);
                Ok(())
            }
            Some(_) => Err(missing()),
            None => self.link_to_lower(path, &target, missing),
        }
    }

    /// A hard link to a file of a lower layer: as in overlayfs, the file is copied up.
    fn link_to_lower(
        &mut self,
        path: TreePath,
        target: &TreePath,
        missing: impl Fn() -> LayerError,
    ) -> Result<(), LayerError> {
        let lower = self.lower.ok_or_else(&missing)?;
        let found = lower.entry(target).ok_or_else(&missing)?;
        if !matches!(found.kind, EntryKind::File { .. } | EntryKind::HardLink { .. }) {
            return Err(missing());
        }
        let attributes = Attributes::from(found);
        let source = lower
            .open(target)
            .map_err(file_error("open the lower file", &path))?;
        self.clear(&path)?;
        let (size, content) = self.placer.copy(&path, &attributes, source)?;
        self.inodes += 1;
        let inode = self.inodes;
        let kind = Kind::File { inode, size, content };
        self.nodes.insert(path, Node { kind, attributes });
        Ok(())
    }
}
