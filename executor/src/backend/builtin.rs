//! The built-in backend.

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Once, PoisonError, mpsc};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccomp};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use super::{Backend, Sandbox};
use crate::cgroup::{Group, Groups};
use crate::message::INIT_NAME;
use crate::namespace::{IdMapping, in_user_namespace};
use crate::plan::{Host, Plan, has_namespace};
use crate::running::Ending;
use crate::seccomp::{self, Filter};
use crate::sys::clone::{Child, spawn};
use crate::{Error, Result, Running, Stdio, Stream};

mod supervisor;

use supervisor::Supervisor;

/// Starts sandboxes with nothing but the kernel.
///
/// Each sandbox has a supervising thread of its own. It starts the process, because a process is
/// tied to the thread that started it (`PR_SET_PDEATHSIG` fires when that thread ends, not when its
/// process does), waits for its end, and cleans up. So a sandbox may be started from any thread,
/// however short its life, and dies with the program in any case, even after `kill -9`.
/// (The one exception is the kernel's: executing a set-uid program as the command itself revokes
/// the tie.)
#[derive(Debug)]
pub struct Builtin {
    executable: OwnedFd,
    host: Host,
    groups: Groups,
    /// Done with the first sandbox: the groups of killed programs are taken away.
    swept: Once,
    /// The last profile and what it was compiled to: they hardly ever differ.
    filter: Mutex<Option<(LinuxSeccomp, Arc<Filter>)>>,
}

impl Builtin {
    /// Looks at the host once. To be called after [`crate::namespace::enter`].
    pub fn new() -> Result<Self> {
        let groups = Groups::discover()?;
        let host = Host {
            user_namespace: in_user_namespace(),
            single_id: IdMapping::current() == IdMapping::Single,
            cgroups: groups.view(),
        };
        Ok(Self {
            executable: own_executable()?,
            host,
            groups,
            swept: Once::new(),
            filter: Mutex::new(None),
        })
    }

    /// The facts that plans are made from.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The control groups of the host.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    fn filter(&self, profile: &LinuxSeccomp) -> Result<Arc<Filter>> {
        let mut last = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, filter)) = last.as_ref().filter(|(known, _)| known == profile) {
            return Ok(filter.clone());
        }
        let filter = Arc::new(seccomp::compile(profile)?);
        *last = Some((profile.clone(), filter.clone()));
        Ok(filter)
    }
}

impl Backend for Builtin {
    fn start(&self, sandbox: Sandbox) -> Result<Running> {
        let Sandbox {
            id,
            root,
            spec,
            stdio,
            emulator,
        } = sandbox;
        // Programs that are killed cannot do it themselves.
        self.swept.call_once(|| {
            self.groups.sweep();
        });
        let linux = spec.linux().clone().unwrap_or_default();
        let filter = linux
            .seccomp()
            .as_ref()
            .map(|profile| self.filter(profile))
            .transpose()?;
        let terminal = match &stdio {
            Stdio::Terminal(size) => Some(*size),
            Stdio::Streams { .. } => None,
        };
        if spec
            .process()
            .as_ref()
            .and_then(oci_spec::runtime::Process::terminal)
            == Some(true)
            && terminal.is_none()
        {
            return Err(Error::spec(
                "process.terminal is set, but the standard streams are no terminal",
            ));
        }
        let mut plan = Plan::of(&spec, &self.host, terminal, filter.as_deref())?;
        plan.emulator = emulator;
        let group = linux
            .resources()
            .as_ref()
            .map(|limits| {
                let parent = linux.cgroups_path().as_deref();
                self.groups.create(&id, limits, parent)
            })
            .transpose()?;
        if let Some(group) = &group {
            plan.cgroup_procs = group.procs_files();
        }
        let result = self.start_planned(&id, &plan, root, &linux, stdio, group);
        result.map(|(mut running, streams)| {
            running.stdin = streams.stdin;
            running.stdout = streams.stdout;
            running.stderr = streams.stderr;
            running
        })
    }
}

