//! `unpack`: a tar stream into a directory in overlayfs form.
//!
//! What the layer holds so far is kept in memory, and every name is resolved there, symbolic links included; the file
//! system only ever sees paths without links. So the listing is exact, and nothing in the tar can lead elsewhere.

use std::collections::BTreeMap;
use std::io::Read;

use kiln_tree::root::Device;
use kiln_tree::{ContentHash, Entry, EntryKind, Listing, Root, Timestamp, TreePath};

use super::place::{is_foreign_xattr, place_error};
use super::whiteout::{self, Meaning};
use super::{Attributes, LayerError, Lower, Placer, UnpackOptions, Unpacked, pipeline};
use crate::limits;
use crate::tarball::{EntryType, TarEntry, TarReader, shown};

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

type Finished = (Listing, Vec<TreePath>, super::Refused);

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
            return self.root_entry(entry);
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
                self.ordinary(path, entry, tar)
            }
        }
    }

    fn root_entry(&mut self, entry: TarEntry) -> Result<(), LayerError> {
        if entry.kind != EntryType::Directory {
            return Err(name_error(&entry.path, "stands for the root but is no directory"));
        }
        self.root = Some(attributes_of(entry));
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
        entry: TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        if entry.kind == EntryType::HardLink {
            return self.hard_link(path, &entry);
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
                let (size, attributes) = (entry.size, attributes_ref(&entry));
                let content = self.placer.file(&path, &attributes, tar, &entry)?;
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
                self.make(&path, Kind::Symlink { target }, attributes_of(entry))?
            }
            EntryType::CharDevice => self.make(
                &path,
                Kind::Device(Device::Char(major, minor)),
                attributes_of(entry),
            )?,
            EntryType::BlockDevice => self.make(
                &path,
                Kind::Device(Device::Block(major, minor)),
                attributes_of(entry),
            )?,
            EntryType::Fifo => self.make(&path, Kind::Fifo, attributes_of(entry))?,
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

    fn directory(&mut self, path: TreePath, entry: TarEntry) -> Result<(), LayerError> {
        let attributes = attributes_of(entry);
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

    fn hard_link(&mut self, path: TreePath, entry: &TarEntry) -> Result<(), LayerError> {
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
        let attributes = Attributes {
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            mtime: found.mtime,
            xattrs: found.xattrs,
        };
        let source = lower
            .open(target)
            .map_err(super::place::file_error("open the lower file", &path))?;
        self.clear(&path)?;
        let (size, content) = self.placer.copy(&path, &attributes, source)?;
        self.inodes += 1;
        let inode = self.inodes;
        let kind = Kind::File { inode, size, content };
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

    /// The real path of the directory that is named `directory`; what is missing is made.
    fn resolve(&mut self, directory: &TreePath, of: &[u8]) -> Result<TreePath, LayerError> {
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
    fn look(&mut self, directory: &TreePath) -> Result<Option<TreePath>, LayerError> {
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
            Some(entry) if entry.kind.is_dir() => Attributes {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                xattrs: entry.xattrs,
            },
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

    fn finish(mut self) -> Result<Finished, LayerError> {
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

/// Removes `path` and all below it, in time that depends on these only.
fn remove_below<V>(map: &mut BTreeMap<TreePath, V>, path: &TreePath) {
    let below = |(below, _): (&TreePath, &V)| below.starts_with(path).then(|| below.clone());
    let below: Vec<TreePath> = map.range(path..).map_while(below).collect();
    for path in &below {
        map.remove(path);
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

pub(crate) fn attributes_of(entry: TarEntry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs,
    }
}

fn attributes_ref(entry: &TarEntry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
    }
}

fn name_error(path: &[u8], reason: &'static str) -> LayerError {
    LayerError::Name {
        path: shown(path),
        reason,
    }
}

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
