//! Layer tars, laid over the tree of the layers below.

use super::{Image, sha256};
use crate::tree::{Kind, Node, parent};
use crate::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Component, Path};

/// Lays one layer tar over the tree.
pub(super) fn apply_layer(number: usize, layer: &[u8], inodes: &mut usize, image: &mut Image) -> Result<()> {
    let mut archive = tar::Archive::new(layer);
    let (mut added, mut seen) = (Vec::new(), BTreeSet::new());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(&entry.path_bytes())?;
        if path.is_empty() {
            continue;
        }
        if !seen.insert(path.clone()) {
            image.problems.push(format!(
                "layer {number} holds {} twice",
                String::from_utf8_lossy(&path)
            ));
        }
        if let Some(parent) = parent(&path)
            && !seen.contains(parent)
            && !image.tree.nodes.contains_key(parent)
        {
            image.problems.push(format!(
                "layer {number}: {} comes before its directory",
                String::from_utf8_lossy(&path)
            ));
        }
        let name = path
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default()
            .to_vec();
        if name == b".wh..wh..opq" {
            // Whiteouts are about the layers below, wherever they stand in this one.
            image.tree.remove_below(parent(&path).unwrap_or_default());
        } else if let Some(hidden) = name.strip_prefix(b".wh.") {
            let mut target = parent(&path)
                .map(|parent| [parent, b"/"].concat())
                .unwrap_or_default();
            target.extend_from_slice(hidden);
            image.tree.remove(&target);
        } else {
            added.push((path, read_entry(&mut entry, inodes)?));
        }
    }
    for (path, added) in added {
        let node = match added {
            Added::Node(node) => node,
            Added::HardLink(target) => image.tree.nodes.get(&target).cloned().ok_or_else(|| {
                format!(
                    "hard link to {}, which is not there",
                    String::from_utf8_lossy(&target)
                )
            })?,
        };
        if node.kind != Kind::Directory {
            image.tree.remove(&path);
        }
        image.tree.nodes.insert(path, node);
    }
    Ok(())
}

/// A tar entry, its link not yet looked up.
enum Added {
    Node(Node),
    HardLink(Vec<u8>),
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>, inodes: &mut usize) -> Result<Added> {
    let mut xattrs = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), extension.value_bytes().to_vec());
            }
        }
    }
    let header = entry.header().clone();
    let link = || {
        entry
            .link_name_bytes()
            .map(|target| target.to_vec())
            .ok_or("a link without a target")
    };
    let device = || -> Result<(u32, u32)> {
        Ok((
            header.device_major()?.unwrap_or_default(),
            header.device_minor()?.unwrap_or_default(),
        ))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink(link()?),
        tar::EntryType::Link => return Ok(Added::HardLink(clean(&link()?)?)),
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Char => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
        tar::EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            *inodes += 1;
            Kind::File {
                size: bytes.len() as u64,
                sha256: sha256(&bytes),
                inode: *inodes,
            }
        }
        other => bail!("tar entry of type {other:?}"),
    };
    let mode = header.mode()? & 0o7777;
    Ok(Added::Node(Node {
        kind,
        mode,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime: header.mtime()?,
        xattrs,
    }))
}

/// A path of the tar as a path of the tree.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut parts: Vec<&[u8]> = Vec::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => parts.push(name.as_bytes()),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("path {} climbs out of the root", String::from_utf8_lossy(path)),
        }
    }
    Ok(parts.join(&b'/'))
}
