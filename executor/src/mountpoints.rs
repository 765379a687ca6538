//! Mountpoints that leave no trace.
//!
//! A sandbox mounts `/proc`, `/dev`, `/etc/resolv.conf` and more over paths of the root. Where a
//! path is missing, something must be made for the mount to cover, and an overlay would record it in
//! the upperdir, that is, in the layer. Two things prevent that:
//!
//! - [`write_stub_layer`] makes a directory that is stacked below all layers and holds an empty
//!   mountpoint for everything that is usually mounted;
//! - what is missing all the same (a layer may have deleted `/etc`) is made by the sandbox process,
//!   reported as [`Created`], and taken away by [`remove`] once the process has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Directories of the stub layer, parents first.
pub(crate) const STUB_DIRECTORIES: [&str; 5] = ["dev", "etc", "proc", "run", "sys"];

/// Empty files of the stub layer.
pub(crate) const STUB_FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Makes the stub layer in the existing directory `directory`: to be given to
/// [`crate::overlay::mount`] as the last (bottom-most) lower. What exists already is left, so it can
/// be called at every start.
pub fn write_stub_layer(directory: &Path) -> io::Result<()> {
    for name in STUB_DIRECTORIES {
        match std::fs::create_dir(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        set_mode(&directory.join(name), 0o755)?;
    }
    for name in STUB_FILES {
        std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(name))?;
        set_mode(&directory.join(name), 0o644)?;
    }
    set_mode(directory, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Something that the sandbox process made so that a mount had a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Path in the root.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
    /// Inode, to recognize it later.
    pub inode: u64,
    /// Modification time of the parent before and after.
    pub(crate) parent_before: (i64, i64),
    pub(crate) parent_after: (i64, i64),
}

/// Takes away what was made, in reverse order, where it is still the same and still empty, and gives
/// the parent directories their modification times back. Returns what is left and why.
///
/// The parent directories themselves may stay in an overlay's upperdir as unchanged copies.
pub fn remove(root: BorrowedFd<'_>, created: &[Created]) -> Vec<(PathBuf, io::Error)> {
    created
        .iter()
        .rev()
        .filter_map(|entry| {
            remove_one(root, entry)
                .err()
                .map(|error| (entry.path.clone(), error))
        })
        .collect()
}

fn remove_one(root: BorrowedFd<'_>, entry: &Created) -> io::Result<()> {
    let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.file_name()) else {
        return Ok(());
    };
    let parent = match open_directory(root, parent) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let stat = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if stat.st_ino != entry.inode || (!entry.directory && stat.st_size != 0) {
        return Ok(());
    }
    let now = modified(parent.as_fd())?;
    let flags = if entry.directory {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    match unlinkat(&parent, name, flags) {
        Ok(()) => {}
        // The process put something into it: now it belongs to the layer.
        Err(Errno::NOTEMPTY) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let (seconds, nanos) = if now == entry.parent_after {
        entry.parent_before
    } else {
        now
    };
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanos as _,
        },
    };
    // `parent` is opened for reading, which futimens takes; O_PATH would not do.
    rustix::fs::futimens(&parent, &times)?;
    Ok(())
}

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(root, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        // Linux before 5.6. Nothing runs in the root any more, but its symbolic links may lead out.
        Err(Errno::NOSYS) => open_without_links(root, relative),
        other => other,
    }
}

/// Opens a directory refusing every symbolic link on the way.
fn open_without_links(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut directory = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    for component in path.components() {
        directory = rustix::fs::openat(&directory, component.as_os_str(), flags, Mode::empty())?;
    }
    Ok(directory)
}

pub(crate) fn modified(fd: BorrowedFd<'_>) -> io::Result<(i64, i64)> {
    let stat = rustix::fs::fstat(fd)?;
    #[expect(
        clippy::useless_conversion,
        reason = "the fields' types differ between architectures"
    )]
    Ok((i64::from(stat.st_mtime), stat.st_mtime_nsec as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("executor-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn the_stub_layer_can_be_written_again() {
        let directory = scratch("stub");
        write_stub_layer(&directory).unwrap();
        write_stub_layer(&directory).unwrap();
        for name in STUB_DIRECTORIES {
            assert!(directory.join(name).is_dir(), "{name}");
        }
        for name in STUB_FILES {
            assert_eq!(std::fs::read(directory.join(name)).unwrap(), b"", "{name}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn make(root: &Path, path: &str, directory: bool) -> Created {
        let full = root.join(path.trim_start_matches('/'));
        let parent = std::fs::File::open(full.parent().unwrap()).unwrap();
        let parent_before = modified(parent.as_fd()).unwrap();
        if directory {
            std::fs::create_dir(&full).unwrap();
        } else {
            std::fs::write(&full, "").unwrap();
        }
        let inode = rustix::fs::stat(&full).unwrap().st_ino;
        let parent_after = modified(parent.as_fd()).unwrap();
        Created {
            path: path.into(),
            directory,
            inode,
            parent_before,
            parent_after,
        }
    }

    #[test]
    fn only_what_is_unchanged_is_removed_and_times_come_back() {
        let root = scratch("created");
        std::fs::create_dir(root.join("etc")).unwrap();
        let before = modified(std::fs::File::open(root.join("etc")).unwrap().as_fd()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        let hosts = make(&root, "/etc/hosts", false);
        let entries = [
            make(&root, "/run", true),
            make(&root, "/run/systemd", true),
            make(&root, "/kept", true),
            make(&root, "/replaced", false),
        ];
        std::fs::write(root.join("kept/file"), "x").unwrap();
        std::fs::write(root.join("replaced.new"), "").unwrap();
        std::fs::rename(root.join("replaced.new"), root.join("replaced")).unwrap();
        let fd = std::fs::File::open(&root).unwrap();
        assert!(remove(fd.as_fd(), &entries).is_empty());
        assert!(remove(fd.as_fd(), &[hosts]).is_empty());
        assert!(!root.join("run").exists());
        assert!(root.join("kept/file").exists());
        assert!(root.join("replaced").exists());
        assert!(!root.join("etc/hosts").exists());
        assert_eq!(
            modified(std::fs::File::open(root.join("etc")).unwrap().as_fd()).unwrap(),
            before
        );
        std::fs::remove_dir_all(root).unwrap();
    }
}
