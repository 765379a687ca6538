//! The bytes of one file.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::walk::with_buffer;
use crate::{ContentHash, ContentHasher};

/// Up to this size, one read and one write are cheaper than the kernel's own copy.
const SMALL: u64 = 128 * 1024;

/// Copies all of `from`, hashing it on the way. Gives hash and length.
pub(super) fn copy_hashed(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<(ContentHash, u64)> {
    let mut hasher = ContentHasher::new();
    let mut total = 0;
    pump(from, |bytes| {
        hasher.update(bytes);
        total += bytes.len() as u64;
        write_all(to, bytes)
    })?;
    Ok((hasher.finish(), total))
}

/// Copies all of `from`, which should be `size` long, in the kernel where that works. Gives the length.
pub(super) fn copy_plain(from: &OwnedFd, to: &OwnedFd, size: u64) -> rustix::io::Result<u64> {
    let mut total = 0;
    if size > SMALL {
        total = copy_in_kernel(from, to)?;
    }
    // What the kernel did not take; the file positions have moved along.
    pump(from, |bytes| {
        total += bytes.len() as u64;
        write_all(to, bytes)
    })?;
    Ok(total)
}

/// Copies as much as the kernel is willing to.
fn copy_in_kernel(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<u64> {
    let mut total = 0;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(total),
            Ok(count) => total += count as u64,
            Err(Errno::INTR) => {}
            // Between file systems, or not supported by one of them: read and write.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::BADF) => {
                return Ok(total);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Gives everything that is left in `from` to `sink`.
fn pump(from: &OwnedFd, mut sink: impl FnMut(&[u8]) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    with_buffer(|buffer| {
        loop {
            match rustix::io::read(from, &mut *buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => sink(&buffer[..count])?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    })
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
