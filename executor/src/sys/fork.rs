//! A forked helper that waits for a byte and then executes a program.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Forks a child that reads one byte from `go` and then executes `program` with standard streams as
/// they are, standard error going to `stderr`. When `go` ends without a byte, it exits. Returns the
/// child's process id.
pub(crate) fn exec_when_told(
    program: &CString,
    arguments: &[CString],
    go: BorrowedFd<'_>,
    other_end: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> io::Result<i32> {
    let argv: Vec<*const c_char> = arguments
        .iter()
        .map(|a| a.as_ptr())
        .chain([ptr::null()])
        .collect();
    let envp = [ptr::null::<c_char>()];
    // SAFETY: between fork and exec the child makes only async-signal-safe calls on values prepared
    // above, so it does not matter which locks other threads held.
    unsafe {
        let pid = libc::fork();
        if pid != 0 {
            return if pid < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(pid)
            };
        }
        // The write end would keep the pipe open when the parent dies.
        libc::close(other_end.as_raw_fd());
        let mut byte = 0u8;
        let read = libc::read(go.as_raw_fd(), (&raw mut byte).cast(), 1);
        if read == 1 {
            libc::dup2(stderr.as_raw_fd(), 2);
            libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        libc::_exit(127)
    }
}
