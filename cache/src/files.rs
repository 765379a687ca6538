//! Small file operations that the whole store is made of: locks, whole-file reads, publishing by rename.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use kiln_image::Digest;
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{Result, error};

/// Opens (and makes, if need be) a lock file. The file is never removed while others may wait for it.
pub(crate) fn open_lock(path: &Path) -> Result<File> {
    rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )
    .map(File::from)
    .map_err(error::errno("open", path))
}

/// `flock`, going on after signals.
pub(crate) fn flock(file: &File, operation: FlockOperation, path: &Path) -> Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(error::errno("lock", path)(errno)),
        }
    }
}

/// `flock` without waiting: whether the lock was got.
pub(crate) fn try_flock(file: &File, operation: FlockOperation, path: &Path) -> Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(errno) => Err(error::errno("lock", path)(errno)),
    }
}

/// The whole file, or `None` if it is not there.
pub(crate) fn read_opt(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source)
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(error::io("read", path)(source)),
    }
}

/// Deletes a file, if there is one.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error::io("delete", path)(source)),
        _ => Ok(()),
    }
}

/// Renames `from` to `to`; makes the folder of `to` if it is not there yet.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::rename(from, to)
        }
        done => done,
    }
}

/// Fsyncs a folder, so that the renames into it are on disk.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = File::open(path).map_err(error::io("open", path))?;
    folder.sync_all().map_err(error::io("sync", path))
}

/// Writes a file durably: a new file beside it, fsync, rename, fsync of the folder. The caller holds a lock that
/// makes it the only writer; a leftover of a killed one is overwritten.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let parent = path.parent().unwrap_or(path);
    let mut file = match File::create(&beside) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent).map_err(error::io("create", parent))?;
            File::create(&beside)
        }
        made => made,
    }
    .map_err(error::io("create", &beside))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(error::io("write", &beside))?;
    std::fs::rename(&beside, path).map_err(error::io("publish", path))?;
    sync_folder(parent)
}

/// From now on the file has the bytes that the disk has, where the disk failed to take those in memory. As far as the
/// kernel does as it is asked: it keeps what somebody is just reading.
pub(crate) fn forget_cached(file: &File) {
    // What cannot be written stays in memory, and does not become any truer.
    let _ = rustix::fs::fdatasync(file);
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// A use is noted again after so many seconds: who asks for the least recently used does not mind, and a build that
/// is repeated at once writes nothing.
const TOUCH_AGE: i64 = 60;

/// Notes that a file was used now, as its mtime. A file whose time cannot be set only looks older than it is.
pub(crate) fn touch(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let is_old = std::fs::symlink_metadata(path).is_ok_and(|meta| now - meta.mtime() >= TOUCH_AGE);
    if is_old {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_NOW,
            },
        };
        let _ = rustix::fs::utimensat(
            rustix::fs::CWD,
            path,
            &times,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
    }
}

/// The names in a folder, sorted; none if it is not there. Names that are no UTF-8 are not the store's and left out.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error::io("list", path)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(error::io("list", path))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The digests that the names in a folder are the hex digits of, sorted; other names are left out.
pub(crate) fn digests(path: &Path) -> Result<Vec<Digest>> {
    let names = names(path)?;
    Ok(names
        .iter()
        .filter_map(|hex| Digest::from_hex(hex).ok())
        .collect())
}

/// 16 hex digits that nobody else has: the kernel's random bytes.
pub(crate) fn random_name() -> String {
    static FALLBACK: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0_u8; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if got != Ok(bytes.len()) {
        // Not random, but still unlike any other name that this process makes; the callers' names hold the pid.
        bytes = FALLBACK.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    }
    bytes.iter().fold(String::with_capacity(16), |mut name, byte| {
        name.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        name.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        name
    })
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
