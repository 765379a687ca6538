//! Modes and times of checked-out files: the same whoever checks out, whenever.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::error::GitError;
use super::mirror::file;

/// Gives directories and programs 0755 and other files 0644 (read-only ones 0444, as in `.git`), whatever the
/// process's mask is; and everything the time `time`, in seconds since 1970, if there is one.
pub(super) fn tidy(directory: &Path, time: Option<i64>) -> Result<(), GitError> {
    let metadata = fs::symlink_metadata(directory).map_err(file("look at", directory))?;
    set_mode(directory, &metadata)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(directory).map_err(file("read", directory))? {
            tidy(&entry.map_err(file("read", directory))?.path(), time)?;
        }
    }
    // After its entries: a directory's time changes with them.
    time.map_or(Ok(()), |time| set_time(directory, time))
}

fn set_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), GitError> {
    let old = metadata.permissions().mode() & 0o7777;
    let new = match (metadata.is_dir(), metadata.is_file()) {
        (true, _) => 0o755,
        (_, true) if old & 0o100 != 0 => 0o755,
        (_, true) if old & 0o200 == 0 => 0o444,
        (_, true) => 0o644,
        _ => return Ok(()),
    };
    if old == new {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(new)).map_err(file("set the mode of", path))
}

fn set_time(path: &Path, time: i64) -> Result<(), GitError> {
    let time = Timespec {
        tv_sec: time,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| file("set the time of", path)(error.into()))
}
