//! Hashes of files that were just written.

use std::collections::HashMap;

use crate::walk::{HashMemory, StatKey};
use crate::{ContentHash, TreePath};

/// Hashes of files that were just written, as a [`HashMemory`] for [`walk::layer_with`](crate::walk::layer_with) of
/// the directory, or of the overlay's upper directory, that they were written into: there the same inode with the
/// same size and times is the same file. (The device number does not count, since overlayfs shows its own.)
#[derive(Debug, Default)]
pub struct Prehashed {
    by_inode: HashMap<u64, (StatKey, ContentHash)>,
}

impl Prehashed {
    /// Takes over what `other` knows.
    pub fn absorb(&mut self, other: Prehashed) {
        self.by_inode.extend(other.by_inode);
    }

    /// How many files are known.
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    pub(super) fn add(&mut self, key: StatKey, content: ContentHash) {
        self.by_inode.insert(key.ino, (key, content));
    }
}

impl HashMemory for Prehashed {
    fn recall(&self, _path: &TreePath, key: &StatKey) -> Option<ContentHash> {
        let (known, content) = self.by_inode.get(&key.ino)?;
        (StatKey {
            dev: known.dev,
            ..*key
        } == *known)
            .then_some(*content)
    }

    fn remember(&self, _path: &TreePath, _key: &StatKey, _content: ContentHash) {}
}
