//! The content store: bytes by their sha256 digest.
//!
//! `blobs/sha256/<hex>` holds exactly the bytes, nothing else, as in an OCI layout. A blob gets its name only
//! after size and digest were checked. So that a blob torn by a power loss is never believed:
//!
//! - a blob of at most 64 KiB (manifests, configs) is hashed again whenever it is opened;
//! - a larger one has a stamp beside it, `blobs/stamps/<hex>` (kind `blob`, version 1). With no trusted stamp
//!   the blob is hashed once more at its next use, and then gets a new stamp, or is set aside.
//!
//! A blob's mtime is when it was last used.
//!
//! A half-fetched blob is `tmp/partial/<hex>`, locked by who fetches it. If the process dies, the next one that
//! wants the blob goes on where it ended.

mod draft;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use kiln_image::{Digest, Sha256};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Stamp, error, files, sealed, store::Shared, uses::Place};

pub use draft::BlobDraft;

/// Blobs up to this size are verified at each opening.
const SMALL: u64 = 64 * 1024;

pub(crate) const KIND: &str = "blob";
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct BlobStamp {
    size: u64,
    stamp: Stamp,
}

/// The content store. See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct Blobs<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Where the blob is or would be. Whether it is in order only [`Blobs::get`] says.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.root.join("blobs/sha256").join(digest.hex())
    }

    /// Opens a blob for reading. `None` when it is not there, or not in order (it is then set aside, with a warning).
    pub fn get(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.path(digest);
        // Before the look: what is found then stays.
        self.shared.uses.hold(Place::of_blob(digest))?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error::io("open", path)(source)),
        };
        let size = file.metadata().map_err(error::io("read", &path))?.len();
        if size > SMALL && self.stamped(digest, size) {
            files::touch(&path);
            return Ok(Some(file));
        }
        if self.shared.durability.lost_any() {
            files::forget_cached(&file);
        }
        let (found, _) = hash(&mut file).map_err(error::io("read", &path))?;
        if found != *digest {
            let warning = self
                .shared
                .set_aside(&path, format!("the bytes have digest {found}"));
            self.shared.warn(warning);
            return Ok(None);
        }
        file.rewind().map_err(error::io("read", &path))?;
        files::touch(&path);
        if size > SMALL {
            self.write_stamp(digest, size)?;
        }
        Ok(Some(file))
    }

    /// From now on nobody deletes the blob, if it is there, until this process has closed the store: for one that an
    /// image is going to name.
    pub fn hold(&self, digest: &Digest) -> Result<()> {
        self.shared.uses.hold(Place::of_blob(digest))
    }

    /// The bytes of a blob; for manifests and configs.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.get(digest)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(error::io("read", self.path(digest)))?;
        Ok(Some(bytes))
    }

    /// How large the blob of this name is, in order or not; `None` when it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error::io("read", path)(source)),
        }
    }

    /// Whether the blob is there and in order.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.get(digest)?.is_some())
    }

    /// Stores bytes; their digest is the name.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256_of(bytes);
        if !self.contains(&digest)? {
            let temp = self.shared.temp.write(bytes, false)?;
            self.publish(&temp, &digest, bytes.len() as u64)?;
        }
        Ok(digest)
    }

    /// Begins to write a blob whose digest is known, or goes on where a killed process ended
    /// ([`BlobWriter::offset`]). Waits while another process or thread writes the same one. `None` when the blob
    /// is there already.
    pub fn writer(&self, digest: &Digest, size: Option<u64>) -> Result<Option<BlobWriter>> {
        self.begin(digest, size, Some(Sha256::new()))
    }

    /// As [`Blobs::writer`], for a caller that hashes the bytes itself as they pass and ends with
    /// [`BlobWriter::commit_hashed`]: nothing is hashed twice.
    pub fn unhashed_writer(&self, digest: &Digest, size: Option<u64>) -> Result<Option<BlobWriter>> {
        self.begin(digest, size, None)
    }

    fn begin(self, digest: &Digest, size: Option<u64>, hasher: Option<Sha256>) -> Result<Option<BlobWriter>> {
        let path = self.shared.temp.partial().join(digest.hex());
        loop {
            if self.contains(digest)? {
                return Ok(None);
            }
            let file = files::open_lock(&path)?;
            files::flock(&file, FlockOperation::LockExclusive, &path)?;
            // Whoever had the lock before may have published or dropped the file that we waited for.
            if !same_file(&file, &path)? {
                continue;
            }
            let shared = Arc::clone(self.shared);
            let mut writer = BlobWriter {
                shared,
                digest: *digest,
                size,
                offset: 0,
                hasher,
                file,
                path,
            };
            writer.resume()?;
            return Ok(Some(writer));
        }
    }

    /// All blobs in the store, as far as their names go.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let names = files::names(&self.shared.root.join("blobs/sha256"))?;
        Ok(names
            .iter()
            .filter_map(|name| format!("sha256:{name}").parse().ok())
            .collect())
    }

    fn stamped(self, digest: &Digest, size: u64) -> bool {
        self.read_stamp(digest)
            .is_some_and(|stamp| stamp.size == size && self.shared.durability.trusted(&stamp.stamp))
    }

    fn stamp_path(self, digest: &Digest) -> PathBuf {
        self.shared.root.join("blobs/stamps").join(digest.hex())
    }

    fn read_stamp(self, digest: &Digest) -> Option<BlobStamp> {
        let bytes = std::fs::read(self.stamp_path(digest)).ok()?;
        sealed::open(KIND, VERSION, &bytes).ok()
    }

    fn write_stamp(self, digest: &Digest, size: u64) -> Result<()> {
        self.shared.publish_stamped(&self.stamp_path(digest), |stamp| {
            sealed::seal(
                KIND,
                VERSION,
                &BlobStamp {
                    size,
                    stamp: stamp.clone(),
                },
            )
        })
    }

    /// Gives a complete, verified file its name.
    fn publish(self, from: &std::path::Path, digest: &Digest, size: u64) -> Result<()> {
        let target = self.path(digest);
        // The blob comes first: a stamp without a blob is harmless, and the other way round the blob is hashed again.
        self.shared
            .durability
            .publish(|_| files::publish(from, &target).map_err(error::io("publish", &target)))?;
        self.shared.add_published(size);
        if size > SMALL {
            self.write_stamp(digest, size)
        } else {
            Ok(())
        }
    }
}

