//! A child in new namespaces that executes a program at once.
//!
//! `CLONE_VM | CLONE_VFORK`: the child borrows the parent's memory until it executes, so that the
//! cost does not grow with the parent's memory (a fork of a large process copies its page tables).
//! The C library's `clone` is used rather than a raw `clone3`, because a child that shares memory
//! needs a stack of its own, and only the library can switch to it portably. That also works where
//! a surrounding seccomp filter answers clone3 with ENOSYS.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::sys::signals::Blocked;

/// A started child.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// What the child reads, and where it leaves its error. It lives on the parent's stack.
struct Request {
    executable: RawFd,
    argv: *const *const c_char,
    envp: *const *const c_char,
    keep: *const RawFd,
    keep_len: usize,
    errno: c_int,
}

const STACK: usize = 64 * 1024;

/// Starts the program open as `executable` with the new namespaces that `namespaces` (`CLONE_NEW*`)
/// names. The child has an empty environment and only descriptors without close-on-exec plus `keep`.
pub(crate) fn spawn(
    namespaces: c_int,
    executable: BorrowedFd<'_>,
    arguments: &[CString],
    keep: &[BorrowedFd<'_>],
) -> io::Result<Child> {
    let argv: Vec<*const c_char> = arguments
        .iter()
        .map(|a| a.as_ptr())
        .chain([ptr::null()])
        .collect();
    let envp = [ptr::null::<c_char>()];
    let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let mut request = Request {
        executable: executable.as_raw_fd(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        keep: keep.as_ptr(),
        keep_len: keep.len(),
        errno: 0,
    };
    // u128 for the alignment that stacks need.
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = namespaces | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    // A handler must not run in the child: it would act on the parent's memory.
    let blocked = Blocked::new();
    // SAFETY: `stack` is aligned, large enough for `run` (whose frames are small) and used by the
    // child alone. CLONE_VFORK suspends this thread until the child has executed or exited, so
    // `request` and everything it points to outlive the child's use of them. `run` makes only
    // async-signal-safe calls, so it cannot meet a lock held by another thread.
    let pid = unsafe { libc::clone(run, top, flags, (&raw mut request).cast(), &raw mut pidfd) };
    let error = io::Error::last_os_error();
    drop(blocked);
    drop(stack);
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: CLONE_PIDFD stored a new close-on-exec descriptor that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: the child wrote it, if at all, before this thread went on; volatile because the
    // compiler cannot see that.
    let errno = unsafe { ptr::read_volatile(&raw const request.errno) };
    if errno != 0 {
        // It has exited already; take it away.
        let options = rustix::process::WaitIdOptions::EXITED;
        let id = || rustix::process::WaitId::PidFd(pidfd.as_fd());
        while matches!(
            rustix::process::waitid(id(), options),
            Err(rustix::io::Errno::INTR)
        ) {}
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(Child { pid, pidfd })
}

extern "C" fn run(request: *mut c_void) -> c_int {
    let request = request.cast::<Request>();
    // SAFETY: `request` is the parent's, valid while the parent is suspended. Only async-signal-safe
    // calls are made, and none that allocates or takes a lock. Descriptors are changed in the child's
    // own table (no CLONE_FILES).
    unsafe {
        for i in 0..(*request).keep_len {
            libc::fcntl(*(*request).keep.add(i), libc::F_SETFD, 0);
        }
        libc::syscall(
            libc::SYS_execveat,
            (*request).executable,
            c"".as_ptr(),
            (*request).argv,
            (*request).envp,
            libc::AT_EMPTY_PATH,
        );
        ptr::write_volatile(&raw mut (*request).errno, *libc::__errno_location());
        libc::_exit(127)
    }
}
