//! What a container around Kiln withholds, and how the container is started so that it does not.
//!
//! Each was met in containers that Docker and Podman start with their defaults. The kernel's answers explain nothing
//! there, so what failed decides.

use std::io;

use crate::error::Error;
use crate::namespace::NamespaceError;
use crate::overlay::OverlayError;

/// A user namespace, or a mount in it, is refused and nothing on the machine is known to forbid it.
pub(crate) const NAMESPACE: &str = "in a container, start that with `--security-opt seccomp=unconfined` and, where AppArmor \
    is on, `--security-opt apparmor=unconfined`";
/// A new procfs is refused where a part of the visible one is hidden.
pub(crate) const PROC: &str = "this container hides parts of /proc, and then the kernel lets nobody mount another: start it with \
    `--security-opt systempaths=unconfined` (Docker) or `--security-opt unmask=ALL` (Podman)";
/// The store lies on the container's own root file system.
pub(crate) const OVERLAY: &str = "put the store on a volume (`-v kiln:/var/lib/kiln` of the container), or name a folder on another file \
    system with --root";

/// Root without any right may not even be root of a namespace of its own.
const NO_RIGHTS: &str = "root of a container needs the capability SETFCAP (`--cap-add SETFCAP`) for this; as an ordinary user \
    (`--user 1000`) none is needed";

/// The beginning of what is attempted, and the hint.
const REFUSED: [(&str, &str); 4] = [
    ("mount proc ", PROC),
    ("pivot into the root", NAMESPACE),
    ("attach the root", NAMESPACE),
    ("set the host name", NAMESPACE),
];

/// Whether something is mounted over a part of the visible /proc.
pub(crate) fn proc_is_hidden() -> bool {
    // Without the list nothing is known to be.
    covers_proc(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn covers_proc(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let target = line.split(' ').nth(4).unwrap_or_default();
        // A place of its own for interpreters hides nothing.
        target.starts_with("/proc/") && target != "/proc/sys/fs/binfmt_misc"
    })
}

impl Error {
    /// What can be done about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Namespace(NamespaceError::UserNamespace { hint, .. }) => Some(hint.clone()),
            Self::Namespace(NamespaceError::Step { action, source })
                if action == "write uid_map" && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(NO_RIGHTS.to_owned())
            }
            Self::Overlay(OverlayError::UpperUnsupported { .. }) => Some(OVERLAY.to_owned()),
            Self::Setup { action, source } if source.kind() == io::ErrorKind::PermissionDenied => REFUSED
                .iter()
                .find(|(start, _)| action.starts_with(start))
                .map(|(_, hint)| (*hint).to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_over_proc_are_seen() {
        let line = |target: &str| format!("30 20 0:5 / {target} rw - tmpfs tmpfs rw\n");
        assert!(!covers_proc(&line("/proc")));
        assert!(!covers_proc(&line("/proc/sys/fs/binfmt_misc")));
        assert!(covers_proc(&(line("/proc") + &line("/proc/kcore"))));
    }

    #[test]
    fn what_containers_refuse_has_a_hint() {
        let setup = |action: &str, errno| Error::Setup {
            action: action.to_owned(),
            source: io::Error::from_raw_os_error(errno),
        };
        let table = [
            (
                setup("mount proc /proc rw,nosuid", libc::EPERM),
                Some("systempaths"),
            ),
            (setup("pivot into the root", libc::EPERM), Some("seccomp")),
            (setup("set the host name", libc::EPERM), Some("seccomp")),
            (setup("mount proc /proc rw,nosuid", libc::ENOMEM), None),
            (setup("mount tmpfs /dev", libc::EPERM), None),
            (
                Error::Overlay(OverlayError::UpperUnsupported {
                    upper: "/x".into(),
                    reason: "it is itself an overlay".to_owned(),
                }),
                Some("volume"),
            ),
            (
                Error::Namespace(NamespaceError::Step {
                    action: "write uid_map".to_owned(),
                    source: io::Error::from_raw_os_error(libc::EPERM),
                }),
                Some("SETFCAP"),
            ),
            (
                Error::Namespace(NamespaceError::UserNamespace {
                    source: io::Error::from_raw_os_error(libc::EPERM),
                    hint: NAMESPACE.to_owned(),
                }),
                Some("seccomp=unconfined"),
            ),
        ];
        for (error, expected) in table {
            let hint = error.hint();
            match expected {
                Some(words) => assert!(
                    hint.as_ref().is_some_and(|hint| hint.contains(words)),
                    "{error}: {hint:?}"
                ),
                None => assert_eq!(hint, None, "{error}"),
            }
        }
    }
}
