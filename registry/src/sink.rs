//! Where blobs go and where uploads come from.

use std::io::{self, Read};

/// Receives one blob, possibly in several stretches.
///
/// The client writes in order, without gaps, and never more than the descriptor's size. It has
/// hashed every byte (those of an earlier process through [`existing`](Self::existing)) when
/// [`Client::fetch_blob`](crate::Client::fetch_blob) returns `Ok`: size and digest are then right
/// and the sink's owner may publish. After an error the bytes so far may be kept for the next
/// attempt; where they are known to be wrong (digest or size mismatch) the client has already called
/// [`restart`](Self::restart).
pub trait BlobSink {
    /// Bytes already there, written earlier by this or another process.
    fn offset(&self) -> u64;

    /// The bytes that [`offset`](Self::offset) counts, from the first one, so that the client can
    /// hash them before it resumes. `None`: they cannot be read, so the client starts over.
    fn existing(&mut self) -> io::Result<Option<Box<dyn Read + '_>>>;

    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Drops everything; the next write is the blob's first byte.
    fn restart(&mut self) -> io::Result<()>;
}

/// Blobs that fit in memory: configs and attestations.
impl BlobSink for Vec<u8> {
    fn offset(&self) -> u64 {
        self.len() as u64
    }

    fn existing(&mut self) -> io::Result<Option<Box<dyn Read + '_>>> {
        Ok(Some(Box::new(io::Cursor::new(self.as_slice()))))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// Gives the bytes of a blob to upload, again for every attempt.
pub trait BlobSource {
    /// A reader that starts `offset` bytes into the blob.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl BlobSource for [u8] {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(&self[start..]))
    }
}

impl BlobSource for Vec<u8> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.as_slice().open(offset)
    }
}

/// A blob in a file, such as one of the content store.
impl BlobSource for std::path::Path {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        use std::io::Seek as _;
        let mut file = std::fs::File::open(self)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

impl BlobSource for std::path::PathBuf {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.as_path().open(offset)
    }
}
