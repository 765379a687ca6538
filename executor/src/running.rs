//! A started sandbox: its streams, its end.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::process::{Pid, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, WindowSize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Code(u8),
    /// A signal of this number ended it.
    Signal(u8),
}

impl ExitStatus {
    /// The code a shell would give: 128 + n for a signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }

    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(i32::from(*number)) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// Where the supervising thread leaves the end of the process for all who wait.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    status: Mutex<Option<std::result::Result<ExitStatus, Arc<Error>>>>,
    changed: Condvar,
    out_of_memory: AtomicBool,
}

impl Ending {
    /// To be told before the end itself.
    pub(crate) fn ran_out_of_memory(&self) {
        self.out_of_memory.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, status: Result<ExitStatus>) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.map_err(Arc::new));
        self.changed.notify_all();
    }

    /// Waits until `deadline`, for ever without one.
    fn wait(&self, deadline: Option<Instant>) -> Option<Result<ExitStatus>> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(status) = status.as_ref() {
                return Some(status.clone().map_err(|error| Error::Io {
                    action: "wait for the sandboxed process".to_owned(),
                    source: std::io::Error::other(error),
                }));
            }
            status = match deadline {
                None => self.changed.wait(status).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed
                        .wait_timeout(status, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

/// A process in a sandbox. Dropping it kills the process and everything in its pid namespace, and
/// waits until nothing of it is left.
#[derive(Debug)]
pub struct Running {
    pub(crate) pid: Pid,
    pub(crate) pidfd: Arc<OwnedFd>,
    /// Write end of the process's standard input, when it is a pipe. Drop it to signal the end.
    pub stdin: Option<File>,
    /// Read end of the process's standard output, when it is a pipe.
    pub stdout: Option<File>,
    /// Read end of the process's standard error, when it is a pipe.
    pub stderr: Option<File>,
    /// Master side of the process's terminal, when it has one. Reads end with `EIO` when the last
    /// process has closed the other side.
    pub terminal: Option<File>,
    pub(crate) ending: Arc<Ending>,
    pub(crate) supervisor: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Process id as the calling process sees it.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for the end of the process. All its traces (cgroup, mountpoints made for it) are gone
    /// when this returns. May be called by several threads, and again.
    pub fn wait(&self) -> Result<ExitStatus> {
        match self.ending.wait(None) {
            Some(status) => status,
            None => Err(Error::Protocol {
                reason: "a wait without deadline timed out".to_owned(),
            }),
        }
    }

    /// Whether the kernel killed a process of the sandbox because its memory limit was reached. Known after
    /// [`Running::wait`].
    pub fn ran_out_of_memory(&self) -> bool {
        self.ending.out_of_memory.load(Ordering::Relaxed)
    }

    /// Like [`Running::wait`], giving up with `None` after `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.ending.wait(Some(Instant::now() + timeout)).transpose()
    }

    /// Sends a signal to the process. As PID 1 of its namespace it ignores every signal, except
    /// SIGKILL and SIGSTOP, for which it has installed no handler. A process that has already ended
    /// is no error.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let Some(raw) = rustix::process::Signal::from_named_raw(signal as i32) else {
            return Err(Error::spec(format!("unknown signal {signal}")));
        };
        match pidfd_send_signal(&*self.pidfd, raw) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::io(
                format!("send {signal} to the sandboxed process"),
                errno,
            )),
        }
    }

    /// Ends the process and every other one in its pid namespace.
    pub fn kill_all(&self) -> Result<()> {
        self.kill(Signal::SIGKILL)
    }

    /// Tells the terminal its size; its foreground process gets SIGWINCH. Without terminal, nothing.
    pub fn resize(&self, size: WindowSize) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let size = rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(terminal, size).map_err(|e| Error::io("resize the terminal", e))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ending.wait(Some(Instant::now())).is_none() {
            // Failure means that the process is gone, which is what is wanted.
            let _ = self.kill_all();
        }
        if let Some(supervisor) = self.supervisor.take() {
            // A panic of the supervising thread has been reported on its way already.
            let _ = supervisor.join();
        }
    }
}
