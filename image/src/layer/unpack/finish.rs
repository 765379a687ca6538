//! What can be done only once the whole tar is read: whiteouts, the times of directories, the listing.

use std::collections::BTreeMap;

use kiln_tree::root::Device;
use kiln_tree::{Entry, EntryKind, Listing, Refused, TreePath};

use super::{Kind, Node, Unpacker};
use crate::layer::place::place_error;
use crate::layer::{Attributes, LayerError};

/// The listing, the directories that the tar does not list, and what was refused.
type Finished = (Listing, Vec<TreePath>, Refused);

impl Unpacker<'_> {
    pub(super) fn finish(mut self) -> Result<Finished, LayerError> {
        let mut entries = Vec::with_capacity(self.nodes.len() + self.whiteouts.len());
        self.apply_whiteouts(&mut entries)?;
        let mut implicit = Vec::new();
        // Deepest first: a directory is complete before its time is set.
        for (path, node) in self.nodes.iter().rev() {
            if let Kind::Directory { opaque, listed } = node.kind {
                if opaque {
                    self.dest
                        .set_xattr(path, self.opaque_xattr, b"y")
                        .map_err(place_error(path))?;
                }
                self.placer.attributes(path, &node.attributes, false)?;
                if !listed {
                    implicit.push(path.clone());
                }
            }
        }
        implicit.reverse();
        if let Some(root) = &self.root {
            self.placer.attributes(&TreePath::root(), root, false)?;
        }
        let mut first_names: BTreeMap<u64, TreePath> = BTreeMap::new();
        while let Some((path, Node { kind, attributes })) = self.nodes.pop_first() {
            let kind = match kind {
                Kind::Directory { opaque, .. } => EntryKind::Directory { opaque },
                Kind::File { inode, size, content } => {
                    if let Some(target) = first_names.get(&inode) {
                        let target = target.clone();
                        EntryKind::HardLink { target }
                    } else {
                        first_names.insert(inode, path.clone());
                        EntryKind::File { size, content }
                    }
                }
                Kind::Symlink { target } => EntryKind::Symlink { target },
                Kind::Device(Device::Char(major, minor)) => EntryKind::CharDevice { major, minor },
                Kind::Device(Device::Block(major, minor)) => EntryKind::BlockDevice { major, minor },
                Kind::Fifo => EntryKind::Fifo,
            };
            entries.push(entry(path, kind, attributes));
        }
        Ok((Listing::from_entries(entries), implicit, self.placer.refused))
    }

    fn apply_whiteouts(&mut self, entries: &mut Vec<Entry>) -> Result<(), LayerError> {
        for (path, mtime) in std::mem::take(&mut self.whiteouts) {
            match self.nodes.get_mut(&path) {
                // The layer deletes what was there and makes it anew.
                Some(Node {
                    kind: Kind::Directory { opaque, .. },
                    ..
                }) => *opaque = true,
                // It hides what is below by itself.
                Some(_) => {}
                None => {
                    let device = Device::Char(0, 0);
                    self.dest.mknod(&path, device, 0).map_err(place_error(&path))?;
                    self.dest.set_times(&path, mtime).map_err(place_error(&path))?;
                    let attributes = Attributes {
                        mode: 0,
                        uid: 0,
                        gid: 0,
                        mtime,
                        xattrs: BTreeMap::new(),
                    };
                    entries.push(entry(path, EntryKind::Whiteout, attributes));
                }
            }
        }
        Ok(())
    }
}

fn entry(path: TreePath, kind: EntryKind, attributes: Attributes) -> Entry {
    Entry {
        path,
        kind,
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        xattrs: attributes.xattrs,
    }
}
