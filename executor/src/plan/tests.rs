//! Plans as text.

use std::path::Path;

use super::*;
use crate::spec::{Bind, Network, default_for};

fn root() -> Host {
    Host {
        user_namespace: false,
        single_id: false,
        cgroups: CgroupView::None,
    }
}

fn lines(spec: &Spec, host: &Host, terminal: bool) -> Vec<String> {
    let plan = Plan::of(spec, host, terminal.then_some(None), None).unwrap();
    plan.steps.iter().map(ToString::to_string).collect()
}

/// Compares with an indented block of text.
fn assert_lines(actual: &[String], expected: &str) {
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(actual, expected, "\n{}", actual.join("\n"));
}

const LINKS: &str = "
    symlink /dev/fd -> /proc/self/fd
    symlink /dev/stdin -> /proc/self/fd/0
    symlink /dev/stdout -> /proc/self/fd/1
    symlink /dev/stderr -> /proc/self/fd/2
    symlink /dev/ptmx -> pts/ptmx
    symlink /dev/core -> /proc/kcore
";

const PATHS: &str = "
    read-only /proc/bus
    read-only /proc/fs
    read-only /proc/irq
    read-only /proc/sys
    read-only /proc/sysrq-trigger
    mask /proc/acpi
    mask /proc/asound
    mask /proc/interrupts
    mask /proc/kcore
    mask /proc/keys
    mask /proc/latency_stats
    mask /proc/sched_debug
    mask /proc/scsi
    mask /proc/timer_list
    mask /proc/timer_stats
    mask /sys/devices/virtual/powercap
    mask /sys/firmware
    mask /sys/devices/system/cpu/cpu0/thermal_throttle
";

#[test]
fn docker_defaults_as_root() {
    let actual = lines(&default_for(["true"]).build(), &root(), false);
    let expected = format!(
        "mount proc /proc rw,nosuid,nodev,noexec
        mount tmpfs /dev rw,nosuid,strictatime mode=755 size=65536k
        node /dev/null c 1:3 666 0:0
        node /dev/zero c 1:5 666 0:0
        node /dev/full c 1:7 666 0:0
        node /dev/random c 1:8 666 0:0
        node /dev/urandom c 1:9 666 0:0
        node /dev/tty c 5:0 666 0:0
        {LINKS}
        mount devpts /dev/pts rw,nosuid,noexec ptmxmode=0666 mode=0620 gid=5
        mount sysfs /sys ro,nosuid,nodev,noexec
        mount mqueue /dev/mqueue rw,nosuid,nodev,noexec
        mount tmpfs /dev/shm rw,nosuid,nodev,noexec mode=1777 size=67108864
        {PATHS}"
    );
    assert_lines(&actual, &expected);
}

#[test]
fn rootless_binds_what_it_cannot_make() {
    let host = Host {
        user_namespace: true,
        single_id: true,
        cgroups: CgroupView::Unified,
    };
    let actual = lines(&default_for(["true"]).terminal(None).build(), &host, true);
    let expected = format!(
        "mount proc /proc rw,nosuid,nodev,noexec
        mount tmpfs /dev rw,nosuid,strictatime mode=755 size=65536k
        bind /dev/null /dev/null rw
        bind /dev/zero /dev/zero rw
        bind /dev/full /dev/full rw
        bind /dev/random /dev/random rw
        bind /dev/urandom /dev/urandom rw
        bind /dev/tty /dev/tty rw
        {LINKS}
        mount devpts /dev/pts rw,nosuid,noexec ptmxmode=0666 mode=0620
        rbind /sys /sys ro,nosuid,nodev,noexec
        mount cgroup2 /sys/fs/cgroup ro,nosuid,nodev,noexec
        mount mqueue /dev/mqueue rw,nosuid,nodev,noexec
        mount tmpfs /dev/shm rw,nosuid,nodev,noexec mode=1777 size=67108864
        terminal
        {PATHS}"
    );
    assert_lines(&actual, &expected);
}

#[test]
fn an_own_network_namespace_has_its_own_sysfs() {
    let host = Host {
        user_namespace: true,
        ..root()
    };
    let spec = default_for(["true"]).network(Network::None).build();
    let actual = lines(&spec, &host, false);
    assert!(
        actual.contains(&"mount sysfs /sys ro,nosuid,nodev,noexec".to_owned()),
        "{actual:?}"
    );
    assert!(Plan::of(&spec, &host, None, None).unwrap().loopback);
}

