//! Limits of the processes of a build: what comes from the request and is no part of any key, and resource limits
//! by name.

use kiln_executor::runtime::{
    LinuxCpu, LinuxMemory, LinuxResources, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::process::{Resource, getrlimit};

use crate::graph::Ulimit;

/// Limits of each process of a build. None of them is part of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 for no limit.
    pub memory_swap: Option<i64>,
    /// Weight against others, 1024 being usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds that the quota is measured over.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// Processors, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
    /// The control group that those of the build are made in.
    pub cgroup_parent: Option<String>,
}

impl Limits {
    /// What control groups are needed for; `None` when nothing is limited.
    pub(crate) fn resources(&self) -> Option<LinuxResources> {
        let mut resources = LinuxResources::default();
        if self.memory.is_some() || self.memory_swap.is_some() {
            let mut memory = LinuxMemory::default();
            memory.set_limit(self.memory).set_swap(self.memory_swap);
            resources.set_memory(Some(memory));
        }
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_shares)
            .set_period(self.cpu_period)
            .set_quota(self.cpu_quota)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        if cpu != LinuxCpu::default() {
            resources.set_cpu(Some(cpu));
        }
        let is_limited = resources != LinuxResources::default() || self.cgroup_parent.is_some();
        is_limited.then_some(resources)
    }
}

/// Why a resource limit cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is no such limit.
    #[error("ulimit {0}: there is no such limit")]
    Unknown(String),
    /// It would have to be raised.
    #[error(
        "ulimit {name}={wanted}: the limit here is {allowed}, and raising it needs CAP_SYS_RESOURCE outside of a user namespace"
    )]
    NotRaised {
        /// The limit's name.
        name: String,
        /// The hard value asked for; `unlimited` for none.
        wanted: String,
        /// The hard value of this process.
        allowed: u64,
    },
}

/// All resource limits: Docker's name, the specification's, and the kernel's.
const ULIMITS: &[(&str, PosixRlimitType, Resource)] = &[
    ("core", PosixRlimitType::RlimitCore, Resource::Core),
    ("cpu", PosixRlimitType::RlimitCpu, Resource::Cpu),
    ("data", PosixRlimitType::RlimitData, Resource::Data),
    ("fsize", PosixRlimitType::RlimitFsize, Resource::Fsize),
    ("locks", PosixRlimitType::RlimitLocks, Resource::Locks),
    ("memlock", PosixRlimitType::RlimitMemlock, Resource::Memlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, Resource::Msgqueue),
    ("nice", PosixRlimitType::RlimitNice, Resource::Nice),
    ("nofile", PosixRlimitType::RlimitNofile, Resource::Nofile),
    ("nproc", PosixRlimitType::RlimitNproc, Resource::Nproc),
    ("rss", PosixRlimitType::RlimitRss, Resource::Rss),
    ("rtprio", PosixRlimitType::RlimitRtprio, Resource::Rtprio),
    ("rttime", PosixRlimitType::RlimitRttime, Resource::Rttime),
    (
        "sigpending",
        PosixRlimitType::RlimitSigpending,
        Resource::Sigpending,
    ),
    ("stack", PosixRlimitType::RlimitStack, Resource::Stack),
];

/// The names of all resource limits.
pub fn ulimit_names() -> impl Iterator<Item = &'static str> {
    ULIMITS.iter().map(|(name, ..)| *name)
}

/// The limit as a specification has it, once it is sure that the kernel will not refuse it: a lower limit than the
/// one asked for must not be set in silence.
pub(crate) fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, LimitError> {
    let (_, kind, resource) = ULIMITS
        .iter()
        .find(|(name, ..)| *name == limit.name)
        .ok_or_else(|| LimitError::Unknown(limit.name.clone()))?;
    if let Some(allowed) = getrlimit(*resource).maximum
        && value(limit.hard) > allowed
        && !may_raise()
    {
        let wanted = u64::try_from(limit.hard);
        return Err(LimitError::NotRaised {
            name: limit.name.clone(),
            wanted: wanted.map_or("unlimited".to_owned(), |hard| hard.to_string()),
            allowed,
        });
    }
    let rlimit = PosixRlimitBuilder::default()
        .typ(*kind)
        .soft(value(limit.soft))
        .hard(value(limit.hard));
    // Every field has a default: building cannot fail.
    Ok(rlimit.build().unwrap_or_default())
}

/// A limit as the kernel counts: none is the largest number.
fn value(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn may_raise() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let held = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    held && !kiln_executor::namespace::in_user_namespace()
}

#[cfg(test)]
mod tests {
    use super::{LimitError, Limits, ULIMITS, rlimit};
    use crate::graph::Ulimit;

    fn ulimit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    #[test]
    fn nothing_limited_needs_no_control_group() {
        let shm = Limits {
            shm_size: Some(1),
            ..Limits::default()
        };
        assert_eq!(shm.resources(), None);
        let parent = Limits {
            cgroup_parent: Some("builds".to_owned()),
            ..Limits::default()
        };
        assert!(parent.resources().is_some());
        let memory = Limits {
            memory: Some(1 << 20),
            cpu_quota: Some(1000),
            ..Limits::default()
        };
        let resources = memory.resources().unwrap();
        assert_eq!(
            resources.memory().and_then(|memory| memory.limit()),
            Some(1 << 20)
        );
        assert_eq!(
            resources
                .cpu()
                .as_ref()
                .and_then(kiln_executor::runtime::LinuxCpu::quota),
            Some(1000)
        );
    }

    #[test]
    fn limits_are_known_by_name() {
        let limit = rlimit(&ulimit("core", 0, 0)).unwrap();
        assert_eq!((limit.soft(), limit.hard()), (0, 0));
        assert_eq!(
            rlimit(&ulimit("files", 1, 1)),
            Err(LimitError::Unknown("files".to_owned()))
        );
        assert!(ULIMITS.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn raising_is_refused_where_the_kernel_would() {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let Some(allowed) = allowed.filter(|_| !super::may_raise()) else {
            println!("SKIPPED: needs a process that may not raise its limits");
            return;
        };
        let hard = i64::try_from(allowed).unwrap();
        assert!(rlimit(&ulimit("nofile", hard, hard)).is_ok());
        for more in [hard + 1, -1] {
            let refused = rlimit(&ulimit("nofile", 1, more));
            assert!(
                matches!(refused, Err(LimitError::NotRaised { .. })),
                "{refused:?}"
            );
        }
    }
}
