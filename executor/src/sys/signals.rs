//! Signal dispositions and masks.

use std::io;
use std::mem::MaybeUninit;

/// Gives every signal its default action and unblocks all: exec keeps ignored signals ignored and
/// the mask as it is, and the program inside shall start as a login shell would start it.
pub(crate) fn reset_all() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler. libc refuses the two it keeps for itself, harmlessly:
        // they are never ignored.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut empty = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set it is given.
    let result = unsafe {
        libc::sigemptyset(empty.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// All signals blocked for the calling thread until dropped.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initializes `all`; pthread_sigmask with valid arguments cannot fail and
        // initializes `before`.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel in `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}
