//! Blobs whose digest is known only when they are complete.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_image::Digest;

use super::Blobs;
use crate::{Result, TempDir, error, store::Shared};

/// A blob in the making. Dropped, it is deleted.
#[derive(Debug)]
pub struct BlobDraft {
    shared: Arc<Shared>,
    // Before the folder: closed first.
    file: File,
    path: PathBuf,
    _folder: TempDir,
}

impl Blobs<'_> {
    /// Begins a blob of unknown digest.
    pub fn draft(&self) -> Result<BlobDraft> {
        let folder = self.shared.temp.dir()?;
        let path = folder.path().join("blob");
        let file = File::create_new(&path).map_err(error::io("create", &path))?;
        Ok(BlobDraft {
            shared: Arc::clone(self.shared),
            file,
            path,
            _folder: folder,
        })
    }

    /// Makes a blob of a complete file below the store's [temporary folder](crate::Store::temp), which is moved. The
    /// caller has hashed and counted its bytes.
    pub fn adopt(&self, path: &Path, digest: &Digest, size: u64) -> Result<()> {
        let found = std::fs::metadata(path).map_err(error::io("read", path))?.len();
        if found != size {
            return Err(crate::Error::SizeMismatch {
                digest: *digest,
                wanted: size,
                found,
            });
        }
        if self.contains(digest)? {
            return Ok(());
        }
        self.publish(path, digest, size)
    }
}

impl BlobDraft {
    /// The file, for reading it while it grows. It stays open under whatever name the blob gets, or under none.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(error::io("open", &self.path))
    }

    /// Gives the blob its name. The caller has hashed and counted the bytes as they passed.
    pub fn commit_hashed(self, digest: &Digest, size: u64) -> Result<()> {
        Blobs::new(&self.shared).adopt(&self.path, digest, size)
    }
}

impl Write for BlobDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn is_read_while_it_grows_and_after_its_end() {
        use std::io::Read as _;
        let (_scratch, store) = testing::store();
        for name in ["its own", "that of a blob which is there"] {
            let mut draft = store.blobs().draft().unwrap();
            let mut reader = draft.reader().unwrap();
            let mut text = String::new();
            draft.write_all(b"by").unwrap();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "by", "{name}");
            draft.write_all(b"tes").unwrap();
            draft.commit_hashed(&Digest::sha256_of(b"bytes"), 5).unwrap();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "bytes", "{name}");
        }
    }

    #[test]
    fn gets_its_name_when_it_is_complete_and_leaves_nothing_otherwise() {
        let (_scratch, store) = testing::store();
        let digest = Digest::sha256_of(b"bytes");
        let mut draft = store.blobs().draft().unwrap();
        draft.write_all(b"byt").unwrap();
        let folder = draft.path.parent().unwrap().to_owned();
        assert!(draft.commit_hashed(&digest, 5).is_err());
        assert!(!folder.exists());
        assert!(!store.blobs().contains(&digest).unwrap());
        for _ in 0..2 {
            let mut draft = store.blobs().draft().unwrap();
            draft.write_all(b"bytes").unwrap();
            draft.commit_hashed(&digest, 5).unwrap();
            assert_eq!(store.blobs().read(&digest).unwrap().unwrap(), b"bytes");
        }
    }
}
