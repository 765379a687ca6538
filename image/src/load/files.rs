//! `ImageFiles`: the files of an archive or folder of images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use super::LoadError;
use crate::layer::{decompress, fill};
use crate::tarball::{BLOCK, Chunk, EntryType, TarEntry, TarReader, is_tar_header, shown};
use crate::{Digest, Sha256, limits};

/// Files are copied in pieces of this size.
const BUFFER: usize = 128 << 10;

/// A file of an archive, in a folder of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// The files of an archive or folder of images, each copied into a folder of ours under a name of ours: those of a stream
/// at once, those of a folder when they are asked for.
#[derive(Debug)]
pub struct ImageFiles {
    folder: PathBuf,
    /// The folder that is read, if it is one.
    source: Option<PathBuf>,
    files: BTreeMap<String, StoredFile>,
    /// What links name, inside the archive; nothing for those that lead out of it.
    links: BTreeMap<String, Option<String>>,
    /// How many files were copied.
    copied: usize,
    /// Bytes of documents that were given out.
    documents: usize,
}

impl ImageFiles {
    /// The files of the tar `reader`, compressed or not, put into the empty directory `folder`.
    pub fn of_tar(reader: impl Read + Send, folder: &Path) -> Result<Self, LoadError> {
        let mut plain = decompress(reader).map_err(LoadError::Read)?;
        let mut start = [0; BLOCK];
        let filled = fill(&mut plain, &mut start).map_err(LoadError::Read)?;
        if filled == 0 {
            return Err(LoadError::NoBytes);
        }
        if filled < BLOCK || !is_tar_header(&start) {
            return Err(LoadError::NoTar);
        }
        let mut tar = TarReader::new(Cursor::new(start).chain(plain));
        let mut files = Self::new(folder, None);
        let mut entries = 0;
        while let Some(entry) = tar.next()? {
            entries += 1;
            if entries > limits::ARCHIVE_ENTRIES {
                let limit = limits::ARCHIVE_ENTRIES;
                return Err(LoadError::TooMany {
                    what: "entries",
                    limit,
                });
            }
            files.entry(&entry, &mut tar)?;
        }
        // Who writes into a pipe is not to be cut off, and a compressed stream has its checksum at the end.
        tar.drain()?;
        Ok(files)
    }

    /// The files of the directory `source`; copies go into the empty directory `folder`.
    pub fn of_directory(source: &Path, folder: &Path) -> Self {
        Self::new(folder, Some(source.to_owned()))
    }

    fn new(folder: &Path, source: Option<PathBuf>) -> Self {
        Self {
            folder: folder.to_owned(),
            source,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            copied: 0,
            documents: 0,
        }
    }

