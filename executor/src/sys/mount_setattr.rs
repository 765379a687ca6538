//! `mount_setattr(2)` (Linux 5.12).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets attributes (`MOUNT_ATTR_*`) of the mount that `fd` is the root of, and when `recursive`, of
/// all mounts below it. `clear` names attributes to remove first.
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, and `attr` outlives the call, which reads exactly the
    // size it is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
