//! What the tests of this crate share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Store, StoreOptions};

/// A folder that goes away with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!(
            "kiln-cache-{}-{}",
            std::process::id(),
            crate::files::random_name()
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::remove::tree(&self.0);
    }
}

/// A new store in a scratch folder, in the boot `aaaa`.
pub(crate) fn store() -> (Scratch, Arc<Store>) {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "aaaa");
    (scratch, store)
}

/// The store at `root`, as seen in the given boot.
pub(crate) fn open(root: &Path, boot: &str) -> Arc<Store> {
    Store::open(
        root,
        StoreOptions {
            userxattr: false,
            boot: boot.parse().unwrap(),
            runtime: None,
        },
    )
    .unwrap()
}

/// What the program `du` says of a folder, in bytes; with what the folder itself takes.
pub(crate) fn du(path: &Path) -> u64 {
    let output = std::process::Command::new("du")
        .args(["-s", "-B1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split('\t').next().unwrap().parse().unwrap()
}
