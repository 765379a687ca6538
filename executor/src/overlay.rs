//! Overlay mounts, detached: visible nowhere, usable through their descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use thiserror::Error;

mod legacy;

/// The kernel stacks no more (`OVL_MAX_STACK`).
pub(crate) const MAX_LOWERS: usize = 500;

/// `FSCONFIG_SET_STRING` takes values shorter than this.
const MAX_VALUE: usize = 256;

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYFS_MAGIC: u32 = 0x794c_7630;

/// What to stack.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Read-only layers, top-most first.
    pub lowers: &'a [PathBuf],
    /// The upperdir and its workdir, on one file system. Without: a read-only view.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Skip all syncs of the upperdir's file system. After a crash such an upperdir must be thrown
    /// away.
    pub volatile: bool,
}

/// Why layers could not be stacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// More layers than the kernel stacks.
    #[error("{count} layers are more than the {MAX_LOWERS} that overlayfs can stack")]
    TooManyLowers {
        /// How many were given.
        count: usize,
    },
    /// No layer at all.
    #[error("an overlay needs at least one lower directory")]
    NoLowers,
    /// A layer's directory cannot be opened.
    #[error("layer directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file system of the upperdir cannot hold one (overlayfs itself, some network and FUSE
    /// file systems). The store must be moved to another file system.
    #[error("{} is on a file system that overlayfs does not take as upperdir ({reason})", upper.display())]
    UpperUnsupported {
        /// The upperdir.
        upper: PathBuf,
        /// What is known about it.
        reason: String,
    },
    /// The kernel refuses the mount.
    #[error("cannot mount an overlay: {action}: {source}{}", in_parentheses(log))]
    Mount {
        /// The failing call and its argument.
        action: String,
        /// The kernel's answer.
        source: io::Error,
        /// What the file system said about it; may be empty.
        log: String,
    },
}

fn in_parentheses(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// Mounts an overlay and returns the detached mount. `userxattr` is set in a user namespace, where
/// overlayfs needs it. Directories are neither renamed by redirect nor copied up without their data,
/// so that an upperdir is always a complete layer.
pub fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd, OverlayError> {
    check(overlay)?;
    if overlay.upper.is_none() && overlay.lowers.len() == 1 {
        return bind_read_only(&overlay.lowers[0]);
    }
    let userxattr = crate::namespace::in_user_namespace();
    let mounted = mount_once(overlay, userxattr)?;
    let Some((_, work)) = overlay.upper else {
        return Ok(mounted);
    };
    if !is_read_only(&mounted) {
        return Ok(mounted);
    }
    // Where it cannot make its work folder, as on a full disk, overlayfs is content to be read-only.
    drop(mounted);
    can_make_a_folder(work)?;
    let again = mount_once(overlay, userxattr)?;
    if is_read_only(&again) {
        return Err(OverlayError::Mount {
            action: "make it writable".to_owned(),
            source: Errno::ROFS.into(),
            log: String::new(),
        });
    }
    Ok(again)
}

fn is_read_only(mount: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(mount)
        .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn can_make_a_folder(folder: &Path) -> Result<(), OverlayError> {
    let probe = folder.join("probe");
    std::fs::create_dir(&probe)
        .and_then(|()| std::fs::remove_dir(&probe))
        .map_err(|source| OverlayError::Directory { path: probe, source })
}

fn mount_once(overlay: &Overlay<'_>, userxattr: bool) -> Result<OwnedFd, OverlayError> {
    match mount_by_fsconfig(overlay, userxattr) {
        Err(MountFailure::NoLowerdirPlus) => legacy::mount(overlay, userxattr),
        Err(MountFailure::Refused { action, source, log }) => {
            Err(explain(overlay, OverlayError::Mount { action, source, log }))
        }
        Ok(fd) => Ok(fd),
    }
}

/// The same through `mount(2)`, as kernels before 6.8 need it. For the probe and for tests.
#[doc(hidden)]
pub fn mount_by_option_string(overlay: &Overlay<'_>) -> Result<OwnedFd, OverlayError> {
    check(overlay)?;
    legacy::mount(overlay, crate::namespace::in_user_namespace())
}

fn check(overlay: &Overlay<'_>) -> Result<(), OverlayError> {
    match overlay.lowers.len() {
        0 => Err(OverlayError::NoLowers),
        count if count > MAX_LOWERS => Err(OverlayError::TooManyLowers { count }),
        _ => Ok(()),
    }
}

enum MountFailure {
    /// The kernel is older than the `lowerdir+` option, or than fsopen.
    NoLowerdirPlus,
    Refused {
        action: String,
        source: io::Error,
        log: String,
    },
}

fn mount_by_fsconfig(overlay: &Overlay<'_>, userxattr: bool) -> Result<OwnedFd, MountFailure> {
    let context = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => context,
        Err(Errno::NOSYS) => return Err(MountFailure::NoLowerdirPlus),
        Err(errno) => {
            return Err(MountFailure::Refused {
                action: "fsopen(overlay)".to_owned(),
                source: errno.into(),
                log: String::new(),
            });
        }
    };
    let refused = |action: String, errno: Errno| MountFailure::Refused {
        action,
        source: errno.into(),
        log: read_log(&context),
    };
    // Descriptors behind /proc/self/fd names must stay open until the mount exists.
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| -> Result<(), Errno> {
        if is_plain(path) {
            return fsconfig_set_string(context.as_fd(), key, path);
        }
        let fd = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let name = crate::message::proc_fd_path(fd.as_fd());
        held.push(fd);
        fsconfig_set_string(context.as_fd(), key, name)
    };
    for (index, lower) in overlay.lowers.iter().enumerate() {
        if let Err(errno) = set("lowerdir+", lower) {
            let log = read_log(&context);
            let unknown = log.contains("Unknown parameter") || (log.is_empty() && errno == Errno::INVAL);
            if index == 0 && unknown {
                return Err(MountFailure::NoLowerdirPlus);
            }
            let action = format!("lowerdir+={}", lower.display());
            return Err(MountFailure::Refused {
                action,
                source: errno.into(),
                log,
            });
        }
    }
    if let Some((upper, work)) = overlay.upper {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            set(key, path).map_err(|errno| refused(format!("{key}={}", path.display()), errno))?;
        }
    }
    for option in options(overlay, userxattr) {
        let result = match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), option),
        };
        result.map_err(|errno| refused(option.to_owned(), errno))?;
    }
    fsconfig_create(context.as_fd()).map_err(|errno| refused("create".to_owned(), errno))?;
    let attributes = if overlay.upper.is_some() {
        MountAttrFlags::empty()
    } else {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    };
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| refused("fsmount".to_owned(), errno))
}

