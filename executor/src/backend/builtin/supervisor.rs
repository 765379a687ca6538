//! The thread that stands behind one sandbox from its start to its end.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::start_child;
use crate::cgroup::Group;
use crate::message::{Failure, MAX_MESSAGE, Message};
use crate::mountpoints::{self, Created};
use crate::namespace::id_map;
use crate::running::Ending;
use crate::{Error, ExitStatus, Result};

/// What the starting thread needs to know.
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) terminal: Option<File>,
}

pub(super) struct Supervisor {
    pub(super) executable: OwnedFd,
    pub(super) namespaces: c_int,
    pub(super) plan: OwnedFd,
    pub(super) root: OwnedFd,
    pub(super) streams: Option<[OwnedFd; 3]>,
    pub(super) report: OwnedFd,
    pub(super) report_theirs: Option<OwnedFd>,
    pub(super) group: Option<Group>,
    pub(super) ending: Arc<Ending>,
}

/// What the sandbox process reported until its socket closed.
#[derive(Default)]
struct Reported {
    created: Vec<Created>,
    terminal: Option<File>,
    failure: Option<Failure>,
    executing: bool,
}

impl Supervisor {
    /// Starts the process, tells how that went, waits for its end, and cleans up.
    pub(super) fn run(mut self, tell: &SyncSender<Result<Started>>) {
        let (pid, pidfd) = match self.start() {
            Ok((pid, pidfd)) => (pid, Arc::new(pidfd)),
            Err(error) => {
                self.clean_up(&[]);
                // Without a receiver there is nobody who wants to know.
                let _ = tell.send(Err(error));
                return;
            }
        };
        let mut reported = Reported::default();
        let read = self.read_reports(pid, &mut reported);
        if read.is_ok() && reported.failure.is_none() && reported.executing {
            let started = Started {
                pid,
                pidfd: pidfd.clone(),
                terminal: reported.terminal.take(),
            };
            if tell.send(Ok(started)).is_err() {
                kill(&pidfd);
            }
            let status = wait(&pidfd);
            let left = self.clean_up(&reported.created);
            self.ending
                .set(status.and_then(|status| left.map_or(Ok(status), Err)));
            return;
        }
        // It is about to exit by itself, or it speaks nonsense.
        if reported.failure.is_none() {
            kill(&pidfd);
        }
        let status = wait(&pidfd);
        self.clean_up(&reported.created);
        let error = match (read, reported.failure) {
            (Err(error), _) => error,
            (_, Some(Failure::Command(command))) => Error::Command(command),
            (_, Some(Failure::Setup { action, errno })) => Error::Setup {
                action,
                source: io::Error::from_raw_os_error(errno),
            },
            (_, None) => match status {
                Ok(status) => Error::DiedDuringSetup { status },
                Err(error) => error,
            },
        };
        let _ = tell.send(Err(error));
    }

    fn start(&mut self) -> Result<(Pid, OwnedFd)> {
        // Dropped at the end: the child's ends must be closed here.
        let report = self.report_theirs.take();
        let streams = self.streams.take();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.plan.as_fd()];
        fds.extend(report.as_ref().map(AsFd::as_fd));
        fds.push(self.root.as_fd());
        fds.extend(streams.iter().flatten().map(AsFd::as_fd));
        start_child(&self.executable, self.namespaces, &fds)
    }

    /// Reads until the socket closes: the command is being executed, or the process is gone.
    fn read_reports(&self, pid: Pid, reported: &mut Reported) -> Result<()> {
        let mut buffer = vec![0u8; MAX_MESSAGE];
        loop {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let received = match recvmsg(&self.report, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                // The process was killed with an unread packet; the wait tells how it ended.
                Err(rustix::io::Errno::CONNRESET) => return Ok(()),
                other => other.map_err(|e| Error::io("read the reports of a sandbox", e))?,
            };
            if received.bytes == 0 {
                return Ok(());
            }
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            let bytes = buffer.get(..received.bytes).unwrap_or_default();
            match serde_json::from_slice(bytes) {
                Ok(Message::Created(created)) => reported.created = created,
                Ok(Message::UserNamespace) => self.answer_ids(pid)?,
                Ok(Message::Executing) => reported.executing = true,
                Ok(Message::Failed(failure)) => reported.failure = Some(failure),
                Ok(Message::Terminal) => {
                    let reason = "a terminal without a descriptor".to_owned();
                    reported.terminal = Some(fd.ok_or(Error::Protocol { reason })?.into());
                }
                Err(error) => {
                    return Err(Error::Protocol {
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    /// Gives the process's new user namespace the ids of this one, and tells how that went.
    fn answer_ids(&self, pid: Pid) -> Result<()> {
        let errno = match id_map::same_ids(pid) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
        };
        match send(&self.report, &errno.to_ne_bytes(), SendFlags::NOSIGNAL) {
            // It is gone; the wait tells how.
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::io("answer a sandbox", errno)),
        }
    }

    /// Takes away what was made for the process; the first thing that cannot be is returned.
    fn clean_up(&mut self, created: &[Created]) -> Option<Error> {
        let left = mountpoints::remove(self.root.as_fd(), created).into_iter().next();
        let left = left.map(|(path, error)| {
            Error::io(
                format!("remove the mountpoint {} from the root", path.display()),
                error,
            )
        });
        if self.group.as_ref().is_some_and(Group::ran_out_of_memory) {
            self.ending.ran_out_of_memory();
        }
        let group = self.group.take().and_then(|group| group.remove().err());
        left.or(group.map(Error::from))
    }
}

fn kill(pidfd: &OwnedFd) {
    // The only possible failure is that it is gone already.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// Waits for the end of the process and takes it away.
fn wait(pidfd: &OwnedFd) -> Result<ExitStatus> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Err(errno) => return Err(Error::io("wait for the sandboxed process", errno)),
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code as u8),
                    (None, signal) => ExitStatus::Signal(signal.unwrap_or_default() as u8),
                });
            }
        }
    }
}
