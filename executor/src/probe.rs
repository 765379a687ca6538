//! What this machine's kernel and tools give, and what is done where they do not.

mod filesystems;

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::cgroup::Groups;
use crate::emulation::{self, MACHINES, Support};
use crate::namespace;

/// One thing that may be there or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Short name.
    pub name: &'static str,
    /// Whether it is there for this process.
    pub available: bool,
    /// Facts about it, when it is there (a version, a list).
    pub detail: Option<String>,
    /// Why it is not there.
    pub why_not: Option<String>,
    /// What it is used for.
    pub needed_for: &'static str,
    /// What happens without it.
    pub fallback: &'static str,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Release of the kernel.
    pub kernel: String,
    /// Machine architecture in the kernel's words.
    pub machine: String,
    /// The process is in a user namespace.
    pub user_namespace: bool,
    /// The features.
    pub features: Vec<Feature>,
}

/// Looks at everything, for a store in the folder `root`. Changes nothing and starts nothing.
pub fn features(root: &Path) -> Features {
    let uname = rustix::system::uname();
    let features = vec![
        user_namespaces(),
        id_helpers(),
        subordinate_ids(),
        mount_api(),
        filesystems::overlay(),
        filesystems::store(root),
        filesystems::procfs(),
        filesystems::lowerdir_plus(),
        openat2(),
        pidfd(),
        seccomp(),
        control_groups(),
        limits_controllers(),
        pid_limit(),
        tun(),
        foreign_platforms(),
    ];
    Features {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        user_namespace: namespace::in_user_namespace(),
        features,
    }
}

impl Features {
    /// The same where making a user namespace was tried and refused, which no look at the machine tells.
    #[must_use]
    pub fn without_user_namespaces(mut self, why_not: &str) -> Self {
        for feature in &mut self.features {
            if feature.name == USER_NAMESPACES {
                feature.available = false;
                feature.detail = None;
                feature.why_not = Some(why_not.to_owned());
            }
        }
        self
    }
}

const USER_NAMESPACES: &str = "user namespaces";

/// The outcome of one look: facts, or the reason why not.
fn feature(
    name: &'static str,
    outcome: Result<Option<String>, String>,
    needed_for: &'static str,
    fallback: &'static str,
) -> Feature {
    let available = outcome.is_ok();
    let (detail, why_not) = match outcome {
        Ok(detail) => (detail, None),
        Err(why_not) => (None, Some(why_not)),
    };
    Feature {
        name,
        available,
        detail,
        why_not,
        needed_for,
        fallback,
    }
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn text(errno: Errno) -> String {
    io::Error::from(errno).to_string()
}

fn user_namespaces() -> Feature {
    let outcome = match namespace::user_namespace_hint() {
        Some(hint) => Err(hint),
        None => Ok(read("/proc/sys/user/max_user_namespaces").map(|max| format!("at most {max}"))),
    };
    feature(
        USER_NAMESPACES,
        outcome,
        "running as an ordinary user",
        "none: only root can build",
    )
}

fn id_helpers() -> Feature {
    let outcome = match (
        namespace::id_map::helper("newuidmap"),
        namespace::id_map::helper("newgidmap"),
    ) {
        (Some(users), Some(_)) => Ok(Some(users.display().to_string())),
        _ => Err("newuidmap or newgidmap is missing: install the package uidmap".to_owned()),
    };
    feature(
        "newuidmap",
        outcome,
        "more than one user id in images built by an ordinary user",
        "one id: every file belongs to root",
    )
}

fn subordinate_ids() -> Feature {
    let uid = rustix::process::getuid().as_raw();
    let (users, groups) = namespace::id_map::subordinate_ids(uid);
    let count = |ranges: &[namespace::IdRange]| ranges.iter().map(|r| u64::from(r.count)).sum::<u64>();
    let outcome = match (count(&users), count(&groups)) {
        (0, _) | (_, 0) => Err(format!(
            "user id {uid} has no range in /etc/subuid and /etc/subgid"
        )),
        (users, groups) => Ok(Some(format!("{users} user ids, {groups} group ids"))),
    };
    feature(
        "subordinate ids",
        outcome,
        "more than one user id in images built by an ordinary user",
        "one id: every file belongs to root (root itself needs none)",
    )
}

/// Whether a system call exists: any answer but ENOSYS to a call that cannot succeed.
fn exists(errno: Result<(), Errno>) -> Result<Option<String>, String> {
    match errno {
        Err(Errno::NOSYS) => Err("the kernel does not have it".to_owned()),
        _ => Ok(None),
    }
}

fn mount_api() -> Feature {
    use rustix::mount::{FsOpenFlags, fsopen};
    // An unknown file system is answered with ENODEV, a lack of rights with EPERM.
    let outcome = exists(fsopen("no-such-file-system", FsOpenFlags::FSOPEN_CLOEXEC).map(drop));
    feature(
        "new mount API",
        outcome,
        "all sandboxes (Linux 5.2)",
        "none: sandboxes need it",
    )
}

fn openat2() -> Feature {
    let result = rustix::fs::openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    );
    let outcome = match result {
        Ok(_) => Ok(None),
        Err(errno) => Err(text(errno)),
    };
    feature(
        "openat2",
        outcome,
        "resolving paths inside a root",
        "component by component",
    )
}

