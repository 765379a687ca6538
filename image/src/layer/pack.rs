//! `pack`: the tar of a layer, always the same for the same listing and files.

use std::io::{self, Read as _, Write};
use std::sync::mpsc;

use kiln_tree::{ContentHash, ContentHasher, Entry, EntryKind, Listing, Root};

use super::place::{file_error, place_error};
use super::{LayerError, whiteout};
use crate::compress::{Compression, Compressor};
use crate::tarball::{Member, MemberType, TarWriter, shown};
use crate::{Digest, DigestWriter};

/// Files are read in pieces of this size.
const BUFFER: usize = 128 << 10;

/// With fewer bytes of files, a second thread costs more than it gains.
const PIPELINE_MIN: u64 = 4 << 20;

/// What one thread hands the other at a time, and how many may wait: together the memory that a layer of any size
/// takes.
const CHUNK: usize = 512 << 10;
const CHUNKS: usize = 4;

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
    let tar = pack_beside(listing, diff, DigestWriter::new(io::sink()))?;
    Ok(tar.finish().1)
}

/// [`pack`] for an `out` that takes its time, as a hasher does: for a large layer, reading and writing go on at the same
/// time. Gives `out` back.
pub fn pack_beside<W: Write + Send>(listing: &Listing, diff: &Root, mut out: W) -> Result<W, LayerError> {
    let file_size = |entry: &Entry| match entry.kind {
        EntryKind::File { size, .. } => size,
        _ => 0,
    };
    if listing.entries().iter().map(file_size).sum::<u64>() < PIPELINE_MIN {
        pack(listing, diff, &mut out)?;
        return Ok(out);
    }
    std::thread::scope(|scope| {
        let (sender, chunks) = mpsc::sync_channel::<Vec<u8>>(CHUNKS);
        let (used, spare) = mpsc::channel();
        let writing = scope.spawn(move || {
            for mut chunk in chunks {
                out.write_all(&chunk)?;
                chunk.clear();
                // Nobody wants it once the last one is packed.
                let _ = used.send(chunk);
            }
            Ok(out)
        });
        let mut chunks = ChunkWriter {
            chunk: Vec::with_capacity(CHUNK),
            sender,
            spare,
        };
        let packed = pack(listing, diff, &mut chunks).and_then(|_| chunks.flush().map_err(LayerError::Write));
        drop(chunks);
        let written = writing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where writing failed, packing failed for that.
        let out = written.map_err(LayerError::Write)?;
        packed.map(|()| out)
    })
}

/// Hands what is written to another thread, a chunk at a time.
struct ChunkWriter {
    chunk: Vec<u8>,
    sender: mpsc::SyncSender<Vec<u8>>,
    /// Chunks that the other thread is done with.
    spare: mpsc::Receiver<Vec<u8>>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.chunk.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = self
            .spare
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        let chunk = std::mem::replace(&mut self.chunk, next);
        // The other side goes away only when it failed, which it tells.
        self.sender
            .send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
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
    export_with(compression, level, out, |tar| pack(listing, diff, tar).map(drop))
}

/// As [`export`], of a tar that is there already: its bytes stay what they are.
pub fn export_tar(
    tar: &mut dyn io::Read,
    compression: Compression,
    level: Option<i32>,
    out: impl Write,
) -> Result<Exported, LayerError> {
    let mut buffer = vec![0; BUFFER];
    export_with(compression, level, out, |out| {
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => out.write_all(&buffer[..count]).map_err(LayerError::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
    })
}

fn export_with(
    compression: Compression,
    level: Option<i32>,
    out: impl Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Exported, LayerError> {
    let blob = DigestWriter::new(out);
    let compressor = Compressor::new(compression, level, blob).map_err(LayerError::Write)?;
    let mut tar = DigestWriter::new(compressor);
    write(&mut tar)?;
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use kiln_tree::{Root, walk};

    use super::{PIPELINE_MIN, diff_id, pack};
    use crate::DigestWriter;

    /// Hashing beside reading gives the digest of the very bytes that are packed.
    #[test]
    fn a_large_layers_digest_is_that_of_its_tar() {
        let folder = std::env::temp_dir().join(format!("kiln-pack-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let bytes: Vec<u8> = (0..PIPELINE_MIN + 12_345)
            .map(|at| (at * at % 251) as u8)
            .collect();
        std::fs::write(folder.join("large"), &bytes).unwrap();
        std::fs::write(folder.join("small"), b"x").unwrap();
        let root = Root::open(&folder).unwrap();
        let listing = walk::layer(root.as_fd()).unwrap();
        let mut tar = DigestWriter::new(std::io::sink());
        pack(&listing, &root, &mut tar).unwrap();
        let digest = diff_id(&listing, &root).unwrap();
        std::fs::write(folder.join("large"), b"changed").unwrap();
        let damaged = diff_id(&listing, &root);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(digest, tar.finish().1);
        assert!(
            damaged.is_err(),
            "a file that is not what the listing says is told"
        );
    }
}