#[test]
fn legacy_cgroups_are_mounted_one_by_one() {
    let hierarchies = vec![
        ("cpu,cpuacct".to_owned(), "cpu,cpuacct".to_owned()),
        ("systemd".to_owned(), "none,name=systemd".to_owned()),
    ];
    let host = Host {
        cgroups: CgroupView::Legacy(hierarchies),
        ..root()
    };
    let actual = lines(&default_for(["true"]).build(), &host, false);
    let cgroups: Vec<String> = actual
        .into_iter()
        .filter(|line| line.contains("/sys/fs/cgroup"))
        .collect();
    assert_lines(
        &cgroups,
        "mount tmpfs /sys/fs/cgroup rw,nosuid,nodev,noexec mode=755
        mount cgroup /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec cpu cpuacct
        mount cgroup /sys/fs/cgroup/systemd ro,nosuid,nodev,noexec none name=systemd
        remount /sys/fs/cgroup ro,nosuid,nodev,noexec",
    );
}

#[test]
fn binds_and_privilege() {
    let spec = default_for(["true"])
        .privileged(true)
        .bind(Bind {
            source: "/srv".into(),
            target: "/data".into(),
            read_only: true,
        })
        .resolv_conf("/run/r")
        .read_only_root(true)
        .sysctl("net.ipv4.ip_forward", "0")
        .build();
    let actual = lines(&spec, &root(), false);
    assert!(actual.contains(&"rbind /srv /data ro".to_owned()));
    assert!(actual.contains(&"rbind /run/r /etc/resolv.conf rw".to_owned()));
    assert!(actual.contains(&"mount sysfs /sys rw,nosuid,nodev,noexec".to_owned()));
    assert!(actual.contains(&"sysctl net.ipv4.ip_forward=0".to_owned()));
    assert!(!actual.iter().any(|line| line.starts_with("mask")));
    assert_eq!(actual.last().map(String::as_str), Some("read-only root"));
}

#[test]
fn a_command_keeps_its_sets_and_limits() {
    let limit = oci_spec::runtime::PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(10u64)
        .hard(20u64)
        .build()
        .unwrap();
    let spec = default_for(["sh", "-c", "x"])
        .user(1, 2, [3])
        .rlimit(limit)
        .cwd("/w")
        .build();
    let command = Plan::of(&spec, &root(), None, None).unwrap().command;
    assert_eq!(command.args, ["sh", "-c", "x"]);
    assert_eq!((command.uid, command.gid, command.groups), (1, 2, vec![3]));
    assert_eq!(command.capabilities, [0xa804_25fb, 0, 0, 0, 0]);
    assert_eq!(
        command.limits,
        [Limit {
            resource: libc::RLIMIT_NOFILE,
            soft: 10,
            hard: 20
        }]
    );
    assert_eq!(command.cwd, Path::new("/w"));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = default_for(["true"]).build();
        change(&mut spec);
        Plan::of(&spec, &root(), None, None).unwrap_err().to_string()
    };
    let no_args = refused(&|spec| {
        if let Some(process) = spec.process_mut() {
            process.set_args(Some(vec![]));
        }
    });
    assert_eq!(no_args, "no command given");
    let label = refused(&|spec| {
        if let Some(process) = spec.process_mut() {
            process.set_selinux_label(Some("x".to_owned()));
        }
    });
    assert!(label.contains("selinuxLabel"), "{label}");
    let shared = refused(&|spec| {
        if let Some(linux) = spec.linux_mut() {
            linux.set_namespaces(Some(vec![]));
        }
    });
    assert!(shared.contains("mount namespace"), "{shared}");
    let target = default_for(["true"]).bind(Bind {
        source: "/".into(),
        target: "/".into(),
        read_only: true,
    });
    assert!(Plan::of(&target.build(), &root(), None, None).is_err());
}

#[test]
fn the_last_path_wins_and_there_is_a_default() {
    let env = |text: &[&str]| text.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
    assert_eq!(search_path(&env(&["PATH=/a", "X=1", "PATH=/b"])), "/b");
    assert_eq!(search_path(&env(&[])), spec::DEFAULT_PATH);
}