    fn entry<R: Read>(&mut self, entry: &TarEntry, tar: &mut TarReader<R>) -> Result<(), LoadError> {
        let name = entry_name(&entry.path)?;
        if name.is_empty() {
            return Ok(());
        }
        let link = || String::from_utf8(entry.link.clone()).ok();
        match entry.kind {
            EntryType::File => {
                let hex = |reason: &str| LoadError::Kind {
                    name: name.clone(),
                    reason: reason.to_owned(),
                };
                if entry.holes() > 0 {
                    return Err(hex("is stored as a sparse file; write the archive without holes"));
                }
                let file = self.copy(&name, |write| {
                    tar.content(entry, |chunk| match chunk {
                        Chunk::Data(bytes) => write(bytes),
                        Chunk::Hole(_) => Err(hex("is stored as a sparse file")),
                    })
                })?;
                self.add(name, file)
            }
            EntryType::Symlink => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = link().and_then(|link| inside(parent, &link));
                self.add_link(name, target)
            }
            EntryType::HardLink => {
                let target = link().and_then(|link| inside("", &link));
                self.add_link(name, target)
            }
            // Nothing that anybody refers to: who does so hears that it is missing.
            EntryType::Directory | EntryType::CharDevice | EntryType::BlockDevice | EntryType::Fifo => Ok(()),
        }
    }

    /// A file of ours with what `produce` writes.
    fn copy(
        &mut self,
        name: &str,
        produce: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), LoadError>) -> Result<(), LoadError>,
    ) -> Result<StoredFile, LoadError> {
        let path = self.folder.join(self.copied.to_string());
        self.copied += 1;
        let failed = |source| LoadError::File {
            operation: "write",
            path: path.clone(),
            source,
        };
        let mut file = File::create_new(&path).map_err(failed)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        produce(&mut |bytes| {
            hasher.update(bytes);
            size += bytes.len() as u64;
            file.write_all(bytes).map_err(failed)
        })?;
        let digest = hasher.finish();
        if let Some(wanted) = digest_in(name).filter(|wanted| *wanted != digest) {
            return Err(LoadError::Digest {
                name: name.to_owned(),
                wanted: wanted.to_string(),
                found: digest,
                size,
            });
        }
        Ok(StoredFile { path, size, digest })
    }

    fn add(&mut self, name: String, file: StoredFile) -> Result<(), LoadError> {
        let known = self.files.get(&name);
        if self.links.contains_key(&name) || known.is_some_and(|known| known.digest != file.digest) {
            return Err(LoadError::Twice { name });
        }
        if known.is_some() {
            return remove(&file.path);
        }
        self.files.insert(name, file);
        Ok(())
    }

    fn add_link(&mut self, name: String, target: Option<String>) -> Result<(), LoadError> {
        let other = self.links.get(&name).is_some_and(|known| *known != target);
        if other || self.files.contains_key(&name) {
            return Err(LoadError::Twice { name });
        }
        self.links.insert(name, target);
        Ok(())
    }

    /// Whether there is a file of that name.
    pub fn contains(&mut self, name: &str) -> Result<bool, LoadError> {
        if let Some(source) = &self.source {
            let path = source.join(document_name(name)?);
            return Ok(fs::metadata(path).is_ok_and(|metadata| metadata.is_file()));
        }
        Ok(self.find(name)?.is_some())
    }

    /// The file of that name, links followed.
    pub fn get(&mut self, name: &str) -> Result<Option<StoredFile>, LoadError> {
        match self.source.clone() {
            Some(source) => self.copy_from(&source, name),
            None => self.find(name),
        }
    }

    /// [`Self::get`], or an error that says what needs it.
    pub fn require(&mut self, name: &str, by: &str) -> Result<StoredFile, LoadError> {
        self.get(name)?.ok_or_else(|| missing(name, by))
    }

    fn find(&self, name: &str) -> Result<Option<StoredFile>, LoadError> {
        let mut at = document_name(name)?;
        for _ in 0..limits::SYMLINKS {
            match self.links.get(&at) {
                None => return Ok(self.files.get(&at).cloned()),
                Some(Some(target)) => at.clone_from(target),
                Some(None) => {
                    return Err(LoadError::Kind {
                        name: at,
                        reason: "is a link that leads out of the archive".to_owned(),
                    });
                }
            }
        }
        Err(LoadError::Kind {
            name: at,
            reason: "is a link to itself".to_owned(),
        })
    }

    /// Copies a file of the folder that is read.
    fn copy_from(&mut self, source: &Path, name: &str) -> Result<Option<StoredFile>, LoadError> {
        let name = document_name(name)?;
        if let Some(known) = self.files.get(&name) {
            return Ok(Some(known.clone()));
        }
        if !self.contains(&name)? {
            return Ok(None);
        }
        let path = source.join(&name);
        let failed = |source| LoadError::File {
            operation: "read",
            path: path.clone(),
            source,
        };
        let mut reader = File::open(&path).map_err(failed)?;
        let file = self.copy(&name, |write| {
            let mut buffer = vec![0; BUFFER];
            loop {
                match fill(&mut reader, &mut buffer).map_err(failed)? {
                    0 => return Ok(()),
                    filled => write(&buffer[..filled])?,
                }
            }
        })?;
        self.files.insert(name, file.clone());
        Ok(Some(file))
    }

    /// A file that is read as a whole: a manifest, a configuration.
    pub(super) fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let limit = limits::CONFIG_SIZE;
        let too_long = |limit| LoadError::TooLong {
            name: name.to_owned(),
            limit,
        };
        if let Some(source) = &self.source {
            let metadata = fs::metadata(source.join(document_name(name)?));
            if metadata.is_ok_and(|metadata| metadata.len() > limit as u64) {
                return Err(too_long(limit));
            }
        }
        let Some(file) = self.get(name)? else {
            return Ok(None);
        };
        if file.size > limit as u64 {
            return Err(too_long(limit));
        }
        self.documents += file.size as usize;
        if self.documents > limits::ARCHIVE_DOCUMENTS {
            let limit = limits::ARCHIVE_DOCUMENTS;
            return Err(LoadError::TooMany {
                what: "bytes of manifests and configurations",
                limit,
            });
        }
        let bytes = fs::read(&file.path).map_err(|source| LoadError::File {
            operation: "read",
            path: file.path.clone(),
            source,
        })?;
        Ok(Some(bytes))
    }

    /// [`Self::document`], or an error that says what needs it.
    pub(super) fn required_document(&mut self, name: &str, by: &str) -> Result<Vec<u8>, LoadError> {
        self.document(name)?.ok_or_else(|| missing(name, by))
    }

    /// A copy of a file of ours, decompressed.
    pub fn decompressed(&mut self, file: &StoredFile) -> Result<StoredFile, LoadError> {
        let failed = |source| LoadError::File {
            operation: "decompress",
            path: file.path.clone(),
            source,
        };
        let mut reader = File::open(&file.path).and_then(decompress).map_err(failed)?;
        self.copy("", |write| {
            let mut buffer = vec![0; BUFFER];
            let mut size = 0;
            loop {
                let filled = fill(&mut reader, &mut buffer).map_err(failed)?;
                size += filled as u64;
                if size > limits::LAYER_SIZE {
                    return Err(failed(io::Error::other("it is longer than any layer may be")));
                }
                match filled {
                    0 => return Ok(()),
                    filled => write(&buffer[..filled])?,
                }
            }
        })
    }
}

