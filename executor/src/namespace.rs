//! The namespaces of the whole process, entered once at its start.

use std::io;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::surroundings;
use crate::sys::unshare::unshare;

pub mod id_map;

pub use id_map::{IdMapping, IdRange};

/// Inode of the initial user namespace: a constant of the kernel (`PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// How to enter.
#[derive(Debug, Clone, Default)]
pub struct EnterOptions {
    /// Map one id only, even when a range of subordinate ids is there.
    pub single_id: bool,
    /// Make a user namespace even as root (for tests and for hardening).
    pub user_namespace: bool,
}

/// What [`enter`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The process was made root of a new user namespace.
    pub rootless: bool,
    /// The process now runs in a user namespace, its own or a surrounding one. Overlays need
    /// `userxattr`, and device nodes cannot be made.
    pub user_namespace: bool,
    /// Which ids there are.
    pub ids: IdMapping,
    /// Why there is only a single id although more were wanted, with what to do about it.
    pub note: Option<String>,
}

/// Why the namespaces could not be entered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel refuses user namespaces to ordinary users.
    #[error("cannot create a user namespace: {source}")]
    UserNamespace {
        /// The kernel's answer.
        source: io::Error,
        /// What forbids it and how to allow it.
        hint: String,
    },
    /// The process has more than one thread.
    #[error("namespaces must be entered before any thread is started (there are {threads})")]
    Threads {
        /// Number of threads.
        threads: usize,
    },
    /// Another step failed.
    #[error("cannot enter a private namespace: {action}: {source}")]
    Step {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl NamespaceError {
    fn step(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Step {
            action: action.into(),
            source: source.into(),
        }
    }
}

/// Whether the calling process is in a user namespace other than the initial one.
pub fn in_user_namespace() -> bool {
    // Without /proc, the answer that works everywhere.
    rustix::fs::stat("/proc/self/ns/user").map_or(true, |stat| stat.st_ino != INITIAL_USER_NAMESPACE)
}

/// Moves the process into a mount namespace of its own, with private propagation, so that no mount
/// made later is seen from outside and all vanish with the process.
///
/// Root keeps its user namespace. An ordinary user (and a root without the right to do the above)
/// becomes root of a new user namespace, with all the subordinate ids that `/etc/subuid` and
/// `/etc/subgid` allot, or, where that does not work, with the one id that needs no permission.
///
/// Must be called while the process has a single thread.
pub fn enter(options: &EnterOptions) -> Result<Entered, NamespaceError> {
    // The kernel would refuse too, with an EINVAL that explains nothing.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(NamespaceError::Threads { threads });
    }
    if rustix::process::geteuid().is_root() && !options.user_namespace {
        match unshare(UnshareFlags::NEWNS) {
            Ok(()) => {
                make_private()?;
                return Ok(Entered {
                    rootless: false,
                    user_namespace: in_user_namespace(),
                    ids: IdMapping::current(),
                    note: None,
                });
            }
            // Root without CAP_SYS_ADMIN: inside another container.
            Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(NamespaceError::step("unshare the mount namespace", errno)),
        }
    }
    let (ids, note) = id_map::enter_user_namespace(options.single_id)?;
    make_private()?;
    Ok(Entered {
        rootless: true,
        user_namespace: true,
        ids,
        note,
    })
}

fn make_private() -> Result<(), NamespaceError> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(|errno| {
        if matches!(errno, rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) && in_user_namespace() {
            return user_namespace_error(errno.into());
        }
        NamespaceError::step("make the mounts private", errno)
    })
}

fn user_namespace_error(source: io::Error) -> NamespaceError {
    let hint = user_namespace_hint().unwrap_or_else(|| surroundings::NAMESPACE.to_owned());
    NamespaceError::UserNamespace { source, hint }
}

/// What on this machine keeps ordinary users from making user namespaces, if anything is known to.
pub(crate) fn user_namespace_hint() -> Option<String> {
    let sysctl = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(
            "AppArmor restricts unprivileged user namespaces: give this program an AppArmor profile with \
             `userns,` or run `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root"
                .to_owned(),
        );
    }
    if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        return Some("run `sysctl kernel.unprivileged_userns_clone=1` as root".to_owned());
    }
    match sysctl("user/max_user_namespaces") {
        Some(0) => Some("run `sysctl user.max_user_namespaces=15000` as root".to_owned()),
        None => Some("the kernel has no user namespaces (CONFIG_USER_NS)".to_owned()),
        Some(_) => None,
    }
}