/// The options besides directories. Distributions compile different defaults in, so each is said.
/// In a user namespace `redirect_dir` must not be named: it is off there whatever the default.
fn options(overlay: &Overlay<'_>, userxattr: bool) -> Vec<&'static str> {
    let mut options = vec!["metacopy=off", "index=off"];
    options.push(if userxattr {
        "userxattr"
    } else {
        "redirect_dir=nofollow"
    });
    if overlay.volatile && overlay.upper.is_some() {
        options.push("volatile");
    }
    options
}

/// Whether a path can be passed as it is: short enough, and without the characters that overlayfs
/// may take as separators or escapes.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.len() < MAX_VALUE && !bytes.iter().any(|byte| matches!(byte, b':' | b',' | b'\\'))
}

/// What the file system logged into its context, one message after the other.
fn read_log(context: &OwnedFd) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        // "e overlay: text": level, prefix, text.
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.trim();
        messages.push(text.strip_prefix("e ").unwrap_or(text).to_owned());
    }
    messages.join("; ")
}

/// Finds the reason behind an error that says too little.
fn explain(overlay: &Overlay<'_>, error: OverlayError) -> OverlayError {
    let directories = overlay
        .lowers
        .iter()
        .map(PathBuf::as_path)
        .chain(overlay.upper.into_iter().flat_map(|(u, w)| [u, w]));
    for path in directories {
        if let Err(source) = std::fs::read_dir(path) {
            return OverlayError::Directory {
                path: path.to_owned(),
                source,
            };
        }
    }
    let (Some((upper, _)), OverlayError::Mount { source, log, .. }) = (overlay.upper, &error) else {
        return error;
    };
    let on_overlay = is_overlay(upper);
    let refuses = log.contains("not supported as upperdir") || log.contains("upper fs");
    if source.raw_os_error() == Some(libc::EINVAL) && (on_overlay || refuses) {
        let reason = if on_overlay {
            "it is itself an overlay".to_owned()
        } else {
            log.clone()
        };
        return OverlayError::UpperUnsupported {
            upper: upper.to_owned(),
            reason,
        };
    }
    error
}

/// Whether a folder is on an overlay itself.
pub(crate) fn is_overlay(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u32 == OVERLAYFS_MAGIC)
}

/// One layer needs no overlay (which would want two).
fn bind_read_only(lower: &Path) -> Result<OwnedFd, OverlayError> {
    let failed = |action: &str, source: io::Error| OverlayError::Mount {
        action: format!("{action} {}", lower.display()),
        source,
        log: String::new(),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = match open_tree(CWD, lower, flags) {
        Ok(tree) => tree,
        Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::ACCESS)) => {
            return Err(OverlayError::Directory {
                path: lower.to_owned(),
                source: errno.into(),
            });
        }
        Err(errno) => return Err(failed("open_tree", errno.into())),
    };
    crate::sys::mount_setattr::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0)
        .map_err(|source| failed("make read-only", source))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_and_too_few_are_told_before_the_kernel_is_asked() {
        let many = vec![PathBuf::from("/"); MAX_LOWERS + 1];
        let mounted = |lowers: &[PathBuf]| {
            mount(&Overlay {
                lowers,
                upper: None,
                volatile: false,
            })
        };
        assert!(matches!(
            mounted(&many),
            Err(OverlayError::TooManyLowers { count: 501 })
        ));
        assert!(matches!(mounted(&[]), Err(OverlayError::NoLowers)));
    }

    #[test]
    fn unusual_paths_go_through_descriptors() {
        for (path, plain) in [("/a/b", true), ("/a:b", false), ("/a,b", false), ("/a\\b", false)] {
            assert_eq!(is_plain(Path::new(path)), plain, "{path}");
        }
        assert!(!is_plain(Path::new(&format!("/{}", "x".repeat(255)))));
        assert!(is_plain(Path::new(&format!("/{}", "x".repeat(254)))));
    }

    #[test]
    fn options_never_name_redirect_in_a_user_namespace() {
        let lowers = [PathBuf::from("/l")];
        let overlay = Overlay {
            lowers: &lowers,
            upper: Some((Path::new("/u"), Path::new("/w"))),
            volatile: true,
        };
        assert_eq!(
            options(&overlay, true),
            ["metacopy=off", "index=off", "userxattr", "volatile"]
        );
        assert_eq!(
            options(&overlay, false),
            ["metacopy=off", "index=off", "redirect_dir=nofollow", "volatile"]
        );
        let view = Overlay {
            upper: None,
            ..overlay
        };
        assert!(!options(&view, true).contains(&"volatile"));
    }
}
