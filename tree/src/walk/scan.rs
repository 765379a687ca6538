//! One parallel walk over a directory: names and metadata, no file is opened.
//!
//! A small tree is walked on the calling thread, a larger one by a task a directory on rayon. A task opens its directory by its path from the top and closes it before the
//! directories below are looked at, so that neither depth nor width of a tree needs many descriptors.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rayon::Scope;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::overlay;
use super::policy::{Decision, WalkPolicy};
use crate::error::io_error;
use crate::root::{DirEntry, FileType, Metadata, Subject, open_dir_beneath, read_dir_unchecked};
use crate::{Error, Result, TreePath, Xattrs};

/// A directory with more entries than this is looked at by several tasks.
const CHUNK: usize = 512;

/// So many entries are looked at on the calling thread before rayon's threads are woken: for the small layers and
/// contexts of most steps, starting them takes longer than the walk.
const SMALL: usize = 1024;

/// How a walk is done.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    /// Which paths belong to the tree.
    pub policy: &'a dyn WalkPolicy,
    /// Whether it is a layer in overlayfs form.
    pub overlay: bool,
    /// Whether extended attributes are read.
    pub xattrs: bool,
}

/// A path that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub path: TreePath,
    pub metadata: Metadata,
    pub detail: Detail,
    /// Empty for regular files: theirs are read when they are hashed.
    pub xattrs: Xattrs,
    /// False for a directory that is only listed when something below it is.
    pub included: bool,
}

/// What the metadata do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Detail {
    None,
    Opaque,
    Whiteout,
    Target(Vec<u8>),
}

/// Everything below `dir`, sorted by path.
pub(super) fn scan(dir: BorrowedFd<'_>, options: Options<'_>) -> Result<Vec<Found>> {
    let walk = Walk {
        top: dir,
        options,
        found: Mutex::default(),
        failure: Mutex::default(),
    };
    walk.run();
    if let Some(error) = into_inner(walk.failure) {
        return Err(error);
    }
    let mut found = into_inner(walk.found);
    if found.len() > SMALL {
        rayon::slice::ParallelSliceMut::par_sort_unstable_by(&mut found[..], |a, b| a.path.cmp(&b.path));
    } else {
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }
    drop_empty_excluded(&mut found);
    Ok(found)
}

/// A poisoned lock only means that another task panicked, which rayon passes on.
fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Leaves out directories that are not included and have nothing below them that is.
fn drop_empty_excluded(found: &mut Vec<Found>) {
    if found.iter().all(|found| found.included) {
        return;
    }
    // From the end: what is below a directory comes right before it.
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    while let Some(next) = found.pop() {
        if next.included || kept.last().is_some_and(|last| last.path.starts_with(&next.path)) {
            kept.push(next);
        }
    }
    kept.reverse();
    *found = kept;
}

struct Walk<'a> {
    top: BorrowedFd<'a>,
    options: Options<'a>,
    found: Mutex<Vec<Found>>,
    /// The first error; the walk ends early then.
    failure: Mutex<Option<Error>>,
}

impl<'a> Walk<'a> {
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    /// Walks everything: a small tree on this thread, what is left of a larger one on rayon's.
    fn run(&self) {
        let mut pending = vec![TreePath::root()];
        while let Some(path) = pending.pop() {
            pending.extend(self.directory(&path));
            if lock(&self.found).len() > SMALL {
                rayon::scope(|scope| {
                    for path in std::mem::take(&mut pending) {
                        scope.spawn(move |scope| self.descend(scope, &path));
                    }
                });
            }
        }
    }

    fn descend<'s>(&'s self, scope: &Scope<'s>, path: &TreePath)
    where
        'a: 's,
    {
        for below in self.directory(path) {
            scope.spawn(move |scope| self.descend(scope, &below));
        }
    }

    /// Looks at one directory and gives those below it.
    fn directory(&self, path: &TreePath) -> Vec<TreePath> {
        if lock(&self.failure).is_some() {
            return Vec::new();
        }
        match self.read(path) {
            Ok(None) => Vec::new(),
            Ok(Some((dir, names))) => self.entries(&dir, path, &names),
            Err(error) => {
                self.fail(error);
                Vec::new()
            }
        }
    }

    /// Opens the directory and reads its names; `None` when it is gone.
    fn read(&self, path: &TreePath) -> Result<Option<(OwnedFd, Vec<DirEntry>)>> {
        let dir = match open_dir_beneath(self.top, path.as_bytes(), OFlags::RDONLY) {
            Ok(dir) => dir,
            // Removed, or replaced by something else, since its name was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_root() => return Ok(None),
            Err(errno) => return Err(io_error("open directory", path.as_bytes())(errno)),
        };
        let names = read_dir_unchecked(&dir).map_err(io_error("read directory", path.as_bytes()))?;
        Ok(Some((dir, names)))
    }

    fn entries(&self, dir: &OwnedFd, path: &TreePath, names: &[DirEntry]) -> Vec<TreePath> {
        let mut directories = Vec::new();
        let outcomes: Vec<Result<Vec<Found>>> = if names.len() <= CHUNK {
            vec![self.look_at(dir.as_fd(), path, names)]
        } else {
            use rayon::prelude::*;
            names
                .par_chunks(CHUNK)
                .map(|names| self.look_at(dir.as_fd(), path, names))
                .collect()
        };
        for outcome in outcomes {
            match outcome {
                Ok(found) => {
                    let below = found.iter().filter(|found| found.metadata.is_dir());
                    directories.extend(below.map(|found| found.path.clone()));
                    lock(&self.found).extend(found);
                }
                Err(error) => {
                    self.fail(error);
                    return Vec::new();
                }
            }
        }
        directories
    }

    fn look_at(&self, dir: BorrowedFd<'_>, parent: &TreePath, names: &[DirEntry]) -> Result<Vec<Found>> {
        let mut all = Vec::with_capacity(names.len());
        for DirEntry { name, file_type } in names {
            let path = parent.push_unchecked(name);
            let included = match self.options.policy.decide(&path, file_type.is_dir()) {
                Decision::Include => true,
                Decision::ExcludeButDescend if file_type.is_dir() => false,
                Decision::ExcludeButDescend | Decision::Prune => continue,
            };
            match self.examine(dir, name, &path) {
                Ok((metadata, detail, xattrs)) => all.push(Found {
                    path,
                    metadata,
                    detail,
                    xattrs,
                    included,
                }),
                // Removed since its name was read.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn examine(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
    ) -> Result<(Metadata, Detail, Xattrs)> {
        let metadata = Metadata::at_unchecked(dir, name).map_err(io_error("stat", path.as_bytes()))?;
        let mut detail = Detail::None;
        match metadata.file_type {
            FileType::File => return Ok((metadata, detail, Xattrs::new())),
            FileType::CharDevice if self.options.overlay && metadata.device == (0, 0) => {
                return Ok((metadata, Detail::Whiteout, Xattrs::new()));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(io_error("read link", path.as_bytes()))?;
                detail = Detail::Target(target.into_bytes());
            }
            _ => {}
        }
        let mut xattrs = Xattrs::new();
        if self.options.xattrs {
            let subject = Subject::at(dir, name);
            let (kept, marks) = overlay::read_xattrs(&subject, path, self.options.overlay)?;
            xattrs = kept;
            if marks.opaque && metadata.is_dir() {
                detail = Detail::Opaque;
            }
        }
        Ok((metadata, detail, xattrs))
    }
}
