//! Capability names, numbers and sets.

use oci_spec::runtime::{Capabilities, Capability};

/// Names in the order of their numbers, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker leaves a container: 0xa80425fb.
pub(crate) const DOCKER_DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::SysChroot,
    Capability::Mknod,
    Capability::AuditWrite,
    Capability::Setfcap,
];

/// The kernel's number of a capability.
pub fn number(capability: Capability) -> Option<u32> {
    let name = capability.to_string();
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|position| position as u32)
}

/// A capability by its name, with or without `CAP_`, in any case.
pub fn parse(name: &str) -> Option<Capability> {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).parse().ok()
}

/// Every capability.
pub fn all() -> Capabilities {
    NAMES.iter().filter_map(|name| name.parse().ok()).collect()
}

/// A set as the kernel's bits.
pub fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter()
        .flatten()
        .filter_map(|&capability| number(capability))
        .fold(0, |bits, n| bits | 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number(Capability::Chown), Some(0));
        assert_eq!(number(Capability::SysAdmin), Some(21));
        assert_eq!(number(Capability::CheckpointRestore), Some(40));
        assert_eq!(all().len(), NAMES.len());
        assert_eq!(bits(Some(&all())), (1 << 41) - 1);
    }

    #[test]
    fn dockers_default_set() {
        assert_eq!(bits(Some(&DOCKER_DEFAULT.into())), 0xa804_25fb);
    }

    #[test]
    fn names_in_all_spellings() {
        for name in ["SYS_ADMIN", "cap_sys_admin", "CAP_SYS_ADMIN"] {
            assert_eq!(parse(name), Some(Capability::SysAdmin), "{name}");
        }
        assert_eq!(parse("SYS_NONE"), None);
    }
}
