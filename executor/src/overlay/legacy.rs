//! Overlays on kernels whose overlayfs does not know `lowerdir+` (before 6.8).
//!
//! There all directories must fit into one option string of a page. A thread with a working
//! directory and a mount namespace of its own fills a temporary tmpfs with short symbolic links,
//! names the directories by them, and hands back a detached clone of the mount. The tmpfs vanishes
//! with the thread's namespace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use super::{Overlay, OverlayError, explain, options};
use crate::sys::unshare::unshare;

pub(super) fn mount(overlay: &Overlay<'_>, userxattr: bool) -> Result<OwnedFd, OverlayError> {
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("overlay-mount".to_owned())
            .spawn_scoped(scope, || in_thread(overlay, userxattr))
            .map_err(|error| failed("start a thread", error))?
            .join()
            .map_err(|_| failed("mount", io::Error::other("the mounting thread panicked")))?
    });
    result.map_err(|error| explain(overlay, error))
}

fn failed(action: &str, source: impl Into<io::Error>) -> OverlayError {
    OverlayError::Mount {
        action: action.to_owned(),
        source: source.into(),
        log: String::new(),
    }
}

fn in_thread(overlay: &Overlay<'_>, userxattr: bool) -> Result<OwnedFd, OverlayError> {
    unshare(UnshareFlags::FS | UnshareFlags::NEWNS).map_err(|e| failed("unshare", e))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(|e| failed("make the mounts private", e))?;
    // Stacked on "/": lookups of absolute paths start below it, so it hides nothing.
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen(tmpfs)", e))?;
    fsconfig_create(context.as_fd()).map_err(|e| failed("create a tmpfs", e))?;
    let names = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map_err(|e| failed("mount a tmpfs", e))?;
    move_mount(
        names.as_fd(),
        "",
        CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|e| failed("attach a tmpfs", e))?;
    rustix::process::fchdir(&names).map_err(|e| failed("enter a tmpfs", e))?;

    let link = |path: &Path, name: &str| {
        rustix::fs::symlinkat(path, CWD, name).map_err(|e| failed(&format!("link {}", path.display()), e))
    };
    let mut lower = String::from("lowerdir=");
    for (index, path) in overlay.lowers.iter().enumerate() {
        let name = format!("{index:x}");
        link(path, &name)?;
        if index > 0 {
            lower.push(':');
        }
        lower.push_str(&name);
    }
    // One read-only layer would be refused: overlayfs wants two.
    rustix::fs::mkdirat(CWD, "none", Mode::RWXU).map_err(|e| failed("make a directory", e))?;
    if overlay.upper.is_none() && overlay.lowers.len() == 1 {
        lower.push_str(":none");
    }
    let mut data = vec![lower];
    if let Some((upper, work)) = overlay.upper {
        link(upper, "u")?;
        link(work, "w")?;
        data.push("upperdir=u,workdir=w".to_owned());
    }
    data.extend(options(overlay, userxattr).into_iter().map(str::to_owned));
    let data = CString::new(data.join(",")).map_err(|e| failed("build options", io::Error::from(e)))?;
    rustix::fs::mkdirat(CWD, "m", Mode::RWXU).map_err(|e| failed("make a directory", e))?;
    let flags = if overlay.upper.is_some() {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    rustix::mount::mount("overlay", "m", "overlay", flags, data.as_c_str())
        .map_err(|e| failed("mount", e))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, "m", clone).map_err(|e| failed("detach", e))
}
