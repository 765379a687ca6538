//! What is kept of a container.

use serde::{Deserialize, Serialize};

use crate::RunOptions;

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, not run yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended.
    Exited,
}

/// What is kept of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What was asked for.
    pub options: RunOptions,
    /// The command line.
    pub command: Vec<String>,
    /// How far it is.
    pub status: Status,
    /// The exit code, once it has ended. Absent when it was killed together with its `kiln`.
    pub exit_code: Option<u8>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When its process started, RFC 3339.
    pub started: Option<String>,
    /// When its process ended, RFC 3339.
    pub finished: Option<String>,
    /// Its process, as the host sees it.
    pub process: Option<HostProcess>,
}

/// A process of the host, safe against the reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProcess {
    /// Process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

impl HostProcess {
    /// The process `pid`, if it exists.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; what follows the last one is regular.
        let start_time = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .parse()
            .ok()?;
        Some(Self { pid, start_time })
    }

    /// Whether it still exists.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Kills it; one that is gone is no error. Never kills another process that has its number by now.
    pub(crate) fn kill(self) -> std::io::Result<()> {
        use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let killed = match pidfd_open(pid, PidfdFlags::empty()) {
            // The handle stays with the process that it was opened for; whether that is the right one is looked up
            // now.
            Ok(handle) if self.is_alive() => pidfd_send_signal(handle, Signal::KILL),
            // Linux before 5.3.
            Err(rustix::io::Errno::NOSYS) if self.is_alive() => kill_process(pid, Signal::KILL),
            _ => return Ok(()),
        };
        match killed {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::HostProcess;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = HostProcess::of(std::process::id().cast_signed()).expect("this process");
        assert!(own.is_alive());
        assert!(
            !HostProcess {
                start_time: own.start_time + 1,
                ..own
            }
            .is_alive(),
            "the number was used again"
        );
        assert_eq!(HostProcess::of(i32::MAX), None);
        assert_eq!(HostProcess::of(-1), None);
    }

    #[test]
    fn only_the_right_process_is_killed() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().expect("a process");
        let process = HostProcess::of(child.id().cast_signed()).expect("the process");
        let other = HostProcess {
            start_time: process.start_time.wrapping_add(1),
            ..process
        };
        other.kill().expect("nothing to kill");
        assert!(process.is_alive() && child.try_wait().expect("a wait").is_none());
        process.kill().expect("killed");
        assert!(!child.wait().expect("a wait").success());
        process.kill().expect("one that is gone is no error");
        assert!(!process.is_alive());
    }
}
