//! Caches in folders: OCI layouts, where a tag names the cache.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_image::layout::{LayoutError, LayoutReader, REF_NAME};
use kiln_image::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use kiln_registry::BlobSource;
use rustix::fs::FlockOperation;

use super::CacheError;
use super::place::{Place, Root, Target};

/// A name in a layout.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    tag: String,
    digest: Option<Digest>,
    /// Held while the layout is changed; the lock is on the directory itself.
    _lock: Option<File>,
}

impl Folder {
    /// For reading.
    pub(super) fn open(path: &Path, tag: &str, digest: Option<&Digest>) -> Self {
        Self {
            path: path.to_owned(),
            tag: tag.to_owned(),
            digest: digest.copied(),
            _lock: None,
        }
    }

    /// For writing: makes the folder, and waits for others that write to it.
    pub(super) fn create(path: &Path, tag: &str) -> Result<Self, CacheError> {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
        let lock = File::open(path).map_err(failed(path))?;
        rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive)
            .map_err(|errno| failed(path)(errno.into()))?;
        for folder in [path, &blobs] {
            sweep_partial(folder).map_err(failed(folder))?;
        }
        Ok(Self {
            _lock: Some(lock),
            ..Self::open(path, tag, None)
        })
    }

    fn reader(&self) -> Result<Option<LayoutReader>, CacheError> {
        match LayoutReader::open(&self.path) {
            Ok(reader) => Ok(Some(reader)),
            Err(LayoutError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn entry(&self, index: &Index) -> Option<Descriptor> {
        let wanted = |entry: &&Descriptor| match &self.digest {
            Some(digest) => entry.digest == *digest,
            None => entry.annotations.get(REF_NAME) == Some(&self.tag),
        };
        index.manifests.iter().find(wanted).cloned()
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path
            .join("blobs")
            .join(digest.algorithm())
            .join(digest.hex())
    }

    /// Deletes the blobs of the manifest that had the name until now, as far as no other entry has them, and those
    /// that a killed export left.
    fn collect(&self, old: Option<&Descriptor>, index: &Index) -> Result<(), CacheError> {
        let blobs = |entry: &Descriptor| -> Option<Vec<Digest>> {
            let bytes = fs::read(self.blob_path(&entry.digest)).ok()?;
            let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
            let all = manifest.layers.iter().map(|layer| layer.digest);
            Some(all.chain([manifest.config.digest, entry.digest]).collect())
        };
        let mut gone = old.and_then(blobs).unwrap_or_default();
        gone.extend(self.forgotten()?);
        let mut kept = std::collections::HashSet::new();
        for entry in &index.manifests {
            match blobs(entry) {
                Some(digests) => kept.extend(digests),
                // Something else than an image: what it needs is not known, so everything stays.
                None => return Ok(()),
            }
        }
        for digest in gone.iter().filter(|digest| !kept.contains(digest)) {
            let path = self.blob_path(digest);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Folder {
    /// The blobs that nobody wrote or replaced lately: whoever was about to refer to them is gone.
    fn forgotten(&self) -> Result<Vec<Digest>, CacheError> {
        let folder = self.path.join("blobs/sha256");
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let entry = entry.map_err(failed(&folder))?;
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > FORGOTTEN));
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
            found.extend(digest.filter(|_| is_old));
        }
        Ok(found)
    }
}

/// Blobs without an entry that are younger may be those of another program that has not written the index yet.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// Deletes what killed exports left half-written. The layout is locked: nobody is at it.
fn sweep_partial(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

const PARTIAL: &str = "partial";

/// Gives a file its name when it is complete.
fn write(path: &Path, mut from: impl Read) -> Result<(), CacheError> {
    let partial = path.with_extension(PARTIAL);
    let written = File::create(&partial).and_then(|mut file| {
        io::copy(&mut from, &mut file)?;
        file.flush()?;
        fs::rename(&partial, path)
    });
    written.map_err(|error| {
        // The error that is told is the first one.
        let _ = fs::remove_file(&partial);
        failed(path)(error)
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CacheError + '_ {
    |source| CacheError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Place for Folder {
    fn root(&self) -> Result<Option<Root>, CacheError> {
        let Some(reader) = self.reader()? else {
            return Ok(None);
        };
        let Some(entry) = self.entry(reader.index()) else {
            return Ok(None);
        };
        let bytes = reader.read_blob(&entry)?;
        Ok(Some(Root {
            digest: entry.digest,
            bytes,
        }))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CacheError> {
        self.read(descriptor)
    }

    fn read(&self, blob: &Descriptor) -> Result<Vec<u8>, CacheError> {
        let Some(reader) = self.reader()? else {
            return Err(LayoutError::Missing { digest: blob.digest }.into());
        };
        let mut bytes = Vec::new();
        reader
            .open_blob(&blob.digest)?
            .take(blob.size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed(&self.blob_path(&blob.digest)))?;
        let (found, found_size) = (Digest::sha256_of(&bytes), bytes.len() as u64);
        if found != blob.digest || found_size != blob.size {
            let (expected, expected_size) = (blob.digest, blob.size);
            return Err(LayoutError::Blob {
                expected,
                expected_size,
                found,
                found_size,
            }
            .into());
        }
        Ok(bytes)
    }
}

impl Target for Folder {
    fn has(&self, blob: &Descriptor) -> Result<bool, CacheError> {
        let path = self.blob_path(&blob.digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len() == blob.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    fn take_over(&self, _blob: &Descriptor, _from: &Reference) -> Result<bool, CacheError> {
        Ok(false)
    }

    fn put(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        let path = self.blob_path(&blob.digest);
        let reader = source.open(0).map_err(failed(&path))?;
        write(&path, reader)
    }

    fn is_locked(&self) -> bool {
        true
    }

    fn publish(&self, manifest: &[u8]) -> Result<(), CacheError> {
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, manifest);
        self.put(&entry, &manifest.to_vec())?;
        let tag = self.tag.clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag);
        let mut index = match self.reader()? {
            Some(reader) => reader.index().clone(),
            None => Index::new(Vec::new()),
        };
        let old = self.entry(&index);
        index
            .manifests
            .retain(|other| other.annotations.get(REF_NAME) != Some(&self.tag));
        index.manifests.push(entry);
        write(&self.path.join("index.json"), &index.to_bytes()[..])?;
        write(
            &self.path.join("oci-layout"),
            &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
        )?;
        self.collect(old.as_ref(), &index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn what_a_killed_export_left_goes_with_the_next_one() {
        let scratch = TempDir::new();
        let path = scratch.path().join("cache");
        let blob = |bytes: &[u8]| Descriptor::of("m/t", bytes);
        let at = |bytes: &[u8]| path.join("blobs/sha256").join(blob(bytes).digest.hex());
        let manifest = |layers: Vec<Descriptor>| Manifest::new(blob(b"config"), layers).to_bytes();
        let old = SystemTime::now() - 2 * FORGOTTEN;
        let killed = Folder::create(&path, "one").unwrap();
        for bytes in [b"old-lost", b"new-lost", b"old-used"] {
            killed.put(&blob(bytes), &bytes.to_vec()).unwrap();
            if bytes.starts_with(b"old") {
                let file = File::options().write(true).open(at(bytes)).unwrap();
                file.set_modified(old).unwrap();
            }
        }
        fs::write(at(b"x").with_extension(PARTIAL), "half").unwrap();
        fs::write(path.join("index.partial"), "half").unwrap();
        drop(killed);
        let next = Folder::create(&path, "one").unwrap();
        next.publish(&manifest(vec![blob(b"old-used")])).unwrap();
        assert!(!at(b"old-lost").exists() && at(b"new-lost").exists() && at(b"old-used").exists());
        let left: Vec<_> = [&path, &path.join("blobs/sha256")]
            .into_iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap().flatten())
            .filter(|entry| entry.path().extension().is_some())
            .map(|entry| entry.path())
            .collect();
        assert_eq!(left, [path.join("index.json")]);
    }
}
