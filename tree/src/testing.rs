//! Help for this crate's own tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is gone at the end of a test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "kiln-tree-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let root = crate::Root::open(&self.0).unwrap();
        root.remove_all("").unwrap();
        std::fs::remove_dir(&self.0).unwrap();
    }
}

/// Whether tests may change owners and make devices; says so where not. The root of a user namespace may not.
pub(crate) fn is_root() -> bool {
    let all_ids = || {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    };
    let root = rustix::process::geteuid().is_root() && all_ids();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Whether tests may mount, be it as the root of a user namespace; says so where not.
pub(crate) fn may_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root or a user namespace");
    }
    root
}

/// An overlay mount that is attached nowhere; `None`, said loudly, where the kernel does not give one.
pub(crate) fn mount_overlay(lowers: &[&PathBuf], upper: &Path, work: &Path) -> Option<crate::Root> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
        fsmount, fsopen,
    };
    let mount = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in lowers {
            fsconfig_set_string(&context, "lowerdir+", lower.as_path())?;
        }
        fsconfig_set_string(&context, "upperdir", upper)?;
        fsconfig_set_string(&context, "workdir", work)?;
        if !is_root() {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    match mount() {
        Ok(fd) => Some(crate::Root::from_fd(fd)),
        Err(errno) => {
            eprintln!("SKIPPED: no overlay mount here: {errno}");
            None
        }
    }
}
