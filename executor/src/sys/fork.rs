//! Forked helpers that wait for a byte, and then execute a program or write files.

use std::ffi::{CStr, CString, c_char};
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

/// Forks a child that reads one byte from `go`, then writes each text to its file in one call, and exits with 0 when
/// all was taken. When `go` ends without a byte, it exits. Returns the child's process id.
pub(crate) fn write_when_told(
    files: &[(&CStr, &[u8])],
    go: BorrowedFd<'_>,
    other_end: BorrowedFd<'_>,
) -> io::Result<i32> {
    // SAFETY: after the fork the child makes only async-signal-safe calls on values prepared before, so it does not
    // matter which locks other threads held; it never returns.
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
        if libc::read(go.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(127);
        }
        for (path, text) in files {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file < 0 || libc::write(file, text.as_ptr().cast(), text.len()) != text.len().cast_signed() {
                libc::_exit(1);
            }
            libc::close(file);
        }
        libc::_exit(0)
    }
}
