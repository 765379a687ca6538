//! `pack`: the tar of a layer, always the same for the same listing and files.

use std::io::{Read as _, Write};

use kiln_tree::{ContentHash, ContentHasher, Entry, EntryKind, Listing, Root};

use super::place::{file_error, place_error};
use super::{LayerError, whiteout};
use crate::compress::{Compression, Compressor};
use crate::tarball::{Member, MemberType, TarWriter, shown};
use crate::{Digest, DigestWriter};

/// Files are read in pieces of this size.
const BUFFER: usize = 128 << 10;

/// Writes the tar of the layer whose entries are `listing` and whose files lie in `diff`; gives its size. Files are
/// read once and must be what the listing says. Times are cut to whole seconds, as all builders do.
pub fn pack(listing: &Listing, diff: &Root, out: impl Write) -> Result<u64, LayerError> {
    let mut tar = TarWriter::new(out);
    let mut buffer = vec![0; BUFFER];
    for entry in listing.entries() {
        write_entry(&mut tar, entry, diff, &mut buffer)?;
    }
    let (_, size) = tar.finish().map_err(LayerError::Write)?;
    Ok(size)
}

/// The SHA-256 of the tar that [`pack`] writes.
pub fn diff_id(listing: &Listing, diff: &Root) -> Result<Digest, LayerError> {
    let mut hasher = DigestWriter::new(std::io::sink());
    pack(listing, diff, &mut hasher)?;
    Ok(hasher.finish().1)
}

/// The blob of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub tar_size: u64,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// Writes the blob of a layer: [`pack`], compressed, hashed before and after in one pass.
pub fn export(
    listing: &Listing,
    diff: &Root,
    compression: Compression,
    level: Option<i32>,
    out: impl Write,
) -> Result<Exported, LayerError> {
    let blob = DigestWriter::new(out);
    let compressor = Compressor::new(compression, level, blob).map_err(LayerError::Write)?;
    let mut tar = DigestWriter::new(compressor);
    pack(listing, diff, &mut tar)?;
    let (compressor, diff_id, tar_size) = tar.finish();
    let mut blob = compressor.finish().map_err(LayerError::Write)?;
    blob.flush().map_err(LayerError::Write)?;
    let (_, digest, size) = blob.finish();
    Ok(Exported {
        diff_id,
        tar_size,
        digest,
        size,
    })
}

fn write_entry<W: Write>(
    tar: &mut TarWriter<W>,
    entry: &Entry,
    diff: &Root,
    buffer: &mut [u8],
) -> Result<(), LayerError> {
    let path = entry.path.as_bytes();
    let file_name = entry.path.file_name().unwrap_or_default();
    if file_name.starts_with(whiteout::PREFIX) {
        return Err(LayerError::Name {
            path: shown(path),
            reason: "has a name that means a deletion in a layer",
        });
    }
    let mut name = path.to_vec();
    let kind = match &entry.kind {
        EntryKind::Directory { .. } => {
            name.push(b'/');
            MemberType::Directory
        }
        EntryKind::File { size, .. } => MemberType::File { size: *size },
        EntryKind::HardLink { target } => MemberType::HardLink {
            target: target.as_bytes(),
        },
        EntryKind::Symlink { target } => MemberType::Symlink { target },
        EntryKind::CharDevice { major, minor } => MemberType::CharDevice {
            major: *major,
            minor: *minor,
        },
        EntryKind::BlockDevice { major, minor } => MemberType::BlockDevice {
            major: *major,
            minor: *minor,
        },
        EntryKind::Fifo => MemberType::Fifo,
        EntryKind::Whiteout => {
            let parent = path.len() - file_name.len();
            name = [&path[..parent], whiteout::PREFIX, file_name].concat();
            MemberType::File { size: 0 }
        }
        // Tars know no sockets, and nobody could connect to one anyway.
        EntryKind::Socket => return Ok(()),
    };
    let is_whiteout = entry.kind == EntryKind::Whiteout;
    let member = Member {
        name: &name,
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.secs,
        xattrs: (!is_whiteout).then_some(&entry.xattrs),
    };
    tar.member(&member).map_err(LayerError::Write)?;
    match &entry.kind {
        EntryKind::File { size, content } => write_content(tar, entry, *size, *content, diff, buffer),
        EntryKind::Directory { opaque: true } => {
            name.extend_from_slice(whiteout::OPAQUE);
            let marker = Member {
                name: &name,
                kind: MemberType::File { size: 0 },
                mode: 0,
                uid: 0,
                gid: 0,
                mtime: entry.mtime.secs,
                xattrs: None,
            };
            tar.member(&marker).map_err(LayerError::Write)
        }
        _ => Ok(()),
    }
}

fn write_content<W: Write>(
    tar: &mut TarWriter<W>,
    entry: &Entry,
    size: u64,
    content: ContentHash,
    diff: &Root,
    buffer: &mut [u8],
) -> Result<(), LayerError> {
    let path = &entry.path;
    let damaged = |reason| LayerError::Damaged {
        path: path.clone(),
        reason,
    };
    if size == 0 && content == ContentHash::of(b"") {
        let metadata = diff.lstat(path).map_err(place_error(path))?;
        return if metadata.size == 0 {
            Ok(())
        } else {
            Err(damaged("is longer than listed"))
        };
    }
    let mut file = diff.open_read(path).map_err(place_error(path))?;
    let mut hasher = ContentHasher::new();
    let mut left = size;
    loop {
        let n = file.read(buffer).map_err(file_error("read", path))?;
        if n == 0 {
            break;
        }
        left = left
            .checked_sub(n as u64)
            .ok_or_else(|| damaged("is longer than listed"))?;
        hasher.update(&buffer[..n]);
        tar.data(&buffer[..n]).map_err(LayerError::Write)?;
    }
    if left > 0 {
        return Err(damaged("is shorter than listed"));
    }
    if hasher.finish() != content {
        return Err(damaged("has other content than listed"));
    }
    Ok(())
}
