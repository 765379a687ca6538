//! Help for this crate's own tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_cache::{Store, StoreOptions};
use kiln_tree::{ContentHash, Entry, EntryKind, Listing, Timestamp, TreePath};

/// A directory that is gone at the end of a test.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kiln-solver-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A store below the directory.
    pub(crate) fn store(&self) -> Arc<Store> {
        let boot = kiln_cache::boot::id().expect("the boot id");
        Store::open(
            &self.0.join("store"),
            StoreOptions {
                userxattr: false,
                boot,
                runtime: None,
            },
        )
        .expect("a store")
    }

    /// Writes a file and the directories above it.
    pub(crate) fn write(&self, path: &str, bytes: &str) {
        let path = self.0.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("directories");
        }
        std::fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn symlink(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.0.join(path)).expect("a symlink");
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the directory goes");
    }
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).expect("a canonical path")
}

fn entry(at: &str, kind: EntryKind, mode: u32) -> Entry {
    let mtime = Timestamp { secs: 1, nanos: 0 };
    Entry {
        path: path(at),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime,
        xattrs: BTreeMap::new(),
    }
}

pub(crate) fn dir(at: &str) -> Entry {
    entry(at, EntryKind::Directory { opaque: false }, 0o755)
}

pub(crate) fn file(at: &str, text: &str) -> Entry {
    let kind = EntryKind::File {
        size: text.len() as u64,
        content: ContentHash::of(text.as_bytes()),
    };
    entry(at, kind, 0o644)
}

pub(crate) fn link(at: &str, target: &str) -> Entry {
    entry(at, EntryKind::HardLink { target: path(target) }, 0o644)
}

pub(crate) fn symlink(at: &str, target: &str) -> Entry {
    entry(
        at,
        EntryKind::Symlink {
            target: target.as_bytes().to_vec(),
        },
        0o777,
    )
}

pub(crate) fn listing(entries: Vec<Entry>) -> Listing {
    Listing::from_entries(entries)
}
