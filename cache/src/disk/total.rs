//! The size of the whole store, found a part at a time: `index/measuring`.
//!
//! A large store takes seconds to measure. So that no command waits for it, it is measured beside commands; where one
//! ends before the measuring does, how far it came is kept, and the next command goes on there. Each one gets at least
//! one thing done, so it comes to an end. What is published or deleted meanwhile may be counted twice or not at all;
//! that the file system has filled since the beginning is taken into account by [`size`].

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Stop, measure, never, prune::Space, size, survey};
use crate::{Result, Store, error, files, sealed};

const KIND: &str = "measuring";
const VERSION: u32 = 1;
/// What was begun longer ago is begun anew.
const BELIEVED_MS: u64 = 24 * 60 * 60 * 1000;
/// Folders so far below the store's are measured as a whole.
const DEEPEST: usize = 8;

/// How far the measuring is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// What is done takes so much.
    total: u64,
    /// The last thing that is done: the names on the way to it. All that sorts before it is done, too.
    done: Vec<Vec<u8>>,
    began_ms: u64,
    /// What of the file system was filled when it began.
    filled: u64,
}

/// Goes on with measuring until it is done, and returns the size then, or until it is stopped. `None` also while another
/// process is at it.
pub(super) fn go_on(store: &Store, space: &Space, stop: Stop<'_>) -> Result<Option<u64>> {
    let lock_path = store.root().join("locks/measuring");
    let lock = files::open_lock(&lock_path)?;
    if !files::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &lock_path)? {
        return Ok(None);
    }
    let path = store.root().join("index/measuring");
    let known = files::read_opt(&path)?;
    let known = known.and_then(|bytes| sealed::open::<Progress>(KIND, VERSION, &bytes).ok());
    let now = files::now_ms();
    let is_young =
        |known: &Progress| known.began_ms <= now && now.saturating_sub(known.began_ms) < BELIEVED_MS;
    let progress = known.filter(is_young).unwrap_or_else(|| Progress {
        began_ms: now,
        filled: space.filled(),
        ..Progress::default()
    });
    let mut walk = Walk {
        store,
        stop,
        at: Vec::new(),
        progress,
        has_moved: false,
    };
    let skip = std::mem::take(&mut walk.progress.done);
    walk.progress.done.clone_from(&skip);
    if !walk.folder(store.root(), &skip)? {
        let bytes = sealed::seal(KIND, VERSION, &walk.progress)?;
        store.temp().publish(&bytes, &path, false)?;
        return Ok(None);
    }
    let total = walk.progress.total + own(store.root())?;
    size::measured(store, total, walk.progress.filled)?;
    files::remove_if_there(&path)?;
    Ok(Some(total))
}

struct Walk<'a> {
    store: &'a Store,
    stop: Stop<'a>,
    /// The names on the way to where it is.
    at: Vec<Vec<u8>>,
    progress: Progress,
    /// It has got something done.
    has_moved: bool,
}

impl Walk<'_> {
    /// Counts what is in a folder, but for what comes before `skip`. Returns whether it came to the end.
    fn folder(&mut self, path: &Path, skip: &[Vec<u8>]) -> Result<bool> {
        let mut skip = Some(skip);
        for name in names(path)? {
            let inner = match skip.and_then(<[_]>::split_first) {
                Some((first, _)) if name.as_bytes() < first.as_slice() => continue,
                Some((first, [])) if name.as_bytes() == first.as_slice() => continue,
                Some((first, inner)) if name.as_bytes() == first.as_slice() => inner,
                _ => &[],
            };
            skip = None;
            let child = path.join(&name);
            self.at.push(name.into_vec());
            let ended = self.entry(&child, inner)?;
            if ended {
                self.progress.done.clone_from(&self.at);
                self.has_moved = true;
            }
            self.at.pop();
            if !ended {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entry(&mut self, path: &Path, skip: &[Vec<u8>]) -> Result<bool> {
        let is_over = self.has_moved && (self.stop)();
        if is_over {
            return Ok(false);
        }
        let is_folder = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        if !is_folder {
            self.progress.total += own(path)?;
            return Ok(true);
        }
        let whole = match self.at.as_slice() {
            [layers, id] if layers == b"layers" => match OsStr::from_bytes(id).to_str().map(str::parse) {
                // What is in it is measured once and kept.
                Some(Ok(id)) => Some(
                    survey::layer(self.store, id, self.until())
                        .map(|layer| layer.map_or(0, |layer| layer.bytes)),
                ),
                _ => None,
            },
            at if at.len() >= DEEPEST => {
                Some(measure::tree(path, self.until()).map_err(error::io("measure", path)))
            }
            _ => None,
        };
        match whole {
            Some(Ok(bytes)) => self.progress.total += bytes,
            Some(Err(_)) if self.has_moved && (self.stop)() => return Ok(false),
            Some(Err(error)) => return Err(error),
            None => {
                if !self.folder(path, skip)? {
                    return Ok(false);
                }
                self.progress.total += own(path)?;
            }
        }
        Ok(true)
    }

    /// The first thing is measured to its end.
    fn until(&self) -> Stop<'_> {
        if self.has_moved { self.stop } else { &never }
    }
}

/// The names in a folder, in order; none if it is not there.
fn names(path: &Path) -> Result<Vec<OsString>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        // Somebody deletes it.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error::io("list", path)(source)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(error::io("list", path))?;
    names.sort_unstable();
    Ok(names)
}

