//! What of file systems there is: overlayfs, a place for the store, procfs.

use std::path::Path;

use rustix::io::Errno;

use super::{Feature, feature, read, text};
use crate::{namespace, surroundings};

pub(super) fn overlay() -> Feature {
    let known = read("/proc/filesystems").is_some_and(|list| {
        list.lines()
            .any(|line| line.trim_start_matches("nodev").trim() == "overlay")
    });
    // A module is loaded at the first mount.
    let module = Path::new("/sys/module/overlay").exists();
    let mounts = overlay_context();
    let outcome = match mounts {
        Ok(()) => Ok(namespace::in_user_namespace().then(|| "with userxattr".to_owned())),
        Err(_) if known || module => Ok(Some("not tried: needs the namespaces of a build".to_owned())),
        Err(errno) => Err(format!("the kernel does not offer overlayfs: {}", text(errno))),
    };
    feature(
        "overlayfs",
        outcome,
        "all layers (Linux 5.11 for ordinary users)",
        "none",
    )
}

fn overlay_context() -> Result<(), Errno> {
    use rustix::mount::{FsOpenFlags, fsopen};
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map(drop)
}

pub(super) fn lowerdir_plus() -> Feature {
    use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
    let outcome = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(errno) => Err(text(errno)),
        // A directory that is always there; the context is thrown away.
        Ok(context) => match fsconfig_set_string(&context, "lowerdir+", "/") {
            Ok(()) => Ok(None),
            Err(errno) => Err(format!("overlayfs does not know it: {}", text(errno))),
        },
    };
    feature(
        "overlayfs lowerdir+",
        outcome,
        "stacking layers one by one (Linux 6.8)",
        "one option string with short names",
    )
}

pub(super) fn store(root: &Path) -> Feature {
    // The nearest folder that exists: the store may not be there yet.
    let place = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    let outcome = if crate::overlay::is_overlay(place) {
        Err(format!(
            "{} is itself on an overlay; {}",
            root.display(),
            surroundings::OVERLAY
        ))
    } else {
        Ok(Some(root.display().to_string()))
    };
    feature(
        "store's file system",
        outcome,
        "all steps",
        "none: no step can run",
    )
}

pub(super) fn procfs() -> Feature {
    let hidden = namespace::in_user_namespace() && surroundings::proc_is_hidden();
    feature(
        "process file system",
        if hidden {
            Err(surroundings::PROC.to_owned())
        } else {
            Ok(None)
        },
        "RUN steps and containers",
        "none: only steps that copy",
    )
}
