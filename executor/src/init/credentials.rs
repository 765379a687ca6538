//! Becoming the user, with just the rights it shall have.

use std::io;

use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{Failure, Outcome};
use crate::error::CommandError;
use crate::plan::{Command, Limit};
use crate::seccomp::Filter;
use crate::sys::{capset, seccomp, signals};

/// Gives up all rights that the command shall not have. `revive` renews what a change of user ids
/// takes away. The order matters: each right is given up after its last use.
pub(super) fn assume(command: &Command, revive: impl Fn() -> Outcome<()>) -> Outcome<()> {
    let step = |action: &'static str| move |error: rustix::io::Errno| Failure::setup(action, error);
    for limit in &command.limits {
        set_limit(limit)?;
    }
    let entered = enter(command);
    // What the surrounding container withholds cannot be given on.
    let held = rustix::thread::capabilities(None)
        .map_err(step("read capabilities"))?
        .permitted
        .bits();
    let [bounding, effective, permitted, inheritable, ambient] = command.capabilities.map(|set| set & held);
    drop_bounding(bounding)?;
    let filter = command.seccomp.as_deref().map(Filter::from_words);
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
    if let (Some(filter), false) = (&filter, command.no_new_privileges) {
        seccomp::install(&filter.0).map_err(|e| Failure::setup("install the seccomp filter", e))?;
    }
    set_keep_capabilities(true).map_err(step("keep capabilities"))?;
    set_ids(command)?;
    set_keep_capabilities(false).map_err(step("stop keeping capabilities"))?;
    if entered.is_err() {
        // Root may be locked out where the user is not (a network file system).
        enter(command)?;
    }
    capset::clear_ambient().map_err(|e| Failure::setup("clear ambient capabilities", e))?;
    capset::set(effective, permitted, inheritable).map_err(|e| Failure::setup("set capabilities", e))?;
    for capability in (0..64).filter(|bit| ambient >> bit & 1 == 1) {
        capset::raise_ambient(capability)
            .map_err(|e| Failure::setup(format!("raise ambient capability {capability}"), e))?;
    }
    rustix::process::umask(Mode::from_raw_mode(command.umask));
    revive()?;
    signals::reset_all().map_err(|e| Failure::setup("reset signals", e))?;
    if command.no_new_privileges {
        set_no_new_privs(true).map_err(step("set no_new_privs"))?;
        if let Some(filter) = &filter {
            seccomp::install(&filter.0).map_err(|e| Failure::setup("install the seccomp filter", e))?;
        }
    }
    Ok(())
}

/// Enters the working directory, and makes sure that it is in the root.
fn enter(command: &Command) -> Outcome<()> {
    let missing = |error: io::Error| {
        let reason = error.to_string();
        Failure::Command(CommandError::CwdMissing {
            cwd: command.cwd.clone(),
            reason,
        })
    };
    if !command.cwd.is_absolute() {
        return Err(missing(io::Error::other("not an absolute path")));
    }
    rustix::process::chdir(&command.cwd).map_err(|e| missing(e.into()))?;
    let cwd = rustix::process::getcwd(Vec::new()).map_err(|e| missing(e.into()))?;
    if !cwd.to_bytes().starts_with(b"/") {
        return Err(missing(io::Error::other("outside of the root")));
    }
    Ok(())
}

fn drop_bounding(keep: u64) -> Outcome<()> {
    for capability in 0..64 {
        // The kernel's last capability has been passed.
        let Ok(held) = capset::in_bounding_set(capability) else {
            break;
        };
        if held && keep >> capability & 1 == 0 {
            capset::drop_from_bounding_set(capability)
                .map_err(|e| Failure::setup(format!("drop capability {capability}"), e))?;
        }
    }
    Ok(())
}

/// Whether this user namespace has given up `setgroups`, as it must when an ordinary user maps a single id.
fn is_setgroups_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|state| state.starts_with(b"deny"))
}

fn set_ids(command: &Command) -> Outcome<()> {
    let groups: Vec<Gid> = command.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match set_thread_groups(&groups) {
        // A single mapped id: setgroups is denied for good. There is nothing to give up, and nothing to gain:
        // no file can belong to any other group than the mapped one, which the process has anyway.
        Err(rustix::io::Errno::PERM) if groups.is_empty() || is_setgroups_denied() => {}
        other => other.map_err(|e| Failure::setup(format!("set groups {:?}", command.groups), e))?,
    }
    let explain = |kind: &str, id: u32, error: rustix::io::Errno| {
        let unmapped = if error == rustix::io::Errno::INVAL {
            ", which is not mapped in this user namespace (more subordinate ids are needed)"
        } else {
            ""
        };
        Failure::setup(format!("become {kind} {id}{unmapped}"), error)
    };
    let gid = Gid::from_raw(command.gid);
    set_thread_res_gid(gid, gid, gid).map_err(|e| explain("group", command.gid, e))?;
    let uid = Uid::from_raw(command.uid);
    set_thread_res_uid(uid, uid, uid).map_err(|e| explain("user", command.uid, e))
}

/// Sets a limit. Raising the hard limit needs a capability that even root may lack; then as much as
/// possible is set.
fn set_limit(limit: &Limit) -> Outcome<()> {
    let Some(resource) = resource(limit.resource) else {
        return Err(Failure::setup(
            format!("set resource limit {}", limit.resource),
            rustix::io::Errno::INVAL,
        ));
    };
    let value = |value: u64| (value != u64::MAX).then_some(value);
    let wanted = Rlimit {
        current: value(limit.soft),
        maximum: value(limit.hard),
    };
    match setrlimit(resource, wanted) {
        Err(rustix::io::Errno::PERM) => {
            let maximum = getrlimit(resource).maximum;
            let current = match (value(limit.soft), maximum) {
                (Some(soft), Some(maximum)) => Some(soft.min(maximum)),
                (soft, maximum) => soft.or(maximum),
            };
            setrlimit(resource, Rlimit { current, maximum })
        }
        other => other,
    }
    .map_err(|e| Failure::setup(format!("set resource limit {}", limit.resource), e))
}

fn resource(number: u32) -> Option<Resource> {
    [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ]
    .into_iter()
    .find(|resource| *resource as u32 == number)
}
