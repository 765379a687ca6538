//! What the tests with several processes share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_cache::{Store, StoreOptions, boot};

/// A folder that goes away with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kiln-cache-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process's own view of the store at `root`, in this boot.
pub(crate) fn open(root: &Path) -> Arc<Store> {
    Store::open(
        root,
        StoreOptions {
            userxattr: false,
            boot: boot::id().unwrap(),
            runtime: None,
        },
    )
    .unwrap()
}
