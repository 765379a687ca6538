//! The setup of a sandbox as data.
//!
//! [`Plan::of`] is a pure function from a specification and a few facts about the host: it can be
//! tested without privilege, and what a sandbox will do can be read before it does it. The sandbox
//! process carries the steps out in order.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType, PosixRlimitType, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::seccomp::Filter;
use crate::{Emulator, Error, Result, WindowSize, capabilities, spec};

mod derive;
mod options;
mod step;
#[cfg(test)]
mod tests;

pub use options::{AccessTime, Attributes};
pub use step::Step;

use derive::steps;

/// Facts about the host that decide how a step is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The process is in a user namespace: device nodes are bound instead of made, and sysfs of a
    /// network namespace that belongs to somebody else is bound instead of mounted.
    pub user_namespace: bool,
    /// Only one id is mapped: there is no group for terminals.
    pub single_id: bool,
    /// How control groups are shown.
    pub cgroups: CgroupView,
}

/// The cgroup hierarchies of the host, for `/sys/fs/cgroup` of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupView {
    /// None: nothing is mounted.
    None,
    /// The unified hierarchy.
    Unified,
    /// One hierarchy a set of controllers: directory name and mount option.
    Legacy(Vec<(String, String)>),
}

/// A resource limit, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Soft value.
    pub soft: u64,
    /// Hard value.
    pub hard: u64,
}

/// The process that takes the sandbox over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Arguments, the first of which is looked up in `PATH`.
    pub args: Vec<String>,
    /// Whole environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets as bits: bounding, effective, permitted, inheritable, ambient.
    pub capabilities: [u64; 5],
    /// Forbid gaining privileges.
    pub no_new_privileges: bool,
    /// Seccomp filter, one number an instruction.
    pub seccomp: Option<Vec<u64>>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// How readily it is killed when memory runs out.
    pub oom_score_adj: Option<i32>,
}

/// Everything the sandbox process does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Files of control groups to join by writing to.
    pub cgroup_procs: Vec<PathBuf>,
    /// Leave the host's cgroup namespace (after joining).
    pub cgroup_namespace: bool,
    /// Bring the loopback interface of an own network namespace up.
    pub loopback: bool,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// The mounts and all around them.
    pub steps: Vec<Step>,
    /// What is registered for the sandbox alone to interpret its programs.
    pub emulator: Option<Emulator>,
    /// What is executed at the end.
    pub command: Command,
}

impl Plan {
    /// Derives the plan. `terminal` is the size of the terminal when there is one; `seccomp` the
    /// compiled profile of the specification.
    pub fn of(
        spec: &Spec,
        host: &Host,
        terminal: Option<Option<WindowSize>>,
        seccomp: Option<&Filter>,
    ) -> Result<Self> {
        refuse_unsupported(spec)?;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::spec("process is missing"))?;
        let linux = spec.linux().clone().unwrap_or_default();
        Ok(Self {
            cgroup_procs: Vec::new(),
            cgroup_namespace: has_namespace(&linux, LinuxNamespaceType::Cgroup),
            loopback: has_namespace(&linux, LinuxNamespaceType::Network),
            hostname: spec.hostname().clone(),
            domainname: spec.domainname().clone(),
            steps: steps(spec, &linux, host, terminal)?,
            emulator: None,
            command: command(process, seccomp)?,
        })
    }
}

pub(crate) fn has_namespace(linux: &Linux, typ: LinuxNamespaceType) -> bool {
    linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == typ)
}

/// What a specification may say but this implementation does not do must not be ignored.
fn refuse_unsupported(spec: &Spec) -> Result<()> {
    let refuse = |what: &str| {
        Err(Error::spec(format!(
            "{what} is not supported by the built-in backend"
        )))
    };
    if spec.hooks().is_some() {
        return refuse("hooks");
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    for namespace in linux.namespaces().iter().flatten() {
        if namespace.path().is_some() {
            return refuse("joining an existing namespace (linux.namespaces[].path)");
        }
        if matches!(
            namespace.typ(),
            LinuxNamespaceType::User | LinuxNamespaceType::Time
        ) {
            return refuse(&format!("a new {} namespace", namespace.typ()));
        }
    }
    for (typ, name) in [
        (LinuxNamespaceType::Mount, "mount"),
        (LinuxNamespaceType::Pid, "pid"),
    ] {
        if !has_namespace(linux, typ) {
            return refuse(&format!("sharing the host's {name} namespace"));
        }
    }
    if linux.mount_label().is_some() || linux.intel_rdt().is_some() || linux.memory_policy().is_some() {
        return refuse("linux.mountLabel, linux.intelRdt or linux.memoryPolicy");
    }
    if linux.personality().is_some() || linux.time_offsets().is_some() {
        return refuse("linux.personality or linux.timeOffsets");
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return refuse("linux.netDevices");
    }
    let Some(process) = spec.process() else {
        return Ok(());
    };
    if process
        .apparmor_profile()
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return refuse("process.apparmorProfile");
    }
    if process
        .selinux_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
    {
        return refuse("process.selinuxLabel");
    }
    if process.scheduler().is_some()
        || process.io_priority().is_some()
        || process.exec_cpu_affinity().is_some()
    {
        return refuse("process.scheduler, process.ioPriority or process.execCPUAffinity");
    }
    Ok(())
}

fn command(process: &Process, seccomp: Option<&Filter>) -> Result<Command> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(crate::CommandError::Empty.into());
    }
    let env = process.env().clone().unwrap_or_default();
    for text in args.iter().chain(&env) {
        if text.contains('\0') {
            return Err(Error::spec("an argument or variable contains a NUL byte"));
        }
    }
    let user = process.user();
    let sets = match process.capabilities() {
        Some(sets) => [
            capabilities::bits(sets.bounding().as_ref()),
            capabilities::bits(sets.effective().as_ref()),
            capabilities::bits(sets.permitted().as_ref()),
            capabilities::bits(sets.inheritable().as_ref()),
            capabilities::bits(sets.ambient().as_ref()),
        ],
        None => [0; 5],
    };
    let limits = process.rlimits().iter().flatten().map(|limit| Limit {
        resource: resource(limit.typ()),
        soft: limit.soft(),
        hard: limit.hard(),
    });
    Ok(Command {
        args,
        env,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        capabilities: sets,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp: seccomp.map(Filter::to_words),
        limits: limits.collect(),
        oom_score_adj: process.oom_score_adj(),
    })
}

/// The value of `PATH` in an environment; Docker's default without one.
pub(crate) fn search_path(env: &[String]) -> &str {
    env.iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(spec::DEFAULT_PATH)
}

fn resource(typ: PosixRlimitType) -> u32 {
    match typ {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
