//! Ordinary tar archives, as `ADD` takes them.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use kiln_tree::root::{Device, FileType};
use kiln_tree::{Refused, Root, Timestamp, TreePath};

use crate::layer::{Attributes, Encoding, LayerError, Placer, decompress};
use crate::layer::{checked_path, is_foreign_xattr, place_error};
use crate::limits;
use crate::tarball::{BLOCK, EntryType, TarEntry, TarReader, is_tar_header, shown};

/// As many bytes as [`looks_like_one`] may want to see.
pub const START: usize = BLOCK;

/// Whether what begins with `start`, [`START`] bytes or all there is, is to be taken for an archive: it is compressed, or
/// has a tar header. Told by content, never by name; whether it really is one shows when it is [opened](open).
pub fn looks_like_one(start: &[u8]) -> bool {
    Encoding::of(start) != Encoding::Plain || is_tar_header(start)
}

/// The plain tar in `reader`, if it is one, compressed or not; told by content, never by name. What cannot be
/// decompressed is no archive.
pub fn open<'a>(reader: impl Read + Send + 'a) -> io::Result<Option<Box<dyn Read + Send + 'a>>> {
    match begin(reader) {
        Ok(opened) => Ok(opened),
        // How the decoders say that their input is not what it looked like.
        Err(error) => match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => Ok(None),
            _ => Err(error),
        },
    }
}

fn begin<'a>(reader: impl Read + Send + 'a) -> io::Result<Option<Box<dyn Read + Send + 'a>>> {
    let mut plain = decompress(reader)?;
    let mut start = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match plain.read(&mut start[filled..]) {
            Ok(0) => return Ok(None),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(is_tar_header(&start).then(|| Box::new(Cursor::new(start).chain(plain)) as Box<dyn Read + Send + 'a>))
}

/// What [`extract`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What the file system or the kernel refused.
    pub refused: Refused,
}

/// Extracts the tar `reader` (plain, from [`open`]) into the directory `dest_path` of `dest`, which is made if missing.
/// Names are never whiteouts. All entries get `owner` where one is given. Symbolic links, those of the archive and those
/// that are there already, are followed as if `dest_path` were the root, as Docker does; nothing leads out of it.
pub fn extract(
    reader: impl Read,
    dest: &Root,
    dest_path: impl AsRef<[u8]>,
    owner: Option<(u32, u32)>,
) -> Result<Extracted, LayerError> {
    let dest_path = dest_path.as_ref();
    let shown_path = TreePath::clean(dest_path).unwrap_or_default();
    let new_owner = Some(owner.unwrap_or((0, 0)));
    dest.create_dir_all(dest_path, 0o755, new_owner)
        .map_err(place_error(&shown_path))?;
    let root = dest.sub_root(dest_path).map_err(place_error(&shown_path))?;
    let mut tar = TarReader::new(reader);
    let mut extractor = Extractor {
        root: &root,
        placer: Placer::new(&root),
        owner,
        directories: BTreeMap::new(),
        done: Extracted::default(),
    };
    while let Some(entry) = tar.next()? {
        extractor.entry(entry, &mut tar)?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    root: &'a Root,
    placer: Placer<'a>,
    owner: Option<(u32, u32)>,
    /// Times of directories come last: filling them changes the times.
    directories: BTreeMap<TreePath, Timestamp>,
    done: Extracted,
}

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, mut entry: TarEntry, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        self.done.entries += 1;
        if self.done.entries > limits::LAYER_ENTRIES {
            let limit = limits::LAYER_ENTRIES;
            return Err(LayerError::TooMuch {
                what: "entries",
                limit,
            });
        }
        let path = checked_path(&entry.path)?;
        let Some(parent) = path.parent() else {
            // The directory that everything goes into keeps what it is.
            return Ok(());
        };
        entry.xattrs.retain(|name, _| !is_foreign_xattr(name));
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let new_owner = Some(self.owner.unwrap_or((0, 0)));
        self.root
            .create_dir_all(&parent, 0o755, new_owner)
            .map_err(place_error(&path))?;
        let there = self.root.lstat_opt(&path).map_err(place_error(&path))?;
        let is_dir = there.is_some_and(|there| there.file_type == FileType::Directory);
        if entry.kind == EntryType::Directory {
            return self.directory(path, &entry, there.is_some(), is_dir);
        }
        if entry.kind == EntryType::HardLink {
            return self.hard_link(&path, &entry, there.is_some());
        }
        if there.is_some() {
            self.remove(&path)?;
        }
        let attributes = Attributes::from(&entry);
        let (major, minor) = entry.device;
        match entry.kind {
            EntryType::File => {
                self.placer.file(&path, &attributes, tar, &entry)?;
                self.done.bytes = self.done.bytes.saturating_add(entry.size);
                if self.done.bytes > limits::LAYER_SIZE {
                    let limit = limits::LAYER_SIZE;
                    return Err(LayerError::TooMuch { what: "bytes", limit });
                }
            }
            EntryType::Symlink => self.placer.symlink(&path, &entry.link, &attributes)?,
            EntryType::Fifo => self.placer.fifo(&path, &attributes)?,
            EntryType::CharDevice => {
                self.placer
                    .device(&path, Device::Char(major, minor), &attributes)?;
            }
            EntryType::BlockDevice => {
                self.placer
                    .device(&path, Device::Block(major, minor), &attributes)?;
            }
            EntryType::Directory | EntryType::HardLink => {}
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: TreePath,
        entry: &TarEntry,
        there: bool,
        is_dir: bool,
    ) -> Result<(), LayerError> {
        if there && !is_dir {
            self.remove(&path)?;
        }
        if !is_dir {
            self.root.create_dir(&path, 0o700).map_err(place_error(&path))?;
        }
        let attributes = Attributes::from(entry);
        self.placer.attributes(&path, &attributes, false)?;
        self.directories.insert(path, attributes.mtime);
        Ok(())
    }

    fn hard_link(&mut self, path: &TreePath, entry: &TarEntry, there: bool) -> Result<(), LayerError> {
        let missing = || LayerError::HardLinkTarget {
            path: shown(&entry.path),
            target: shown(&entry.link),
        };
        let target = checked_path(&entry.link)?;
        let found = self
            .root
            .lstat_opt(&target)
            .map_err(place_error(path))?
            .ok_or_else(missing)?;
        if found.file_type == FileType::Directory {
            return Err(missing());
        }
        if there {
            let same = self.root.lstat(path).map_err(place_error(path))?;
            if (same.dev, same.ino) == (found.dev, found.ino) {
                return Ok(());
            }
            if target.starts_with(path) {
                return Err(missing());
            }
            self.remove(path)?;
        }
        self.root.hard_link(&target, path).map_err(place_error(path))
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), LayerError> {
        self.directories
            .retain(|directory, _| !directory.starts_with(path));
        self.root.remove_all(path).map_err(place_error(path))?;
        Ok(())
    }

    fn finish(self) -> Result<Extracted, LayerError> {
        for (path, mtime) in self.directories.iter().rev() {
            // What a symbolic link on the way led to may have been replaced by now.
            let there = self.root.lstat_opt(path).map_err(place_error(path))?;
            if there.is_some_and(|there| there.file_type == FileType::Directory) {
                self.root.set_times(path, *mtime).map_err(place_error(path))?;
            }
        }
        Ok(Extracted {
            refused: self.placer.refused,
            ..self.done
        })
    }
}