fn pidfd() -> Feature {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    let outcome = match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Ok(None),
        Err(errno) => Err(text(errno)),
    };
    feature(
        "pidfd",
        outcome,
        "signals and waiting without races (Linux 5.4)",
        "none: sandboxes need it",
    )
}

fn seccomp() -> Feature {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    let outcome = match actions {
        Some(actions) => Ok(Some(actions)),
        None => Err("the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)".to_owned()),
    };
    feature(
        "seccomp",
        outcome,
        "the system call filter of sandboxes",
        "none: start without the profile",
    )
}

fn control_groups() -> Feature {
    let outcome = match Groups::discover() {
        Err(error) => Err(error.to_string()),
        Ok(groups) => {
            let controllers = groups.controllers();
            let version = match (
                controllers.iter().any(|(_, u)| *u),
                controllers.iter().any(|(_, u)| !u),
            ) {
                (true, true) => Ok("hybrid"),
                (true, false) => Ok("v2"),
                (false, true) => Ok("v1"),
                (false, false) => Err("no hierarchy is mounted".to_owned()),
            };
            let names: Vec<String> = controllers
                .into_iter()
                .filter(|(name, _)| !name.starts_with("name="))
                .map(|(name, unified)| format!("{name} ({})", if unified { "v2" } else { "v1" }))
                .collect();
            version.map(|version| Some(format!("{version}: {}", names.join(", "))))
        }
    };
    feature("cgroups", outcome, "resource limits", "none: limits are refused")
}

fn limits_controllers() -> Feature {
    let names: Vec<String> = Groups::discover()
        .map(|groups| groups.controllers().into_iter().map(|(name, _)| name).collect())
        .unwrap_or_default();
    let missing: Vec<&str> = ["memory", "cpu", "cpuset", "pids"]
        .into_iter()
        .filter(|want| !names.iter().any(|n| n == want))
        .collect();
    let outcome = if !missing.is_empty() {
        Err(format!("no controller for {}", missing.join(", ")))
    } else if namespace::in_user_namespace() || !rustix::process::geteuid().is_root() {
        Err("ordinary users need a delegated subtree".to_owned())
    } else {
        Ok(None)
    };
    feature(
        "resource limits",
        outcome,
        "--memory, --cpus, --cpuset-cpus, --pids-limit",
        "none: they are refused",
    )
}

fn pid_limit() -> Feature {
    let outcome = read("/proc/sys/kernel/pid_max")
        .map(Some)
        .ok_or_else(|| "/proc is not mounted".to_owned());
    feature("process ids", outcome, "many sandboxes at once", "none")
}

fn tun() -> Feature {
    let outcome = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(|_| None)
        .map_err(|error| format!("/dev/net/tun: {error}"));
    feature(
        "tun",
        outcome,
        "a network of its own for an ordinary user",
        "the host's network",
    )
}

fn foreign_platforms() -> Feature {
    let own = match std::env::consts::ARCH {
        "x86_64" => ["amd64", "386"],
        "aarch64" => ["arm64", "arm64"],
        other => [other, other],
    };
    let (mut registered, mut private) = (Vec::new(), Vec::new());
    let mut why_not = String::new();
    for machine in MACHINES
        .iter()
        .filter(|machine| !own.contains(&machine.architecture))
    {
        match emulation::support(machine.architecture) {
            Support::Registered(_) => registered.push(machine.architecture),
            Support::Private(_) => private.push(machine.architecture),
            // The first of the list stands for all: what is missing is nearly always qemu.
            Support::None { reason, remedy } if why_not.is_empty() => why_not = format!("{reason}; {remedy}"),
            Support::None { .. } => {}
        }
    }
    let ways = [
        (registered, "registered on this machine"),
        (private, "qemu, registered for each sandbox alone"),
    ];
    let found: Vec<String> = ways
        .iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, way)| format!("{} ({way})", names.join(" ")))
        .collect();
    let outcome = if found.is_empty() {
        Err(why_not)
    } else {
        Ok(Some(found.join(", ")))
    };
    feature(
        "foreign platforms",
        outcome,
        "RUN steps and containers of other platforms",
        "none: only this machine's programs run",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_explains_itself() {
        let report = features(Path::new("/"));
        assert!(report.kernel.contains('.'), "{}", report.kernel);
        for feature in &report.features {
            assert_eq!(feature.available, feature.why_not.is_none(), "{}", feature.name);
            assert!(
                !feature.needed_for.is_empty() && !feature.fallback.is_empty(),
                "{}",
                feature.name
            );
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["features"].as_array().unwrap().len(), report.features.len());
    }

    #[test]
    fn what_certainly_is_here_is_found() {
        let report = features(Path::new("/"));
        let find = |name| {
            report
                .features
                .iter()
                .find(|feature| feature.name == name)
                .unwrap()
        };
        assert!(find("process ids").available);
        assert!(exists(Err(Errno::NOSYS)).is_err());
        assert!(exists(Err(Errno::PERM)).is_ok());
    }
}
