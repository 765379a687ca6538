//! `unpack`: a tar stream into a directory in overlayfs form.
//!
//! What the layer holds so far is kept in memory, and every name is resolved there ([`resolve`]), symbolic links
//! included; the file system only ever sees paths without links. So the listing is exact, and nothing in the tar can
//! lead elsewhere. [`hard_link`] has the links, [`finish`] what waits for the end of the tar.

mod finish;
mod hard_link;
mod resolve;

use std::collections::BTreeMap;
use std::io::Read;

use kiln_tree::root::Device;
use kiln_tree::{ContentHash, Root, Timestamp, TreePath};

use super::name::{checked_path, name_error};
use super::place::{is_foreign_xattr, place_error};
use super::whiteout::{self, Meaning};
use super::{Attributes, LayerError, Lower, Placer, UnpackOptions, Unpacked, pipeline};
use crate::limits;
use crate::tarball::{EntryType, TarEntry, TarReader};

/// Unpacks the tar `reader` into `dest`, an empty directory, in overlayfs form. The tar is read to the end of the
/// stream; whatever follows the archive is part of its digest.
pub fn unpack(
    reader: impl Read + Send,
    dest: &Root,
    options: &UnpackOptions<'_>,
) -> Result<Unpacked, LayerError> {
    let ((listing, implicit_directories, refused), diff_id, size) =
        pipeline::hashed(reader, options, |stream| {
            let mut tar = TarReader::new(stream);
            let mut layer = Unpacker::new(dest, options);
            let mut count = 0;
            while let Some(entry) = tar.next()? {
                count += 1;
                if count > limits::LAYER_ENTRIES {
                    let limit = limits::LAYER_ENTRIES;
                    return Err(LayerError::TooMuch {
                        what: "entries",
                        limit,
                    });
                }
                layer.entry(entry, &mut tar)?;
            }
            tar.drain()?;
            layer.finish()
        })?;
    Ok(Unpacked {
        listing,
        diff_id,
        size,
        implicit_directories,
        refused,
    })
}

/// What is at a path of the layer.
#[derive(Debug, Clone)]
enum Kind {
    Directory {
        opaque: bool,
        /// Whether the tar has an entry for it.
        listed: bool,
    },
    /// Names with the same inode are hard links of each other.
    File {
        inode: u64,
        size: u64,
        content: ContentHash,
    },
    Symlink {
        target: Vec<u8>,
    },
    Device(Device),
    Fifo,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    attributes: Attributes,
}

struct Unpacker<'a> {
    dest: &'a Root,
    placer: Placer<'a>,
    lower: Option<&'a dyn Lower>,
    opaque_xattr: &'static [u8],
    nodes: BTreeMap<TreePath, Node>,
    /// Applied at the end: whether one hides a lower path only depends on the whole layer.
    whiteouts: BTreeMap<TreePath, Timestamp>,
    /// The attributes of the layer's root directory, from the entry `./`.
    root: Option<Attributes>,
    inodes: u64,
    /// The directory of the last entry, as it is named and as it is.
    last_parent: Option<(TreePath, TreePath)>,
}

impl<'a> Unpacker<'a> {
    fn new(dest: &'a Root, options: &UnpackOptions<'a>) -> Self {
        Self {
            dest,
            placer: Placer::new(dest),
            lower: options.lower,
            opaque_xattr: if options.userxattr {
                b"user.overlay.opaque"
            } else {
                b"trusted.overlay.opaque"
            },
            nodes: BTreeMap::new(),
            whiteouts: BTreeMap::new(),
            root: None,
            inodes: 0,
            last_parent: None,
        }
    }

    fn entry<R: Read>(&mut self, mut entry: TarEntry, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        let named = checked_path(&entry.path)?;
        entry.xattrs.retain(|name, _| !is_foreign_xattr(name));
        let (Some(name), Some(parent)) = (named.file_name(), named.parent()) else {
            return self.root_entry(&entry);
        };
        let meaning = whiteout::meaning(name);
        let ignored = |part: &[u8]| part.starts_with(whiteout::META_PREFIX);
        if meaning == Meaning::Ignored || parent.components().any(ignored) {
            return Ok(());
        }
        if meaning == Meaning::Invalid || parent.components().any(|part| part.starts_with(whiteout::PREFIX)) {
            return Err(name_error(&entry.path, "is no valid whiteout"));
        }
        let parent = self.resolve(&parent, &entry.path)?;
        let child = |name: &[u8]| {
            parent
                .join_name(name)
                .map_err(|_| name_error(&entry.path, "is no valid name"))
        };
        match meaning {
            Meaning::Opaque => self.opaque(&parent),
            Meaning::Whiteout(name) => {
                self.whiteouts.insert(child(name)?, entry.mtime);
                Ok(())
            }
            _ => {
                let path = child(name)?;
                self.ordinary(path, &entry, tar)
            }
        }
    }

