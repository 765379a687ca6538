//! Short ways to write entries in tests.

use std::collections::BTreeMap;

use crate::{ContentHash, Entry, EntryKind, Timestamp, TreePath};

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn entry(at: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        path: path(at),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp {
            secs: 1_700_000_000,
            nanos: 7,
        },
        xattrs: BTreeMap::new(),
    }
}

pub(crate) fn dir(at: &str) -> Entry {
    entry(at, EntryKind::Directory { opaque: false }, 0o755)
}

pub(crate) fn opaque(at: &str) -> Entry {
    entry(at, EntryKind::Directory { opaque: true }, 0o755)
}

pub(crate) fn file(at: &str, text: &str) -> Entry {
    let content = ContentHash::of(text.as_bytes());
    entry(
        at,
        EntryKind::File {
            size: text.len() as u64,
            content,
        },
        0o644,
    )
}

pub(crate) fn link(at: &str, target: &str) -> Entry {
    entry(at, EntryKind::HardLink { target: path(target) }, 0o644)
}

pub(crate) fn symlink(at: &str, target: &str) -> Entry {
    entry(
        at,
        EntryKind::Symlink {
            target: target.into(),
        },
        0o777,
    )
}

pub(crate) fn whiteout(at: &str) -> Entry {
    entry(at, EntryKind::Whiteout, 0)
}
