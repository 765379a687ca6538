//! The setup of a sandbox as data.
//!
//! [`Plan::of`] is a pure function from a specification and a few facts about the host: it can be
//! tested without privilege, and what a sandbox will do can be read before it does it. The sandbox
//! process carries the steps out in order.

use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Mount, PosixRlimitType, Process, Spec,
};
use serde::{Deserialize, Serialize};

use crate::seccomp::Filter;
use crate::{Error, Result, WindowSize, capabilities, spec};

mod options;
#[cfg(test)]
mod tests;

pub use options::{AccessTime, Attributes};
use options::{MountOptions, parse};

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

/// One step of the setup. Paths of targets are absolute in the sandbox's root and never lead out of
/// it, whatever symbolic links it contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Mount a new file system.
    Mount {
        /// Its type.
        filesystem: String,
        /// Where.
        target: PathBuf,
        /// Options of the file system.
        options: Vec<(String, Option<String>)>,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Show a file or directory of the host.
    Bind {
        /// Path on the host.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// With everything mounted below.
        recursive: bool,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Make a device node or fifo.
    Node {
        /// Where.
        target: PathBuf,
        /// `c`, `b` or `p`.
        kind: char,
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Make a symbolic link, replacing what is there.
    Symlink {
        /// Where.
        target: PathBuf,
        /// What it says.
        to: PathBuf,
    },
    /// Make the terminal, and show it as `/dev/console`.
    Terminal {
        /// Its size.
        size: Option<WindowSize>,
    },
    /// Change a mount that an earlier step made: its access becomes as in the attributes.
    Remount {
        /// Where.
        target: PathBuf,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Hide a file behind `/dev/null`, a directory behind an empty one; skip what does not exist.
    Mask {
        /// What.
        target: PathBuf,
    },
    /// Make a path read-only; skip what does not exist.
    ReadOnly {
        /// What.
        target: PathBuf,
    },
    /// Make the root itself read-only.
    ReadOnlyRoot,
    /// Set a kernel parameter.
    Sysctl {
        /// Name with dots.
        name: String,
        /// Value.
        value: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount {
                filesystem,
                target,
                options,
                attributes,
            } => {
                write!(f, "mount {filesystem} {} {attributes}", target.display())?;
                for (key, value) in options {
                    match value {
                        Some(value) => write!(f, " {key}={value}")?,
                        None => write!(f, " {key}")?,
                    }
                }
                Ok(())
            }
            Self::Bind {
                source,
                target,
                recursive,
                attributes,
            } => {
                let verb = if *recursive { "rbind" } else { "bind" };
                write!(f, "{verb} {} {} {attributes}", source.display(), target.display())
            }
            Self::Node {
                target,
                kind,
                major,
                minor,
                mode,
                uid,
                gid,
            } => {
                write!(
                    f,
                    "node {} {kind} {major}:{minor} {mode:o} {uid}:{gid}",
                    target.display()
                )
            }
            Self::Symlink { target, to } => write!(f, "symlink {} -> {}", target.display(), to.display()),
            Self::Terminal { .. } => write!(f, "terminal"),
            Self::Remount { target, attributes } => write!(f, "remount {} {attributes}", target.display()),
            Self::Mask { target } => write!(f, "mask {}", target.display()),
            Self::ReadOnly { target } => write!(f, "read-only {}", target.display()),
            Self::ReadOnlyRoot => write!(f, "read-only root"),
            Self::Sysctl { name, value } => write!(f, "sysctl {name}={value}"),
        }
    }
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

fn steps(spec: &Spec, linux: &Linux, host: &Host, terminal: Option<Option<WindowSize>>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut has_dev = false;
    let mut read_only_at_end = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let options = parse(
            mount.destination(),
            mount.options().as_deref().unwrap_or_default(),
        )?;
        let is_dev = mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs");
        if is_dev && options.attributes.read_only {
            // The nodes must get in first.
            read_only_at_end.push(Step::Remount {
                target: mount.destination().clone(),
                attributes: options.attributes,
            });
        }
        mount_steps(mount, options, linux, host, is_dev, &mut steps)?;
        if is_dev {
            has_dev = true;
            device_steps(linux, host, &mut steps)?;
        }
    }
    if !has_dev && !linux.devices().as_ref().is_none_or(Vec::is_empty) {
        device_steps(linux, host, &mut steps)?;
    }
    if let Some(size) = terminal {
        steps.push(Step::Terminal { size });
    }
    for (name, value) in sorted(linux.sysctl().iter().flatten()) {
        steps.push(Step::Sysctl {
            name: name.clone(),
            value: value.clone(),
        });
    }
    let path = |path: &String| PathBuf::from(path);
    steps.extend(
        linux
            .readonly_paths()
            .iter()
            .flatten()
            .map(|p| Step::ReadOnly { target: path(p) }),
    );
    steps.extend(
        linux
            .masked_paths()
            .iter()
            .flatten()
            .map(|p| Step::Mask { target: path(p) }),
    );
    steps.extend(read_only_at_end);
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        steps.push(Step::ReadOnlyRoot);
    }
    Ok(steps)
}

fn sorted<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(&'a String, &'a String)> {
    let mut pairs: Vec<_> = map.collect();
    pairs.sort();
    pairs
}

fn mount_steps(
    mount: &Mount,
    options: MountOptions,
    linux: &Linux,
    host: &Host,
    is_dev: bool,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let target = mount.destination().clone();
    if !target.is_absolute() || target == Path::new("/") {
        return Err(Error::spec(format!(
            "mount destination {} must be a path below /",
            target.display()
        )));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(Error::spec(format!(
            "mount {}: id mappings are not supported",
            target.display()
        )));
    }
    let typ = mount.typ().as_deref().unwrap_or("none");
    let mut attributes = options.attributes;
    if options.bind || typ == "bind" {
        let source = mount.source().clone().unwrap_or_default();
        if !source.is_absolute() {
            let (target, source) = (target.display(), source.display());
            return Err(Error::spec(format!(
                "mount {target}: source {source} must be an absolute path"
            )));
        }
        steps.push(Step::Bind {
            source,
            target,
            recursive: options.recursive,
            attributes,
        });
        return Ok(());
    }
    let own_network = has_namespace(linux, LinuxNamespaceType::Network);
    match typ {
        "cgroup" | "cgroup2" => cgroup_steps(&target, attributes, host, steps),
        "sysfs" if host.user_namespace && !own_network => {
            // sysfs shows the network namespace, and that is not ours.
            steps.push(Step::Bind {
                source: PathBuf::from("/sys"),
                target,
                recursive: true,
                attributes,
            });
        }
        "devpts" => {
            let mut data = options.data;
            if host.single_id {
                // There is no such group: the kernel would refuse.
                data.retain(|(key, _)| key != "gid");
            }
            data.retain(|(key, _)| key != "newinstance");
            steps.push(Step::Mount {
                filesystem: typ.to_owned(),
                target,
                options: data,
                attributes,
            });
        }
        filesystem => {
            if is_dev {
                attributes.read_only = false;
            }
            steps.push(Step::Mount {
                filesystem: filesystem.to_owned(),
                target,
                options: options.data,
                attributes,
            });
        }
    }
    Ok(())
}

fn cgroup_steps(target: &Path, attributes: Attributes, host: &Host, steps: &mut Vec<Step>) {
    let mount = |filesystem: &str, target: PathBuf, options, attributes| Step::Mount {
        filesystem: filesystem.to_owned(),
        target,
        options,
        attributes,
    };
    match &host.cgroups {
        CgroupView::None => {}
        CgroupView::Unified => steps.push(mount("cgroup2", target.to_owned(), Vec::new(), attributes)),
        CgroupView::Legacy(hierarchies) => {
            let open = Attributes {
                read_only: false,
                ..attributes
            };
            let mode = vec![("mode".to_owned(), Some("755".to_owned()))];
            steps.push(mount("tmpfs", target.to_owned(), mode, open));
            for (directory, option) in hierarchies {
                let options = option
                    .split(',')
                    .map(|option| match option.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (option.to_owned(), None),
                    })
                    .collect();
                steps.push(mount("cgroup", target.join(directory), options, attributes));
            }
            if attributes.read_only {
                steps.push(Step::Remount {
                    target: target.to_owned(),
                    attributes,
                });
            }
        }
    }
}

fn device_steps(linux: &Linux, host: &Host, steps: &mut Vec<Step>) -> Result<()> {
    for device in linux.devices().iter().flatten() {
        steps.push(device_step(device, host)?);
    }
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/core", "/proc/kcore"),
    ];
    steps.extend(links.map(|(target, to)| Step::Symlink {
        target: target.into(),
        to: to.into(),
    }));
    Ok(())
}

fn device_step(device: &LinuxDevice, host: &Host) -> Result<Step> {
    let target = device.path().clone();
    let kind = match device.typ() {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A => {
            return Err(Error::spec(format!(
                "device {}: type `a` is no type",
                target.display()
            )));
        }
    };
    if host.user_namespace && kind != 'p' {
        // Making device nodes is refused in a user namespace.
        let attributes = Attributes::default();
        return Ok(Step::Bind {
            source: target.clone(),
            target,
            recursive: false,
            attributes,
        });
    }
    let number = |value: i64, name: &str| {
        u32::try_from(value)
            .map_err(|_| Error::spec(format!("device {}: {name} number {value}", target.display())))
    };
    Ok(Step::Node {
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        target,
    })
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
