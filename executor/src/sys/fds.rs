//! File descriptors that come from the parent by number.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes ownership of the descriptors that the parent passed. Once in a process: a second call
/// fails, so that no descriptor gets two owners. Also fails when one of them is not open.
pub(crate) fn take_inherited<const N: usize>(numbers: [RawFd; N]) -> io::Result<[OwnedFd; N]> {
    let distinct = (0..N).all(|i| numbers[i] > 2 && !numbers[..i].contains(&numbers[i]));
    if !distinct || TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for number in numbers {
        // SAFETY: F_GETFD takes no pointer; an invalid number is answered with an error.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: each is open (checked), distinct and not a standard stream (checked), inherited across
    // exec for exactly this purpose, and given away only once in the life of the process.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Marks every descriptor from 3 on close-on-exec.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: the call takes three numbers; marking descriptors invalidates none of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if number > 2 {
            // SAFETY: F_SETFD takes a number; a descriptor closed meanwhile gives an error only.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
