//! Numbers of system calls by name, for each architecture.

use std::collections::HashMap;
use std::sync::LazyLock;

/// An architecture whose system calls are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, which x86_64 kernels execute too.
    I386,
    /// 64-bit Arm.
    Aarch64,
}

/// The architecture this program is compiled for.
#[cfg(target_arch = "x86_64")]
pub(crate) const NATIVE: Architecture = Architecture::X86_64;
/// The architecture this program is compiled for.
#[cfg(target_arch = "aarch64")]
pub(crate) const NATIVE: Architecture = Architecture::Aarch64;

type Table = HashMap<&'static str, u32>;

static X86_64: LazyLock<Table> = LazyLock::new(|| parse(include_str!("syscalls/x86_64.tbl")));
static I386: LazyLock<Table> = LazyLock::new(|| parse(include_str!("syscalls/i386.tbl")));
static AARCH64: LazyLock<Table> = LazyLock::new(|| parse(include_str!("syscalls/aarch64.tbl")));

fn parse(text: &'static str) -> Table {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(number, name)| Some((name, number.parse().ok()?)))
        .collect()
}

impl Architecture {
    /// Numbers by name.
    pub fn numbers(self) -> &'static HashMap<&'static str, u32> {
        match self {
            Self::X86_64 => &X86_64,
            Self::I386 => &I386,
            Self::Aarch64 => &AARCH64,
        }
    }

    /// How the kernel names it to a filter (`AUDIT_ARCH_*`).
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Whether a machine of architecture `native` executes programs of this one.
    pub(crate) fn runs_on(self, native: Self) -> bool {
        self == native || (self == Self::I386 && native == Self::X86_64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_complete_and_right() {
        for (architecture, read, lines) in [
            (Architecture::X86_64, 0, 370),
            (Architecture::I386, 3, 430),
            (Architecture::Aarch64, 63, 310),
        ] {
            let numbers = architecture.numbers();
            assert_eq!(numbers["read"], read, "{architecture:?}");
            assert_eq!(numbers["openat2"], 437, "{architecture:?}");
            assert!(numbers.len() > lines, "{architecture:?}: {}", numbers.len());
        }
    }

    #[test]
    fn the_native_table_agrees_with_the_c_library() {
        let numbers = NATIVE.numbers();
        for (name, number) in [
            ("execve", libc::SYS_execve),
            ("clone", libc::SYS_clone),
            ("setns", libc::SYS_setns),
            ("keyctl", libc::SYS_keyctl),
            ("pidfd_open", libc::SYS_pidfd_open),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("futex_waitv", libc::SYS_futex_waitv),
        ] {
            assert_eq!(i64::from(numbers[name]), number, "{name}");
        }
    }
}
