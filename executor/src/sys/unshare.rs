//! Leaving shared namespaces.

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `unshare(2)` of the calling thread.
///
/// `CLONE_FILES` is refused, because code elsewhere may rely on threads sharing their descriptors.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(rustix::io::Errno::INVAL);
    }
    // SAFETY: only unsharing the descriptor table can break I/O safety, and that is refused above.
    unsafe { unshare_unsafe(flags) }
}
