//! Whether a layer lies where it was made, or in a copy of the store.
//!
//! Copies are made of stores that are in use, by programs that lose what makes a layer a layer: plain `tar` drops the
//! attribute of opaque folders, an ordinary user's `cp` the owners. So `meta.json` says which inode `diff/` was made as,
//! and since when that exists. Renames keep both. A layer that lies elsewhere is compared with its listing before it is
//! believed for the first time, and `checked` beside it keeps that it was found in order, here.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use serde::{Deserialize, Serialize};

use super::{LayerId, LayerMeta};
use crate::{Result, error, files, sealed, store::Shared, verify};

const KIND: &str = "checked";
const VERSION: u32 = 1;
const CHECKED: &str = "checked";

/// An inode that nothing else is, or ever was: numbers are given out again, but not with the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    number: u64,
    /// 0 where the file system does not keep it.
    born_secs: i64,
    born_nanos: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckedFile {
    layer: LayerId,
    place: Inode,
}

impl Inode {
    /// That of a layer's `diff/`.
    pub(crate) fn of(layer: &Path) -> Result<Self> {
        let path = layer.join("diff");
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = rustix::fs::statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, wanted)
            .map_err(error::errno("look at", &path))?;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            number: stat.stx_ino,
            born_secs: if has_birth { stat.stx_btime.tv_sec } else { 0 },
            born_nanos: if has_birth { stat.stx_btime.tv_nsec } else { 0 },
        })
    }
}

/// Whether this process's user namespace has more than one user and group, so that files have the owners they should.
fn has_ids() -> bool {
    let many = |map: &str| {
        std::fs::read_to_string(map).is_ok_and(|text| {
            let counts = text.lines().filter_map(|line| line.split_whitespace().nth(2));
            counts.filter_map(|count| count.parse::<u64>().ok()).sum::<u64>() > 1
        })
    };
    many("/proc/self/uid_map") && many("/proc/self/gid_map")
}

/// `None`: the layer can be believed. Else what is wrong with it.
pub(super) fn check(shared: &Shared, folder: &Path, meta: &LayerMeta) -> Result<Option<String>> {
    let Some(made) = meta.place else { return Ok(None) };
    let here = match Inode::of(folder) {
        Ok(here) if here == made => return Ok(None),
        Ok(here) => here,
        Err(_) => return Ok(Some("it has no files".to_owned())),
    };
    let path = folder.join(CHECKED);
    let known = files::read_opt(&path)?
        .and_then(|bytes| sealed::open::<CheckedFile>(KIND, VERSION, &bytes).ok())
        .is_some_and(|known| known.layer == meta.id && known.place == here);
    if known {
        return Ok(None);
    }
    let options = verify::Options {
        owners: !shared.userxattr || has_ids(),
        devices: !shared.userxattr,
    };
    if let Some(reason) = verify::flaw_of_copy(folder, meta, options) {
        return Ok(Some(reason));
    }
    let file = CheckedFile {
        layer: meta.id.clone(),
        place: here,
    };
    // A full disk, or a store that cannot be written to: checked again next time.
    let _ = shared
        .temp
        .publish_into(&sealed::seal(KIND, VERSION, &file)?, &path);
    Ok(None)
}
