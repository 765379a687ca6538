//! System call filters: from an OCI profile to a short BPF program.
//!
//! A profile is a list of names with an action and conditions on arguments. Testing one name after
//! the other would cost every system call, and the kernel's own preparation at each exec, a pass
//! over hundreds of instructions. Instead, the numbers of an architecture are cut into ranges with
//! the same outcome, which are few because allowed numbers are nearly contiguous, and a binary
//! search over the ranges' borders is emitted.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg};
use thiserror::Error;

mod bpf;
pub mod docker;
#[cfg(test)]
mod interpreter;
mod syscalls;

pub use syscalls::Architecture;
pub(crate) use syscalls::NATIVE;

/// Numbers with this bit are the x32 ABI of x86_64.
const X32_BIT: u32 = 0x4000_0000;

/// Why a profile cannot be compiled.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeccompError {
    /// Something that this implementation does not do.
    #[error("seccomp profile: {what} is not supported")]
    Unsupported {
        /// The field and its value.
        what: String,
    },
    /// An argument condition cannot be right.
    #[error("seccomp profile: {name}: argument index {index} is not between 0 and 5")]
    ArgumentIndex {
        /// The system call.
        name: String,
        /// The index.
        index: usize,
    },
    /// The program has more instructions than the kernel takes.
    #[error("seccomp profile: {instructions} instructions are more than the kernel takes")]
    TooLong {
        /// How many.
        instructions: usize,
    },
}

/// A compiled filter: 64 bits an instruction (code, jump true, jump false, value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(pub(crate) Vec<libc::sock_filter>);

impl Filter {
    /// How many instructions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none (never true for a compiled profile).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One number an instruction, for the plan.
    pub(crate) fn to_words(&self) -> Vec<u64> {
        let word = |i: &libc::sock_filter| {
            u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k)
        };
        self.0.iter().map(word).collect()
    }

    pub(crate) fn from_words(words: &[u64]) -> Self {
        let instruction = |&word: &u64| libc::sock_filter {
            code: (word >> 48) as u16,
            jt: (word >> 40) as u8,
            jf: (word >> 32) as u8,
            k: word as u32,
        };
        Self(words.iter().map(instruction).collect())
    }
}

/// One alternative for a system call: when all conditions hold, this return value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<LinuxSeccompArg>,
    pub(crate) value: u32,
}

/// What happens to a system call: the first rule that applies, else the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome(pub(crate) Vec<Rule>);

/// Compiles a profile for the native architecture and those of its `architectures` that the machine
/// can execute too. Names that an architecture does not have are left out, as in other runtimes.
/// System calls that are newer than everything the profile names fail with ENOSYS, so that programs
/// fall back to older ones.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    check(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut architectures = vec![NATIVE];
    for arch in profile.architectures().iter().flatten() {
        let known = Architecture::of(*arch).filter(|known| known.runs_on(NATIVE));
        architectures.extend(known.filter(|known| *known != NATIVE));
    }
    architectures.dedup();
    let blocks = architectures
        .into_iter()
        .map(|architecture| Ok((architecture, outcomes(profile, architecture)?)))
        .collect::<Result<Vec<_>, SeccompError>>()?;
    let program = bpf::program(&blocks, default);
    if program.len() > bpf::MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong {
            instructions: program.len(),
        });
    }
    Ok(Filter(program))
}

fn check(profile: &LinuxSeccomp) -> Result<(), SeccompError> {
    let unsupported = |what: String| Err(SeccompError::Unsupported { what });
    if let Some(path) = profile.listener_path() {
        return unsupported(format!("listenerPath {}", path.display()));
    }
    if let Some(flag) = profile.flags().iter().flatten().next() {
        return unsupported(format!("flag {flag}"));
    }
    for syscall in profile.syscalls().iter().flatten() {
        for argument in syscall.args().iter().flatten() {
            if argument.index() > 5 {
                let name = syscall.names().first().cloned().unwrap_or_default();
                return Err(SeccompError::ArgumentIndex {
                    name,
                    index: argument.index(),
                });
            }
        }
    }
    Ok(())
}

/// The return value of a filter for an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    match action {
        LinuxSeccompAction::ScmpActNotify => Err(SeccompError::Unsupported {
            what: "action SCMP_ACT_NOTIFY".to_owned(),
        }),
        action => Ok(action.as_u32(errno)),
    }
}