fn same_file(file: &File, path: &std::path::Path) -> Result<bool> {
    let ours = file.metadata().map_err(error::io("read", path))?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(error::io("read", path)(source)),
    }
}

/// Digest and number of the bytes from where the file stands to its end.
pub(crate) fn hash(file: &mut File) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    feed(file, |bytes| {
        hasher.update(bytes);
        size += bytes.len() as u64;
    })?;
    Ok((hasher.finish(), size))
}

fn feed(file: &mut File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count]),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(source),
        }
    }
}

/// Writes one blob. What was written stays for a resume when it is dropped before [`BlobWriter::commit`].
pub struct BlobWriter {
    shared: Arc<Shared>,
    digest: Digest,
    size: Option<u64>,
    offset: u64,
    hasher: Option<Sha256>,
    file: File,
    path: PathBuf,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("digest", &self.digest)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl BlobWriter {
    /// How many bytes are there already: the next write must bring the byte at this offset.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest that the whole must have.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Forgets what was written and begins again (the server cannot resume).
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(error::io("truncate", &self.path))?;
        self.hasher = self.hasher.take().map(|_| Sha256::new());
        self.offset = 0;
        Ok(())
    }

    /// The bytes that [`BlobWriter::offset`] counts, from the first one.
    pub fn existing(&self) -> Result<impl Read + use<>> {
        Ok(self.reader()?.take(self.offset))
    }

    /// The file, for reading it while it grows: never beyond [`BlobWriter::offset`], and not after a
    /// [restart](BlobWriter::restart). It stays open under whatever name the blob gets, or under none.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(error::io("open", &self.path))
    }

    /// Checks size and digest and gives the blob its name. After a mismatch the bytes are thrown away.
    pub fn commit(mut self) -> Result<()> {
        let found = match self.hasher.take() {
            Some(hasher) => hasher.finish(),
            None => {
                self.file
                    .rewind()
                    .and_then(|()| hash(&mut self.file))
                    .map_err(error::io("read", &self.path))?
                    .0
            }
        };
        self.commit_hashed(&found)
    }

    /// As [`BlobWriter::commit`], with the digest that the caller has computed of all bytes.
    pub fn commit_hashed(self, found: &Digest) -> Result<()> {
        let wanted = self.size.unwrap_or(self.offset);
        let wrong = if wanted != self.offset {
            Some(Error::SizeMismatch {
                digest: self.digest,
                wanted,
                found: self.offset,
            })
        } else if *found != self.digest {
            Some(Error::DigestMismatch {
                wanted: self.digest,
                found: *found,
            })
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.discard()?;
            return Err(wrong);
        }
        Blobs::new(&self.shared).publish(&self.path, &self.digest, self.offset)
    }

    /// Throws the bytes away.
    pub fn discard(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(error::io("delete", &self.path))
    }

    /// Hashes what is there, so that only the rest need come. A partial file from before a power loss may have
    /// holes; then the digest does not match in the end, and the next attempt begins at 0.
    fn resume(&mut self) -> Result<()> {
        let length = self.file.metadata().map_err(error::io("read", &self.path))?.len();
        if self.size.is_some_and(|size| length > size) {
            return self.restart();
        }
        if self.shared.durability.lost_any() {
            files::forget_cached(&self.file);
        }
        if let Some(hasher) = &mut self.hasher {
            feed(&mut self.file, |bytes| hasher.update(bytes)).map_err(error::io("read", &self.path))?;
        }
        self.offset = self
            .file
            .seek(SeekFrom::End(0))
            .map_err(error::io("read", &self.path))?;
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[..count]);
        }
        self.offset += count as u64;
        if self.size.is_some_and(|size| self.offset > size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more bytes than the blob has",
            ));
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
