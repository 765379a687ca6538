//! Standard input that a cancelled command no longer waits for.

use std::io::{self, Read};
use std::os::fd::AsFd;

use kiln_solver::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long it may take until a cancellation is noticed.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Standard input, read without the buffer of the standard library: polling must see every byte.
pub(super) struct Stdin {
    cancel: Cancel,
}

impl Stdin {
    /// Reads until `cancel` is raised.
    pub(super) fn new(cancel: &Cancel) -> Self {
        Self {
            cancel: cancel.clone(),
        }
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = rustix::stdio::stdin();
        loop {
            self.cancel.check()?;
            let mut ready = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
            match poll(&mut ready, Some(&PATIENCE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(stdin, buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
