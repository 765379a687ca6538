//! What files and trees take of the disk: allocated blocks, and a file with several names once.

use std::{collections::HashSet, ffi::CString, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::Stop;

/// What `st_blocks` counts in, whatever the file system's blocks are.
const BLOCK: u64 = 512;

/// One file or folder, without what is in it. Nothing for one that is not there.
pub(crate) fn own(path: &Path) -> io::Result<u64> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(blocks(&stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// A file, or a folder with all that is in it. Nothing for one that is not there.
pub(crate) fn tree(path: &Path, stop: Stop<'_>) -> io::Result<u64> {
    Ok(own(path)? + below(path, stop)?)
}

/// What is in a folder, without the folder itself. Others may change it meanwhile: what goes is not counted.
pub(crate) fn below(path: &Path, stop: Stop<'_>) -> io::Result<u64> {
    let mut walk = Walk::default();
    let Some(mut here) = open(CWD, path)? else {
        return Ok(0);
    };
    // Names of subfolders that are still to be visited, a list a level. Only the current folder is open, and the way
    // up is `..`: so no depth is too much.
    let mut waiting = vec![walk.list(&here)?];
    while let Some(level) = waiting.last_mut() {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let Some(name) = level.pop() {
            if let Some(child) = open(&here, name.as_c_str())? {
                waiting.push(walk.list(&child)?);
                here = child;
            }
            continue;
        }
        waiting.pop();
        if waiting.is_empty() {
            break;
        }
        match open(&here, c"..")? {
            Some(parent) => here = parent,
            // Somebody deletes the tree.
            None => break,
        }
    }
    Ok(walk.bytes)
}

#[derive(Default)]
struct Walk {
    bytes: u64,
    /// Files with several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    /// Counts what is in a folder and returns the names of its subfolders.
    fn list(&mut self, folder: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut folders = Vec::new();
        for entry in rustix::fs::Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(name.to_owned());
            } else if stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            self.bytes += blocks(&stat);
        }
        Ok(folders)
    }
}

fn open<P: rustix::path::Arg>(parent: impl std::os::fd::AsFd, name: P) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::never,
        testing::{Scratch, du},
    };

    #[test]
    fn agrees_with_du() {
        let dir = Scratch::new();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::write(at("a/large"), vec![7; 300_000]).unwrap();
        std::fs::hard_link(at("a/large"), at("a/b/again")).unwrap();
        std::fs::write(at("a/b/c/small"), "x").unwrap();
        std::fs::File::create(at("a/hole"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        std::os::unix::fs::symlink("/", at("a/link")).unwrap();
        assert_eq!(tree(dir.path(), &never).unwrap(), du(dir.path()));
        assert_eq!(own(&at("a/large")).unwrap(), du(&at("a/large")));
        assert_eq!(tree(&at("nothing"), &never).unwrap(), 0);
        assert!(
            tree(dir.path(), &never).unwrap() < 1 << 20,
            "a hole takes nothing"
        );
    }

    #[test]
    fn depth_does_not_matter() {
        let dir = Scratch::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut here = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        for _ in 0..2500 {
            let name = "n".repeat(100);
            rustix::fs::mkdirat(&here, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            here = rustix::fs::openat(&here, name.as_str(), flags, Mode::empty()).unwrap();
        }
        assert_eq!(tree(dir.path(), &never).unwrap(), du(dir.path()));
    }
}