impl Builtin {
    fn start_planned(
        &self,
        id: &str,
        plan: &Plan,
        root: OwnedFd,
        linux: &Linux,
        stdio: Stdio,
        group: Option<Group>,
    ) -> Result<(Running, Ours)> {
        let (theirs, ours) = streams(stdio)?;
        let plan = sealed(plan)?;
        let flags = SocketFlags::CLOEXEC;
        let (report, report_theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|e| Error::io("make a socket pair", e))?;
        let executable = self
            .executable
            .try_clone()
            .map_err(|e| Error::io("duplicate a descriptor", e))?;
        let (send, receive) = mpsc::sync_channel(1);
        let ending = Arc::new(Ending::default());
        let supervisor = Supervisor {
            executable,
            namespaces: namespaces(linux),
            plan,
            root,
            streams: theirs,
            report,
            report_theirs: Some(report_theirs),
            group,
            ending: ending.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("sandbox {id}"))
            .stack_size(256 * 1024)
            .spawn(move || supervisor.run(&send))
            .map_err(|e| Error::io("start a thread", e))?;
        match receive.recv() {
            Ok(Ok(started)) => {
                let running = Running {
                    pid: started.pid,
                    pidfd: started.pidfd,
                    stdin: None,
                    stdout: None,
                    stderr: None,
                    terminal: started.terminal,
                    ending,
                    supervisor: Some(thread),
                };
                Ok((running, ours))
            }
            Ok(Err(error)) => {
                // It has cleaned up before it told us, or is just doing so.
                let _ = thread.join();
                Err(error)
            }
            Err(mpsc::RecvError) => Err(Error::Protocol {
                reason: "the supervising thread ended without a word".to_owned(),
            }),
        }
    }
}

/// This program, to be executed again. Through a read-only mount where possible, so that a process
/// in a sandbox that gets hold of `/proc/PID/exe` cannot overwrite the program on the host
/// (CVE-2019-5736).
fn own_executable() -> Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let path = "/proc/self/exe";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if let Ok(tree) = open_tree(rustix::fs::CWD, path, flags)
        && crate::sys::mount_setattr::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0).is_ok()
    {
        return Ok(tree);
    }
    // Older kernels, or the file has been deleted since the start.
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io(format!("open {path}"), e))
}

/// `CLONE_NEW*` flags. The cgroup namespace is left to the process itself, after it has joined its
/// groups, so that they are the root of what it sees.
fn namespaces(linux: &Linux) -> c_int {
    [
        (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
        (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
        (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
        (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
        (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
    ]
    .into_iter()
    .filter(|(typ, _)| has_namespace(linux, *typ))
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// Writes the plan into memory that can no longer change.
fn sealed(plan: &Plan) -> Result<OwnedFd> {
    let write = || -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("sandbox-plan", flags)?);
        file.write_all(&serde_json::to_vec(plan)?)?;
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        Ok(file.into())
    };
    write().map_err(|e| Error::io("write the plan of a sandbox", e))
}

/// The caller's ends of the standard streams.
#[derive(Default)]
struct Ours {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

/// Opens the streams: the process's ends, and the caller's.
fn streams(stdio: Stdio) -> Result<(Option<[OwnedFd; 3]>, Ours)> {
    let Stdio::Streams {
        stdin,
        stdout,
        stderr,
    } = stdio
    else {
        return Ok((None, Ours::default()));
    };
    let (stdin, our_stdin) = stream(stdin, std::io::stdin().as_fd(), true)?;
    let (stdout, our_stdout) = stream(stdout, std::io::stdout().as_fd(), false)?;
    let (stderr, our_stderr) = stream(stderr, std::io::stderr().as_fd(), false)?;
    let ours = Ours {
        stdin: our_stdin,
        stdout: our_stdout,
        stderr: our_stderr,
    };
    Ok((Some([stdin, stdout, stderr]), ours))
}

fn stream(stream: Stream, own: BorrowedFd<'_>, input: bool) -> Result<(OwnedFd, Option<File>)> {
    let open = || -> io::Result<(OwnedFd, Option<File>)> {
        Ok(match stream {
            Stream::Null => (
                File::options()
                    .read(input)
                    .write(!input)
                    .open("/dev/null")?
                    .into(),
                None,
            ),
            Stream::Inherit => (own.try_clone_to_owned()?, None),
            Stream::Fd(fd) => (fd, None),
            Stream::Pipe => {
                let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
                if input {
                    (read, Some(write.into()))
                } else {
                    (write, Some(read.into()))
                }
            }
        })
    };
    let (theirs, ours) = open().map_err(|e| Error::io("open a standard stream", e))?;
    // The process's own standard streams are in the way below 3.
    let theirs = if theirs.as_raw_fd() < 3 {
        theirs
            .try_clone()
            .map_err(|e| Error::io("duplicate a descriptor", e))?
    } else {
        theirs
    };
    Ok((theirs, ours))
}

fn start_child(executable: &OwnedFd, namespaces: c_int, fds: &[BorrowedFd<'_>]) -> Result<(Pid, OwnedFd)> {
    let mut arguments = vec![INIT_NAME.to_owned()];
    arguments.extend(fds.iter().map(|fd| fd.as_raw_fd().to_string()));
    let arguments: Vec<CString> = arguments
        .into_iter()
        .filter_map(|argument| CString::new(argument).ok())
        .collect();
    let Child { pid, pidfd } = spawn(namespaces, executable.as_fd(), &arguments, fds)
        .map_err(|e| Error::io("start a process in new namespaces", e))?;
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::Protocol {
        reason: "clone returned no process id".to_owned(),
    })?;
    Ok((pid, pidfd))
}
