//! Reads real directories into listings.
//!
//! Both kinds of walk first look at every path in parallel (names, metadata, link targets; no file is opened), then hash the regular files in parallel, unless a [`HashMemory`] knows them.

mod file;
mod memory;
mod overlay;
mod policy;
mod scan;
mod survey;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;

pub(crate) use file::{open_file, with_buffer};
pub use memory::{Forgetful, HashMemory, StatKey};
pub use policy::{Decision, Everything, WalkPolicy};
pub use survey::Survey;

use crate::{Listing, Result};

/// Reads a layer in overlayfs form: character device 0:0 (or an overlay `whiteout` attribute) is a whiteout, the
/// `opaque` attribute marks opaque directories. Overlayfs's own attributes and `security.selinux` are left out.
pub fn layer(dir: BorrowedFd<'_>) -> Result<Listing> {
    layer_with(dir, &Forgetful)
}

/// As [`layer`], but files that `memory` knows are not read again.
pub fn layer_with(dir: BorrowedFd<'_>, memory: &dyn HashMemory) -> Result<Listing> {
    let options = scan::Options {
        policy: &Everything,
        overlay: true,
        xattrs: true,
    };
    let found = scan::scan(dir, options)?;
    Survey {
        found,
        overlay: true,
        xattrs: true,
    }
    .hash(dir, &|_| true, memory)
}

/// How a plain walk is done.
#[derive(Debug, Clone, Copy)]
pub struct PlainOptions {
    /// Read extended attributes (costs a system call a path).
    pub xattrs: bool,
}

impl Default for PlainOptions {
    fn default() -> Self {
        Self { xattrs: true }
    }
}

/// Reads an ordinary directory: a build context. File hashes come from `memory` where it knows them. What vanishes
/// during the walk is left out; a file that changes while it is read is read again, and after three times
/// [`Error::Unstable`](crate::Error::Unstable) tells which.
pub fn plain(
    dir: BorrowedFd<'_>,
    options: PlainOptions,
    policy: &dyn WalkPolicy,
    memory: &dyn HashMemory,
) -> Result<Listing> {
    survey(dir, options, policy)?.hash(dir, &|_| true, memory)
}

/// The first half of [`plain`]: one parallel stat walk, no file is opened. Which files then are hashed can be
/// decided from the paths.
pub fn survey(dir: BorrowedFd<'_>, options: PlainOptions, policy: &dyn WalkPolicy) -> Result<Survey> {
    let PlainOptions { xattrs } = options;
    let found = scan::scan(
        dir,
        scan::Options {
            policy,
            overlay: false,
            xattrs,
        },
    )?;
    Ok(Survey {
        found,
        overlay: false,
        xattrs,
    })
}
