//! Docker's default profile, as tables.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator as Op, LinuxSyscall,
};

/// Always allowed.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32
    getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority
    getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
    io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
    newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read
    readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64
    sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
    uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
";

/// Allowed on machines of one architecture.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Allowed when the container holds a capability.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount
         mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd
         setdomainname sethostname setns statmount syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (
        Capability::SysTime,
        "settimeofday stime clock_settime clock_settime64",
    ),
    (Capability::SysTtyConfig, "vhangup"),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
];

/// `personality(2)` values that only change what a program sees: Linux, 32-bit, the two with the
/// old kernel version (UNAME26), and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address family of virtual machine sockets, which are not subject to network namespaces.
const AF_VSOCK: u64 = 40;

/// All `CLONE_NEW*` flags.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The profile for a container with these capabilities: what is not allowed fails with EPERM.
pub fn profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let holds = |capability| capabilities.contains(&capability);
    let mut syscalls = vec![
        rule(ALLOWED, Action::ScmpActAllow, &[]),
        rule(ALLOWED_HERE, Action::ScmpActAllow, &[]),
    ];
    syscalls.push(rule(
        "socket",
        Action::ScmpActAllow,
        &[argument(Op::ScmpCmpNe, AF_VSOCK, None)],
    ));
    for value in PERSONALITIES {
        syscalls.push(rule(
            "personality",
            Action::ScmpActAllow,
            &[argument(Op::ScmpCmpEq, value, None)],
        ));
    }
    for (capability, names) in WITH_CAPABILITY {
        if holds(capability) {
            syscalls.push(rule(names, Action::ScmpActAllow, &[]));
        }
    }
    if holds(Capability::Perfmon) {
        syscalls.push(rule("perf_event_open", Action::ScmpActAllow, &[]));
    }
    if !holds(Capability::SysAdmin) {
        let no_namespaces = argument(Op::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0));
        syscalls.push(rule("clone", Action::ScmpActAllow, &[no_namespaces]));
        // Its flags are in memory, where a filter cannot look; C libraries fall back to clone.
        let mut clone3 = rule("clone3", Action::ScmpActErrno, &[]);
        clone3.set_errno_ret(Some(libc::ENOSYS as u32));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(syscalls));
    profile
}

#[cfg(target_arch = "x86_64")]
fn architectures() -> Vec<Arch> {
    vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
}

#[cfg(target_arch = "aarch64")]
fn architectures() -> Vec<Arch> {
    vec![Arch::ScmpArchAarch64]
}

fn rule(names: &str, action: Action, args: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(action)
        .set_args((!args.is_empty()).then(|| args.to_vec()));
    syscall
}

fn argument(op: Op, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .op(op)
        .value(value);
    let builder = match value_two {
        Some(value) => builder.value_two(value),
        None => builder,
    };
    // Every field has a default: building cannot fail.
    builder.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Architecture;

    const ELSEWHERE: [&str; 2] = ["recv", "send"];

    #[test]
    fn every_name_is_a_system_call_somewhere() {
        let known = [Architecture::X86_64, Architecture::I386, Architecture::Aarch64];
        let all = [ALLOWED, ALLOWED_HERE]
            .into_iter()
            .chain(WITH_CAPABILITY.map(|(_, names)| names));
        for name in all.flat_map(str::split_ascii_whitespace) {
            let somewhere = known
                .iter()
                .any(|architecture| architecture.numbers().contains_key(name));
            // Calls of 32-bit Arm and of other machines, which Docker's list has too.
            let elsewhere = ELSEWHERE.contains(&name) || cfg!(target_arch = "aarch64");
            assert!(somewhere || elsewhere, "{name}");
        }
    }
}