    fn root_entry(&mut self, entry: &TarEntry) -> Result<(), LayerError> {
        if entry.kind != EntryType::Directory {
            return Err(name_error(&entry.path, "stands for the root but is no directory"));
        }
        self.root = Some(Attributes::from(entry));
        Ok(())
    }

    fn opaque(&mut self, directory: &TreePath) -> Result<(), LayerError> {
        match self.nodes.get_mut(directory) {
            Some(Node {
                kind: Kind::Directory { opaque, .. },
                ..
            }) => {
                *opaque = true;
                Ok(())
            }
            _ => Err(LayerError::OpaqueRoot),
        }
    }

    fn ordinary<R: Read>(
        &mut self,
        path: TreePath,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        if entry.kind == EntryType::HardLink {
            return self.hard_link(path, entry);
        }
        if entry.kind == EntryType::CharDevice && entry.device == (0, 0) {
            // This is what a whiteout looks like on disk. Some tools put it into tars as it is.
            self.clear(&path)?;
            self.whiteouts.insert(path, entry.mtime);
            return Ok(());
        }
        if entry.kind == EntryType::Directory {
            return self.directory(path, entry);
        }
        self.clear(&path)?;
        let (major, minor) = entry.device;
        let node = match entry.kind {
            EntryType::File => {
                let (size, attributes) = (entry.size, Attributes::from(entry));
                let content = self.placer.file(&path, &attributes, tar, entry)?;
                self.inodes += 1;
                let inode = self.inodes;
                Node {
                    kind: Kind::File { inode, size, content },
                    attributes,
                }
            }
            EntryType::Symlink => {
                let target = entry.link.clone();
                if target.is_empty() || target.len() > limits::PATH_SIZE {
                    return Err(name_error(
                        &entry.path,
                        "is a symbolic link without or with too long a target",
                    ));
                }
                self.make(&path, Kind::Symlink { target }, Attributes::from(entry))?
            }
            EntryType::CharDevice => self.make(
                &path,
                Kind::Device(Device::Char(major, minor)),
                Attributes::from(entry),
            )?,
            EntryType::BlockDevice => self.make(
                &path,
                Kind::Device(Device::Block(major, minor)),
                Attributes::from(entry),
            )?,
            EntryType::Fifo => self.make(&path, Kind::Fifo, Attributes::from(entry))?,
            EntryType::Directory | EntryType::HardLink => return Ok(()),
        };
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Makes something that has no content.
    fn make(&mut self, path: &TreePath, kind: Kind, mut attributes: Attributes) -> Result<Node, LayerError> {
        match &kind {
            Kind::Symlink { target } => {
                // As the kernel has it: a link's mode says nothing.
                attributes.mode = 0o777;
                self.placer.symlink(path, target, &attributes)?;
            }
            Kind::Device(device) => {
                self.placer.device(path, *device, &attributes)?;
            }
            Kind::Fifo => self.placer.fifo(path, &attributes)?,
            Kind::Directory { .. } | Kind::File { .. } => {}
        }
        Ok(Node { kind, attributes })
    }

    fn directory(&mut self, path: TreePath, entry: &TarEntry) -> Result<(), LayerError> {
        let attributes = Attributes::from(entry);
        if let Some(node) = self.nodes.get_mut(&path)
            && let Kind::Directory { listed, .. } = &mut node.kind
        {
            *listed = true;
            node.attributes = attributes;
            return Ok(());
        }
        self.clear(&path)?;
        self.make_directory(path, attributes, true)
    }

    fn make_directory(
        &mut self,
        path: TreePath,
        attributes: Attributes,
        listed: bool,
    ) -> Result<(), LayerError> {
        // Its own mode and owner come at the end, so that it can be filled.
        self.dest.create_dir(&path, 0o700).map_err(place_error(&path))?;
        let kind = Kind::Directory {
            opaque: false,
            listed,
        };
        self.nodes.insert(path, Node { kind, attributes });
        Ok(())
    }

    /// Removes what earlier entries put at `path`.
    fn clear(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let Some(node) = self.nodes.get(path) else {
            return Ok(());
        };
        if matches!(node.kind, Kind::Directory { .. } | Kind::Symlink { .. }) {
            self.last_parent = None;
        }
        if matches!(node.kind, Kind::Directory { .. }) {
            remove_below(&mut self.nodes, path);
            remove_below(&mut self.whiteouts, path);
        }
        self.nodes.remove(path);
        self.dest.remove_all(path).map_err(place_error(path))?;
        Ok(())
    }
}

/// Removes `path` and all below it, in time that depends on these only.
fn remove_below<V>(map: &mut BTreeMap<TreePath, V>, path: &TreePath) {
    let below = |(below, _): (&TreePath, &V)| below.starts_with(path).then(|| below.clone());
    let below: Vec<TreePath> = map.range(path..).map_while(below).collect();
    for path in &below {
        map.remove(path);
    }
}