fn missing(name: &str, by: &str) -> LoadError {
    LoadError::Missing {
        name: name.to_owned(),
        by: by.to_owned(),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), LoadError> {
    fs::remove_file(path).map_err(|source| LoadError::File {
        operation: "remove",
        path: path.to_owned(),
        source,
    })
}

/// The digest that a file's name promises: that of a blob of a layout, or of one of Docker's configurations.
fn digest_in(name: &str) -> Option<Digest> {
    let hex = name
        .strip_prefix("blobs/sha256/")
        .or_else(|| name.strip_suffix(".json"))?;
    Digest::from_hex(hex).ok()
}

/// The name of an archive's entry: relative, without `.` and `..`. Empty for the archive's root.
fn entry_name(path: &[u8]) -> Result<String, LoadError> {
    let wrong = |reason| LoadError::Name {
        name: shown(path),
        reason,
    };
    if path.len() > limits::PATH_SIZE {
        return Err(wrong("is longer than any path"));
    }
    let text = std::str::from_utf8(path).map_err(|_| wrong("is no UTF-8"))?;
    if text.starts_with('/') {
        return Err(wrong("is an absolute path"));
    }
    inside("", text).ok_or_else(|| wrong("leads out of the archive"))
}

/// A name that a document gives, as one of the archive's.
fn document_name(name: &str) -> Result<String, LoadError> {
    entry_name(name.as_bytes())
}

/// `path` as seen from the directory `parent`, where that is inside the archive.
fn inside(parent: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in parent.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