/// The outcome of every number from 0 to the highest one that the profile names.
fn outcomes(profile: &LinuxSeccomp, architecture: Architecture) -> Result<Vec<Outcome>, SeccompError> {
    let numbers = architecture.numbers();
    let mut outcomes = Vec::new();
    for syscall in profile.syscalls().iter().flatten() {
        let value = action(syscall.action(), syscall.errno_ret())?;
        let rule = Rule {
            conditions: syscall.args().clone().unwrap_or_default(),
            value,
        };
        for name in syscall.names() {
            let Some(&number) = numbers.get(name.as_str()) else {
                continue;
            };
            let index = number as usize;
            if outcomes.len() <= index {
                outcomes.resize(index + 1, Outcome::default());
            }
            let rules: &mut Vec<Rule> = &mut outcomes[index].0;
            // Nothing after an unconditional rule can apply.
            if rules.last().is_none_or(|last| !last.conditions.is_empty()) {
                rules.push(rule.clone());
            }
        }
    }
    Ok(outcomes)
}

impl Architecture {
    fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(NATIVE),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall};

    use super::interpreter::run;
    use super::*;
    use crate::capabilities::DOCKER_DEFAULT;

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;

    /// What the profile says about a call, found the slow and obvious way.
    fn expected(profile: &LinuxSeccomp, architecture: Architecture, number: u32, args: [u64; 6]) -> u32 {
        let numbers = architecture.numbers();
        let syscalls = profile.syscalls().as_ref().unwrap();
        let highest = syscalls
            .iter()
            .flat_map(LinuxSyscall::names)
            .filter_map(|n| numbers.get(n.as_str()))
            .max()
            .copied();
        if highest.is_none_or(|highest| number > highest) {
            return ENOSYS;
        }
        let name = numbers.iter().find(|(_, n)| **n == number).map(|(name, _)| *name);
        for syscall in syscalls {
            let named = syscall.names().iter().any(|n| Some(n.as_str()) == name);
            let holds = syscall.args().iter().flatten().all(|c| {
                let arg = args[c.index()];
                match c.op() {
                    LinuxSeccompOperator::ScmpCmpNe => arg != c.value(),
                    LinuxSeccompOperator::ScmpCmpLt => arg < c.value(),
                    LinuxSeccompOperator::ScmpCmpLe => arg <= c.value(),
                    LinuxSeccompOperator::ScmpCmpEq => arg == c.value(),
                    LinuxSeccompOperator::ScmpCmpGe => arg >= c.value(),
                    LinuxSeccompOperator::ScmpCmpGt => arg > c.value(),
                    LinuxSeccompOperator::ScmpCmpMaskedEq => {
                        arg & c.value() == c.value_two().unwrap_or_default()
                    }
                }
            });
            if named && holds {
                return syscall.action().as_u32(syscall.errno_ret());
            }
        }
        profile.default_action().as_u32(profile.default_errno_ret())
    }

    fn interesting_args() -> Vec<[u64; 6]> {
        let values = [
            0,
            1,
            2,
            8,
            39,
            40,
            41,
            0x20000,
            0x20008,
            0x0200_0000,
            0x1000_0000,
            0x7e02_0000,
        ];
        let wide = [0xffff_ffff, 0x1_0000_0000, 0x1_0000_0028, u64::MAX];
        values
            .into_iter()
            .chain(wide)
            .map(|value| [value, 0, 0, 0, 0, 0])
            .collect()
    }

    #[test]
    fn dockers_profile_for_every_number() {
        let mut more = DOCKER_DEFAULT.to_vec();
        more.extend([Capability::SysAdmin, Capability::SysPtrace, Capability::Bpf]);
        for capabilities in [DOCKER_DEFAULT.to_vec(), Vec::new(), more] {
            let profile = docker::profile(&capabilities.into_iter().collect());
            let filter = compile(&profile).unwrap();
            let machines = [Architecture::X86_64, Architecture::I386, Architecture::Aarch64];
            for architecture in machines.into_iter().filter(|a| a.runs_on(NATIVE)) {
                for number in 0..600 {
                    for args in interesting_args() {
                        let got = run(&filter.0, architecture.audit(), number, args);
                        let want = expected(&profile, architecture, number, args);
                        assert_eq!(got, want, "{architecture:?} {number} {args:x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_architecture_compiles_to_its_table() {
        let profile = docker::profile(&DOCKER_DEFAULT.into());
        for architecture in [Architecture::X86_64, Architecture::I386, Architecture::Aarch64] {
            let outcomes = outcomes(&profile, architecture).unwrap();
            let program = bpf::program(&[(architecture, outcomes)], EPERM);
            for number in 0..600 {
                for args in interesting_args() {
                    let got = run(&program, architecture.audit(), number, args);
                    assert_eq!(
                        got,
                        expected(&profile, architecture, number, args),
                        "{architecture:?} {number}"
                    );
                }
            }
        }
    }

    #[test]
    fn named_samples() {
        let filter = compile(&docker::profile(&DOCKER_DEFAULT.into())).unwrap().0;
        let numbers = NATIVE.numbers();
        let call =
            |name: &str, first: u64| run(&filter, NATIVE.audit(), numbers[name], [first, 0, 0, 0, 0, 0]);
        for name in [
            "read", "openat", "execve", "chroot", "ptrace", "seccomp", "unlinkat", "statx",
        ] {
            assert_eq!(call(name, 0), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "keyctl",
            "add_key",
            "unshare",
            "setns",
            "bpf",
            "kexec_load",
            "io_uring_setup",
        ] {
            assert_eq!(call(name, 0), EPERM, "{name}");
        }
        assert_eq!(call("clone3", 0), ENOSYS);
        assert_eq!(call("clone", 0x11), ALLOW);
        assert_eq!(call("clone", 0x1000_0000), EPERM, "a new user namespace");
        assert_eq!(call("socket", 40), EPERM, "vsock");
        assert_eq!(call("socket", 2), ALLOW);
        assert_eq!(call("personality", 0x0004_0000), EPERM);
    }

    #[test]
    fn foreign_abis() {
        let filter = compile(&docker::profile(&DOCKER_DEFAULT.into())).unwrap().0;
        assert_eq!(
            run(&filter, 0x1234, 0, [0; 6]),
            0x8000_0000,
            "an unknown architecture is killed"
        );
        if NATIVE == Architecture::X86_64 {
            assert_eq!(run(&filter, NATIVE.audit(), X32_BIT, [0; 6]), ENOSYS);
            assert_eq!(run(&filter, NATIVE.audit(), u32::MAX, [0; 6]), ENOSYS);
        }
    }

    #[test]
    fn the_tree_is_short() {
        let filter = compile(&docker::profile(&DOCKER_DEFAULT.into())).unwrap();
        assert!(filter.len() < 600, "{}", filter.len());
        let deepest = (0..500)
            .map(|number| interpreter::steps(&filter.0, NATIVE.audit(), number, [0; 6]))
            .max()
            .unwrap();
        assert!(deepest < 40, "{deepest}");
    }

    #[test]
    fn all_operators() {
        use LinuxSeccompOperator as Op;
        let values = [
            0u64,
            5,
            6,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0005,
            0x1_0000_0006,
            u64::MAX,
        ];
        let operators = [
            Op::ScmpCmpNe,
            Op::ScmpCmpLt,
            Op::ScmpCmpLe,
            Op::ScmpCmpEq,
            Op::ScmpCmpGe,
            Op::ScmpCmpGt,
            Op::ScmpCmpMaskedEq,
        ];
        for operator in operators {
            for value in values {
                let argument = |index: usize, op, value: u64| {
                    let builder = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
                    builder.value_two(value & 5).build().unwrap()
                };
                let condition = argument(3, operator, value);
                let second = argument(0, Op::ScmpCmpEq, 7);
                let mut syscall = LinuxSyscall::default();
                syscall
                    .set_names(vec!["read".to_owned()])
                    .set_action(LinuxSeccompAction::ScmpActAllow)
                    .set_args(Some(vec![condition, second]));
                let mut profile = LinuxSeccomp::default();
                profile
                    .set_default_action(LinuxSeccompAction::ScmpActErrno)
                    .set_syscalls(Some(vec![syscall]));
                let filter = compile(&profile).unwrap().0;
                let read = NATIVE.numbers()["read"];
                for argument in values {
                    for first in [7, 8] {
                        let args = [first, 0, 0, argument, 0, 0];
                        assert_eq!(
                            run(&filter, NATIVE.audit(), read, args),
                            expected(&profile, NATIVE, read, args),
                            "{operator:?} {value:x} {argument:x} {first}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_done_is_said() {
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(LinuxSeccompAction::ScmpActNotify);
        assert!(matches!(compile(&profile), Err(SeccompError::Unsupported { .. })));
    }

    #[test]
    fn words_hold_everything() {
        let filter = compile(&docker::profile(&DOCKER_DEFAULT.into())).unwrap();
        assert_eq!(Filter::from_words(&filter.to_words()), filter);
    }
}
