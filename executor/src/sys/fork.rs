//! Forked helpers that wait for a byte, and then execute a program or write files.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The exit status of a child that was never told, or could not execute its program.
const NOTHING_DONE: c_int = 127;

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
    // SAFETY: the child makes only async-signal-safe calls on values prepared above.
    unsafe {
        when_told(go, other_end, || {
            libc::dup2(stderr.as_raw_fd(), 2);
            libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
            NOTHING_DONE
        })
    }
}

/// Forks a child that reads one byte from `go`, then writes each text to its file in one call, and exits with 0 when
/// all was taken. When `go` ends without a byte, it exits. Returns the child's process id.
pub(crate) fn write_when_told(
    files: &[(&CStr, &[u8])],
    go: BorrowedFd<'_>,
    other_end: BorrowedFd<'_>,
) -> io::Result<i32> {
    // SAFETY: the child makes only async-signal-safe calls on values prepared before.
    unsafe {
        when_told(go, other_end, || {
            for (path, text) in files {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if file < 0 || libc::write(file, text.as_ptr().cast(), text.len()) != text.len().cast_signed()
                {
                    return 1;
                }
                libc::close(file);
            }
            0
        })
    }
}

/// Forks a child that reads one byte from `go`, the reading end of the pipe whose writing end is `other_end`, and then
/// exits with what `child` returns; with [`NOTHING_DONE`] when `go` ends without a byte. Returns the child's process id.
///
/// # Safety
///
/// `child` may make async-signal-safe calls alone, for it does not matter then which locks other threads held. It must
/// not panic.
unsafe fn when_told(
    go: BorrowedFd<'_>,
    other_end: BorrowedFd<'_>,
    child: impl FnOnce() -> c_int,
) -> io::Result<i32> {
    // SAFETY: the child makes async-signal-safe calls alone, and so does `child`; it never returns.
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
        let told = libc::read(go.as_raw_fd(), (&raw mut byte).cast(), 1) == 1;
        libc::_exit(if told { child() } else { NOTHING_DONE })
    }
}