fn own(path: &Path) -> Result<u64> {
    measure::own(path).map_err(error::io("measure", path))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{disk::Catalog, testing};

    #[test]
    fn a_measuring_that_is_cut_off_again_and_again_finds_what_the_catalog_finds() {
        let (dir, store) = testing::store();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("mounts/aa/0/data/a/b/c/d/e/f/g/h")).unwrap();
        for (name, size) in [
            ("mounts/aa/0/data/x", 10_000),
            ("mounts/aa/0/data/a/y", 20_000),
            ("mounts/aa/0/data/a/b/c/d/e/f/g/h/deep", 30_000),
            ("unknown", 40_000),
        ] {
            std::fs::write(at(name), vec![1; size]).unwrap();
        }
        for n in 0..5 {
            let draft = store.layers().draft().unwrap();
            std::fs::write(draft.diff_path().join("file"), vec![1; 5000 * n]).unwrap();
            let listing = kiln_tree::walk::layer(std::os::fd::AsFd::as_fd(
                &std::fs::File::open(draft.diff_path()).unwrap(),
            ))
            .unwrap();
            let id = crate::LayerId::from_content(&listing.content_hash());
            store.layers().commit(draft, &id, listing).unwrap();
        }
        let space = Space::of(&store).unwrap();
        // Each round is stopped after its second thing.
        let mut rounds = 0;
        let total = loop {
            rounds += 1;
            let looks = Cell::new(0);
            let stop = || looks.replace(looks.get() + 1) >= 1;
            if let Some(total) = go_on(&store, &space, &stop).unwrap() {
                break total;
            }
            assert!(at("index/measuring").exists());
            assert!(rounds < 1000, "it never ends");
        };
        assert!(rounds > 10, "{rounds}");
        assert!(!at("index/measuring").exists());
        // The files in `index/` came and went meanwhile.
        let found = Catalog::read(&store).unwrap().total();
        assert!(total.abs_diff(found) < 20_000, "{total} {found}");
        let known = size::estimate(&store, 0, &space).unwrap().unwrap();
        assert_eq!((known.least, known.most), (total, total));
        let at_once = go_on(&store, &space, &never).unwrap().unwrap();
        assert!(at_once.abs_diff(found) < 20_000, "{at_once} {found}");
    }

    #[test]
    fn a_damaged_or_old_beginning_is_not_believed() {
        let (dir, store) = testing::store();
        let space = Space::of(&store).unwrap();
        let total = go_on(&store, &space, &never).unwrap().unwrap();
        let old = Progress {
            total: 1 << 40,
            ..Progress::default()
        };
        let future = Progress {
            total: 1 << 40,
            began_ms: u64::MAX,
            ..Progress::default()
        };
        let sealed = |progress: &Progress| sealed::seal(KIND, VERSION, progress).unwrap();
        for bytes in [b"noise".to_vec(), sealed(&old), sealed(&future)] {
            std::fs::write(dir.path().join("index/measuring"), bytes).unwrap();
            let again = go_on(&store, &space, &never).unwrap().unwrap();
            assert!(again.abs_diff(total) < 20_000, "{again} {total}");
        }
    }

    #[test]
    fn what_is_deleted_after_a_measuring_is_not_believed_to_be_there() {
        let (_dir, store) = testing::store();
        let space = Space::of(&store).unwrap();
        size::measured(&store, 1000, space.filled()).unwrap();
        size::freed(&store, 300).unwrap();
        // The file system was found to be fuller than it is after that.
        let known = size::estimate(&store, 50, &space).unwrap().unwrap();
        assert_eq!((known.least, known.most), (700, 1000));
        size::measured(&store, 1000, space.filled() + 400).unwrap();
        let known = size::estimate(&store, 50, &space).unwrap().unwrap();
        assert_eq!(
            (known.least, known.most),
            (600, 1050),
            "somebody has deleted something"
        );
    }

    #[test]
    fn one_process_measures_at_a_time() {
        let (dir, store) = testing::store();
        let space = Space::of(&store).unwrap();
        let path = dir.path().join("locks/measuring");
        let lock = files::open_lock(&path).unwrap();
        files::flock(&lock, FlockOperation::LockExclusive, &path).unwrap();
        assert_eq!(go_on(&store, &space, &never).unwrap(), None);
        drop(lock);
        assert!(go_on(&store, &space, &never).unwrap().is_some());
    }
}
