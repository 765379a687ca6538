//! Deleting a directory tree that somebody else's program filled: any depth, any mode, any names.
//!
//! Everything is done relative to directory file descriptors, symlinks are never followed, and neither the stack
//! nor the number of open files grows with the depth: a directory deeper than [`MAX_DEPTH`] is first moved up to
//! the top of the tree and deleted from there.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};

const MAX_DEPTH: usize = 64;

/// Deletes `path` and all below it. A path that is not there is fine.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, POSIX says EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let Some(top) = open_directory(CWD, path)? else {
        return Ok(());
    };
    empty(&top)?;
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

struct Level {
    fd: OwnedFd,
    name: Option<CString>,
    subdirectories: Vec<CString>,
}

/// Deletes everything in the directory.
fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let before = moved;
        empty_once(top, &mut moved)?;
        if moved == before {
            return Ok(());
        }
    }
}

fn empty_once(top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    let top_again = rustix::io::fcntl_dupfd_cloexec(top, 3)?;
    let mut levels = vec![Level {
        subdirectories: clear(&top_again)?,
        fd: top_again,
        name: None,
    }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.subdirectories.pop() {
            let fd = level.fd.as_fd();
            let Some(child) = open_directory(fd, name.as_c_str())? else {
                continue;
            };
            if levels.len() >= MAX_DEPTH {
                move_up(&levels[levels.len() - 1].fd, &name, top, moved)?;
                continue;
            }
            let subdirectories = clear(&child)?;
            levels.push(Level {
                fd: child,
                name: Some(name),
                subdirectories,
            });
            continue;
        }
        let done = levels.pop().and_then(|level| level.name);
        if let (Some(name), Some(parent)) = (done, levels.last()) {
            match rustix::fs::unlinkat(&parent.fd, name.as_c_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Moves a deep directory to the top under a name that is free.
fn move_up(parent: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".deep-{moved}");
        match rustix::fs::renameat_with(
            parent,
            name,
            top,
            target.as_str(),
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Unlinks everything but directories; returns the names of those.
fn clear(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut subdirectories = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            subdirectories.push(name.to_owned());
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if is_directory(directory, name) => {
                subdirectories.push(name.to_owned());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(subdirectories)
}

/// Filesystems that do not tell the type in the listing.
fn is_directory(parent: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory for listing and makes it writable first. `None` when it is gone.
fn open_directory<P: rustix::path::Arg + Copy>(
    parent: BorrowedFd<'_>,
    name: P,
) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = rustix::fs::fstat(&found)?;
    if stat.st_mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
        // The kernel has no fchmod for a path-only descriptor; its name under /proc is as good.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::fs::chmod(&link, Mode::from_raw_mode(0o700))?;
    }
    match rustix::fs::openat(
        &found,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(open) => Ok(Some(open)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn scratch() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("kiln-remove-{}", crate::files::random_name()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn removes_odd_trees_and_follows_nothing() {
        let path = scratch();
        let outside = scratch();
        std::fs::write(outside.join("keep"), "x").unwrap();
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::write(path.join("a/b/file"), "x").unwrap();
        symlink(&outside, path.join("a/b/link")).unwrap();
        symlink("nowhere", path.join("dangling")).unwrap();
        std::fs::set_permissions(path.join("a/b/c"), std::fs::Permissions::from_mode(0o0)).unwrap();
        std::fs::set_permissions(path.join("a/b"), std::fs::Permissions::from_mode(0o500)).unwrap();
        tree(&path).unwrap();
        assert!(!path.exists());
        assert!(outside.join("keep").exists());
        tree(&outside).unwrap();
        tree(&outside).unwrap();
    }

    #[test]
    fn removes_trees_deeper_than_any_path() {
        let path = scratch();
        let mut here = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for depth in 0..3000 {
            let name = if depth % 7 == 0 {
                "n".repeat(250)
            } else {
                "d".to_owned()
            };
            rustix::fs::mkdirat(&here, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::mkdirat(&here, "side", Mode::from_raw_mode(0o755)).unwrap();
            here = rustix::fs::openat(
                &here,
                name.as_str(),
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
        }
        tree(&path).unwrap();
        assert!(!path.exists());
    }
}
