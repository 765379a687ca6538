//! Where an entry goes: its name is followed through the directories and symbolic links of the layer and of what is
//! below it, in memory.

use std::collections::BTreeMap;

use kiln_tree::{Entry, EntryKind, Timestamp, TreePath};

use super::{Kind, Unpacker};
use crate::layer::name::name_error;
use crate::layer::{Attributes, LayerError};
use crate::limits;
use crate::tarball::shown;

impl Unpacker<'_> {
    /// The real path of the directory that is named `directory`; what is missing is made.
    pub(super) fn resolve(&mut self, directory: &TreePath, of: &[u8]) -> Result<TreePath, LayerError> {
        if let Some((named, real)) = &self.last_parent
            && named == directory
        {
            return Ok(real.clone());
        }
        let real = self.walk(directory, of, true)?.unwrap_or_default();
        self.last_parent = Some((directory.clone(), real.clone()));
        Ok(real)
    }

    /// As [`Self::resolve`], but nothing is made: `None` when it is not a directory. Directories of lower layers
    /// count as there.
    pub(super) fn look(&mut self, directory: &TreePath) -> Result<Option<TreePath>, LayerError> {
        self.walk(directory, directory.as_bytes(), false)
    }

    fn walk(&mut self, directory: &TreePath, of: &[u8], make: bool) -> Result<Option<TreePath>, LayerError> {
        // What is known as a directory is where its path says, as all above it are directories too. So entries beside
        // and right below each other are not walked to from the root.
        let mut near = std::iter::successors(Some(directory.clone()), TreePath::parent).take(2);
        let mut real = near.find(|path| self.is_directory(path)).unwrap_or_default();
        let rest = directory.strip_prefix(&real).unwrap_or_default();
        let mut rest: Vec<Vec<u8>> = rest.components().rev().map(<[u8]>::to_vec).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = rest.pop() {
            steps += 1;
            if steps > limits::PATH_STEPS {
                return Err(name_error(of, "leads through too many directories"));
            }
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real = real.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = real
                .join_name(&name)
                .map_err(|_| name_error(of, "is no valid name"))?;
            let link = match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Directory { .. }) => None,
                Some(Kind::Symlink { target }) => Some(target.clone()),
                Some(_) if make => {
                    return Err(LayerError::NotADirectory {
                        path: shown(of),
                        parent: next,
                    });
                }
                Some(_) => return Ok(None),
                None => match self.lower.and_then(|lower| lower.entry(&next)) {
                    Some(Entry {
                        kind: EntryKind::Symlink { target },
                        ..
                    }) => Some(target),
                    found => {
                        if make {
                            self.implicit(next.clone(), found)?;
                        }
                        None
                    }
                },
            };
            let Some(link) = link else {
                real = next;
                continue;
            };
            links += 1;
            if links > limits::SYMLINKS || next.as_bytes().len() > limits::PATH_SIZE {
                return Err(name_error(of, "leads through too many symbolic links"));
            }
            if link.starts_with(b"/") {
                real = TreePath::root();
            }
            rest.extend(link.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(Some(real))
    }

    fn is_directory(&self, path: &TreePath) -> bool {
        let node = self.nodes.get(path);
        node.is_some_and(|node| matches!(node.kind, Kind::Directory { .. }))
    }

    /// A directory that only its entries make known: as in the lower layers, if it is there.
    fn implicit(&mut self, path: TreePath, lower: Option<Entry>) -> Result<(), LayerError> {
        let attributes = match lower {
            Some(entry) if entry.kind.is_dir() => Attributes::from(entry),
            _ => Attributes {
                mode: 0o755,
                uid: 0,
                gid: 0,
                // Not the time of unpacking: the same tar always makes the same layer.
                mtime: Timestamp::default(),
                xattrs: BTreeMap::new(),
            },
        };
        if self.nodes.len() as u64 > limits::LAYER_ENTRIES {
            let limit = limits::LAYER_ENTRIES;
            return Err(LayerError::TooMuch {
                what: "entries",
                limit,
            });
        }
        self.make_directory(path, attributes, false)
    }
}
