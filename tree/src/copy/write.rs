//! Carries out a plan: directories, then everything else in parallel, then hard links, then what directories look
//! like.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType as RawType, Mode, OFlags};
use rustix::io::Errno;

use super::plan::{Item, ItemKind};
use super::target::{mode, shown};
use super::{Copied, CopyError, CopyRequest, data};
use crate::error::io_error;
use crate::root::{Metadata, open_dir_beneath, raw_mode};
use crate::walk::{StatKey, open_file};
use crate::{ContentHash, EntryKind, Refused, Root, TreePath};

/// Items of one directory that one task writes.
const CHUNK: usize = 64;

/// How often somebody else may put something in the way after it was unlinked.
const ATTEMPTS: u32 = 32;

/// Writes `items` below `base`.
pub(super) fn write(request: &CopyRequest<'_>, base: &Root, items: &[Item<'_>]) -> Result<Copied, CopyError> {
    let writer = Writer { request, base, items };
    let kept = writer.make_directories()?;
    let mut copied = Copied {
        entries: items.len() as u64,
        ..Copied::default()
    };
    for outcome in writer.write_all()? {
        copied.bytes += outcome.bytes;
        copied.refused.absorb(outcome.refused);
        if let Some((key, content)) = outcome.hash {
            copied.prehashed.add(key, content);
        }
    }
    copied.bytes += writer.make_links()?;
    copied.refused.absorb(writer.finish_directories(&kept)?);
    Ok(copied)
}

pub(super) struct Writer<'a> {
    pub(super) request: &'a CopyRequest<'a>,
    base: &'a Root,
    items: &'a [Item<'a>],
}

/// What came of writing one item.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) bytes: u64,
    pub(super) hash: Option<(StatKey, ContentHash)>,
    pub(super) refused: Refused,
}

/// Where one item is written.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) item: &'a Item<'a>,
}

impl Spot<'_> {
    pub(super) fn name(&self) -> &[u8] {
        self.item.dest.file_name().unwrap_or_default()
    }

    /// A system's error as one about this item.
    pub(super) fn failed(&self, operation: &'static str, errno: Errno) -> CopyError {
        io_error(operation, self.item.dest.as_bytes())(errno).into()
    }

    /// Does `make` and, while something is in the way, unlinks that.
    fn replacing<T>(
        &self,
        operation: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, CopyError> {
        let mut attempts = 0;
        loop {
            match make() {
                Err(Errno::EXIST) if attempts < ATTEMPTS => {
                    attempts += 1;
                    self.clear()?;
                }
                other => return other.map_err(|errno| self.failed(operation, errno)),
            }
        }
    }

    /// What is in the way of a directory must be one.
    fn expect_directory(&self) -> Result<(), CopyError> {
        let found =
            Metadata::at_unchecked(self.dir, self.name()).map_err(|errno| self.failed("stat", errno))?;
        if found.is_dir() {
            return Ok(());
        }
        Err(CopyError::OntoFile {
            source_path: self.item.source.path.clone(),
            dest: shown(self.item.dest.as_bytes()),
        })
    }

    /// Unlinks what is in the way.
    fn clear(&self) -> Result<(), CopyError> {
        match rustix::fs::unlinkat(self.dir, self.name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(CopyError::OntoDirectory {
                source_path: self.item.source.path.clone(),
                dest: shown(self.item.dest.as_bytes()),
            }),
            Err(errno) => Err(self.failed("replace", errno)),
        }
    }
}

