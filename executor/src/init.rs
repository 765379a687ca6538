//! The sandbox process, from its start to the execution of the command.
//!
//! It is this very program, started again under another name, as PID 1 of the new namespaces. It has
//! one thread and owes its parent exactly one of two things: that the command executes, or a
//! failure report that says why not.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::message::{Failure, INIT_NAME, Message};
use crate::plan::Plan;
use crate::sys;

mod credentials;
mod emulation;
mod execute;
mod mounts;
mod resolve;
mod terminal;

/// Exit code when nobody can be told what went wrong.
const LOST: i32 = 125;

type Outcome<T> = Result<T, Failure>;

/// Must be called first thing in `main`, before any thread is started. In a process that was started
/// as the inside of a sandbox it never returns; in any other it does nothing.
pub fn main_if_init() {
    let mut arguments = std::env::args_os();
    if arguments.next().as_deref() != Some(INIT_NAME.as_ref()) {
        return;
    }
    let numbers: Vec<RawFd> = arguments
        .filter_map(|argument| argument.to_str()?.parse().ok())
        .collect();
    run(&numbers);
    #[expect(
        clippy::exit,
        reason = "the sandbox process must not fall through into the program's main"
    )]
    std::process::exit(LOST)
}

/// What the parent passed.
struct Inherited {
    plan: OwnedFd,
    report: Report,
    root: OwnedFd,
    /// Standard streams; none when there is a terminal.
    streams: Option<[OwnedFd; 3]>,
}

fn inherited(numbers: &[RawFd]) -> io::Result<Inherited> {
    if let &[plan, report, root] = numbers {
        let [plan, report, root] = sys::fds::take_inherited([plan, report, root])?;
        return Ok(Inherited {
            plan,
            report: Report(report),
            root,
            streams: None,
        });
    }
    let numbers: [RawFd; 6] = numbers.try_into().map_err(io::Error::other)?;
    let [plan, report, root, stdin, stdout, stderr] = sys::fds::take_inherited(numbers)?;
    Ok(Inherited {
        plan,
        report: Report(report),
        root,
        streams: Some([stdin, stdout, stderr]),
    })
}

fn run(numbers: &[RawFd]) {
    // Started by hand under this name: there is nobody to report to.
    let Ok(inherited) = inherited(numbers) else { return };
    let Inherited {
        plan,
        report,
        root,
        streams,
    } = inherited;
    let Err(failure) = setup(&plan, &report, root, streams);
    // When even this cannot be sent, the parent is gone.
    let _ = report.send(&Message::Failed(failure), None);
}

fn setup(
    plan: &OwnedFd,
    report: &Report,
    root: OwnedFd,
    streams: Option<[OwnedFd; 3]>,
) -> Outcome<Infallible> {
    let step = |action: &'static str| move |error: rustix::io::Errno| Failure::setup(action, error);
    sys::fds::close_all_on_exec().map_err(|e| Failure::setup("mark descriptors close-on-exec", e))?;
    die_with_parent(report)?;
    let plan = read_plan(plan).map_err(|e| Failure::setup("read the plan", e))?;
    rustix::process::setsid().map_err(step("start a session"))?;
    rustix::process::umask(Mode::empty());
    for procs in &plan.cgroup_procs {
        std::fs::write(procs, "0").map_err(|e| Failure::setup(format!("join {}", procs.display()), e))?;
    }
    if plan.cgroup_namespace {
        sys::unshare::unshare(UnshareFlags::NEWCGROUP).map_err(step("unshare the cgroup namespace"))?;
    }
    if plan.loopback {
        sys::interface::loopback_up().map_err(|e| Failure::setup("bring the loopback interface up", e))?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(step("set the host name"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(step("set the domain name"))?;
    }
    if let Some(value) = plan.command.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", value.to_string())
            .map_err(|e| Failure::setup("set oom_score_adj", e))?;
    }
    let interpreter = plan.emulator.as_ref().map(emulation::open).transpose()?;
    let console = mounts::set_up(&plan, root, report)?;
    match (console, streams) {
        (Some(console), _) => terminal::attach(&console)?,
        (None, Some(streams)) => attach_streams(streams, plan.command.uid)?,
        (None, None) => return Err(Failure::setup("attach the streams", io::ErrorKind::InvalidInput)),
    }
    if let (Some(emulator), Some(interpreter)) = (&plan.emulator, &interpreter) {
        emulation::enter(emulator, interpreter, report)?;
    }
    credentials::assume(&plan.command, || die_with_parent(report))?;
    // From here on there is nothing to set up; if this process dies, it was not the setup's fault.
    report
        .send(&Message::Executing, None)
        .map_err(|e| Failure::setup("report", e))?;
    Err(Failure::Command(execute::execute(&plan.command)))
}

/// Asks to be killed when the parent's supervising thread ends, and makes sure that it has not ended
/// before. A change of user ids revokes the request, so it is made again after one.
fn die_with_parent(report: &Report) -> Outcome<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Failure::setup("tie the process to its parent", e))?;
    let mut fds = [PollFd::new(&report.0, PollFlags::empty())];
    let zero = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&zero)).map_err(|e| Failure::setup("look for the parent", e))?;
    if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
        // Nobody is left to read this; it only ends the setup.
        return Err(Failure::setup("find the parent alive", rustix::io::Errno::SRCH));
    }
    Ok(())
}

fn read_plan(fd: &OwnedFd) -> io::Result<Plan> {
    let file = File::from(fd.try_clone()?);
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    // By position: the file's offset is shared with the parent, who has just written it.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn attach_streams(streams: [OwnedFd; 3], uid: u32) -> Outcome<()> {
    for stream in &streams {
        give_pipe_to(stream.as_fd(), uid);
    }
    let [stdin, stdout, stderr] = streams;
    let step = |e| Failure::setup("attach the standard streams", e);
    rustix::stdio::dup2_stdin(stdin).map_err(step)?;
    rustix::stdio::dup2_stdout(stdout).map_err(step)?;
    rustix::stdio::dup2_stderr(stderr).map_err(step)
}

/// A program may open `/dev/stdout` anew, which needs permission on the pipe behind it.
fn give_pipe_to(stream: BorrowedFd<'_>, uid: u32) {
    let is_pipe = rustix::fs::fstat(stream)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
    if is_pipe {
        // Not possible for an unmapped owner; then opening anew fails, and nothing else.
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

/// The way back to the parent.
struct Report(OwnedFd);

impl Report {
    fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(
            &self.0,
            &[io::IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

/// Path without the leading slash; `.` for the root.
fn relative(path: &Path) -> &Path {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    }
}