impl Writer<'_> {
    /// Makes all directories that are missing. They get their looks at the end. Gives those that were there and are
    /// only on the way to what is copied.
    fn make_directories(&self) -> Result<HashSet<&TreePath>, CopyError> {
        let mut kept = HashSet::new();
        let mut last: Option<(TreePath, OwnedFd)> = None;
        for item in self.items.iter().filter(|item| item.source.kind.is_dir()) {
            let parent = item.dest.parent().unwrap_or_default();
            if last.as_ref().is_none_or(|(path, _)| *path != parent) {
                last = Some((parent.clone(), self.open_dest(&parent, OFlags::PATH)?));
            }
            let Some((_, dir)) = &last else { continue };
            let spot = Spot {
                dir: dir.as_fd(),
                item,
            };
            match rustix::fs::mkdirat(spot.dir, spot.name(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    spot.expect_directory()?;
                    if item.above {
                        kept.insert(&item.dest);
                    }
                }
                Err(errno) => return Err(spot.failed("create directory", errno)),
            }
        }
        Ok(kept)
    }

    /// Opens the directory `path` below the base; symlinks there are not followed.
    fn open_dest(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd, CopyError> {
        let opened = open_dir_beneath(self.base.as_fd(), path.as_bytes(), flags);
        Ok(opened.map_err(io_error("open directory", path.as_bytes()))?)
    }

    /// Writes everything but directories and hard links.
    fn write_all(&self) -> Result<Vec<Outcome>, CopyError> {
        let mut by_dir: HashMap<(TreePath, TreePath), Vec<&Item<'_>>> = HashMap::new();
        for item in self.items {
            if matches!(item.kind, ItemKind::Copy(kind) if !kind.is_dir()) {
                let dirs = (item.source.path.parent(), item.dest.parent());
                let dirs = (dirs.0.unwrap_or_default(), dirs.1.unwrap_or_default());
                by_dir.entry(dirs).or_default().push(item);
            }
        }
        let tasks: Vec<_> = by_dir
            .iter()
            .flat_map(|((source, dest), items)| items.chunks(CHUNK).map(move |items| (source, dest, items)))
            .collect();
        let outcomes: Result<Vec<Vec<Outcome>>, CopyError> = tasks
            .into_par_iter()
            .map(|(source, dest, items)| {
                let source_fd = self.open_source(source, items)?;
                let dest_fd = self.open_dest(dest, OFlags::PATH)?;
                let write = |item: &&Item<'_>| {
                    self.write_one(
                        source_fd.as_ref(),
                        Spot {
                            dir: dest_fd.as_fd(),
                            item,
                        },
                    )
                };
                items.iter().map(write).collect()
            })
            .collect();
        Ok(outcomes?.into_iter().flatten().collect())
    }

    /// Opens a directory of the source, if there is anything to be read in it.
    fn open_source(&self, path: &TreePath, items: &[&Item<'_>]) -> Result<Option<OwnedFd>, CopyError> {
        if !items
            .iter()
            .any(|item| matches!(item.kind, ItemKind::Copy(EntryKind::File { .. })))
        {
            return Ok(None);
        }
        match open_dir_beneath(self.request.source.root().as_fd(), path.as_bytes(), OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(CopyError::Changed { path: path.clone() }),
            Err(errno) => Err(io_error("open directory", path.as_bytes())(errno).into()),
        }
    }

    fn write_one(&self, source: Option<&OwnedFd>, spot: Spot<'_>) -> Result<Outcome, CopyError> {
        let ItemKind::Copy(kind) = spot.item.kind else {
            return Ok(Outcome::default());
        };
        let (node, device) = match kind {
            EntryKind::File { size, content } => {
                let Some(source) = source else {
                    return Err(CopyError::Changed {
                        path: spot.item.source.path.clone(),
                    });
                };
                return self.write_file(source, spot, *size, *content);
            }
            EntryKind::Symlink { target } => {
                spot.replacing("create symbolic link", || {
                    rustix::fs::symlinkat(&target[..], spot.dir, spot.name())
                })?;
                return self.finish_node(spot, None);
            }
            EntryKind::CharDevice { major, minor } => (RawType::CharacterDevice, (*major, *minor)),
            EntryKind::BlockDevice { major, minor } => (RawType::BlockDevice, (*major, *minor)),
            EntryKind::Fifo => (RawType::Fifo, (0, 0)),
            EntryKind::Socket => (RawType::Socket, (0, 0)),
            // A merged tree has no whiteouts; the others are written elsewhere.
            EntryKind::Directory { .. } | EntryKind::HardLink { .. } | EntryKind::Whiteout => {
                return Ok(Outcome::default());
            }
        };
        let mode = mode(self.request, spot.item.source);
        let device = rustix::fs::makedev(device.0, device.1);
        let made = spot.replacing("create node", || {
            match rustix::fs::mknodat(spot.dir, spot.name(), node, raw_mode(mode), device) {
                // Devices cannot be made in a user namespace.
                Err(Errno::PERM) if matches!(node, RawType::CharacterDevice | RawType::BlockDevice) => {
                    Ok(false)
                }
                other => other.map(|()| true),
            }
        })?;
        if !made {
            let refused = Refused {
                devices: 1,
                ..Refused::default()
            };
            return Ok(Outcome {
                refused,
                ..Outcome::default()
            });
        }
        self.finish_node(spot, Some(mode))
    }

    fn write_file(
        &self,
        source_dir: &OwnedFd,
        spot: Spot<'_>,
        size: u64,
        expected: ContentHash,
    ) -> Result<Outcome, CopyError> {
        let entry = spot.item.source;
        let changed = || CopyError::Changed {
            path: entry.path.clone(),
        };
        let mode = mode(self.request, entry);
        let from = match open_file(source_dir.as_fd(), entry.path.file_name().unwrap_or_default()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Err(changed()),
            other => other.map_err(io_error("open", entry.path.as_bytes()))?,
        };
        // Who may not write to a file may not give it attributes.
        let create_mode = mode & 0o777 | if entry.xattrs.is_empty() { 0 } else { 0o200 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = spot.replacing("create", || {
            rustix::fs::openat(spot.dir, spot.name(), flags, Mode::from_raw_mode(create_mode))
        })?;
        let failed = |errno| match errno {
            // A directory took the file's place.
            Errno::ISDIR => changed(),
            errno => spot.failed("copy to", errno),
        };
        let (content, bytes) = if self.request.source.verify() {
            data::copy_hashed(&from, &to).map_err(failed)?
        } else {
            (expected, data::copy_plain(&from, &to, size).map_err(failed)?)
        };
        if content != expected || bytes != size {
            return Err(changed());
        }
        let refused = self.finish_open(&to, spot, mode)?;
        let metadata = Metadata::at_unchecked(to.as_fd(), c"").map_err(|errno| spot.failed("stat", errno))?;
        Ok(Outcome {
            bytes,
            hash: Some((metadata.key(), content)),
            refused,
        })
    }

    /// Makes the hard links. Gives the bytes copied where a file cannot have more names.
    fn make_links(&self) -> Result<u64, CopyError> {
        let mut bytes = 0;
        for item in self.items {
            let ItemKind::Link(first) = item.kind else {
                continue;
            };
            let first = &self.items[first];
            let open_parent =
                |item: &Item<'_>| self.open_dest(&item.dest.parent().unwrap_or_default(), OFlags::PATH);
            let (from, to) = (open_parent(first)?, open_parent(item)?);
            let spot = Spot {
                dir: to.as_fd(),
                item,
            };
            let first_name = first.dest.file_name().unwrap_or_default();
            let linked = spot.replacing("create hard link", || {
                match rustix::fs::linkat(&from, first_name, spot.dir, spot.name(), AtFlags::empty()) {
                    // As many names as the file system allows: this one becomes a file of its own.
                    Err(Errno::MLINK) => Ok(false),
                    other => other.map(|()| true),
                }
            })?;
            if let (false, ItemKind::Copy(EntryKind::File { size, content })) = (linked, first.kind) {
                let source = self.open_source(&first.source.path.parent().unwrap_or_default(), &[first])?;
                let Some(source) = source else { continue };
                let copy = Item {
                    source: first.source,
                    kind: first.kind,
                    dest: item.dest.clone(),
                    above: false,
                };
                let spot = Spot {
                    dir: to.as_fd(),
                    item: &copy,
                };
                bytes += self.write_file(&source, spot, *size, *content)?.bytes;
            }
        }
        Ok(bytes)
    }

    /// Gives directories their looks, now that nothing is written into them any more. Those of `kept` take the mode of
    /// the source alone, as with Docker.
    fn finish_directories(&self, kept: &HashSet<&TreePath>) -> Result<Refused, CopyError> {
        let directories: Vec<_> = self
            .items
            .iter()
            .filter(|item| item.source.kind.is_dir())
            .collect();
        // Those below come first: a mode may close the way to them.
        let mut levels: HashMap<usize, Vec<&Item<'_>>> = HashMap::new();
        for item in directories {
            levels
                .entry(item.dest.components().count())
                .or_default()
                .push(item);
        }
        let mut levels: Vec<_> = levels.into_iter().collect();
        levels.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        let mut refused = Refused::default();
        for (_, items) in levels {
            let finished: Result<Vec<Refused>, CopyError> = items
                .into_par_iter()
                .map(|item| {
                    let fd = self.open_dest(&item.dest, OFlags::RDONLY)?;
                    if kept.contains(&item.dest) {
                        return rustix::fs::fchmod(&fd, raw_mode(item.source.mode))
                            .map(|()| Refused::default())
                            .map_err(|errno| io_error("change mode of", item.dest.as_bytes())(errno).into());
                    }
                    self.finish_open(
                        &fd,
                        Spot {
                            dir: fd.as_fd(),
                            item,
                        },
                        mode(self.request, item.source),
                    )
                })
                .collect();
            finished?.into_iter().for_each(|one| refused.absorb(one));
        }
        Ok(refused)
    }
}
