//! Limits of a specification as files to write.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::CgroupError;

/// A file of one controller, by both names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The limit's name in the specification.
    pub(super) what: &'static str,
    pub(super) controller: &'static str,
    pub(super) legacy: (&'static str, String),
    pub(super) unified: (&'static str, String),
}

/// Negative numbers mean unlimited.
fn number(value: i64, unlimited: &str) -> String {
    if value < 0 {
        unlimited.to_owned()
    } else {
        value.to_string()
    }
}

pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let unsupported = |what: &str| {
        Err(CgroupError::Unsupported {
            what: what.to_owned(),
        })
    };
    let filled = [
        (resources.block_io().is_some(), "blockIO"),
        (resources.network().is_some(), "network"),
        (
            resources
                .hugepage_limits()
                .as_ref()
                .is_some_and(|l| !l.is_empty()),
            "hugepageLimits",
        ),
        (resources.rdma().as_ref().is_some_and(|l| !l.is_empty()), "rdma"),
        (
            resources.unified().as_ref().is_some_and(|l| !l.is_empty()),
            "unified",
        ),
        (
            resources.devices().as_ref().is_some_and(|l| !l.is_empty()),
            "devices",
        ),
    ];
    if let Some((_, what)) = filled.iter().find(|(is, _)| *is) {
        return unsupported(what);
    }
    let mut settings = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_settings(memory, &mut settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, &mut settings)?;
    }
    if let Some(pids) = resources.pids() {
        // Docker takes 0 for unlimited too.
        let value = if pids.limit() <= 0 {
            "max".to_owned()
        } else {
            pids.limit().to_string()
        };
        settings.push(Setting {
            what: "pids.limit",
            controller: "pids",
            legacy: ("pids.max", value.clone()),
            unified: ("pids.max", value),
        });
    }
    Ok(settings)
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if let Some(limit) = memory.limit() {
        settings.push(Setting {
            what: "memory.limit",
            controller: "memory",
            legacy: ("memory.limit_in_bytes", number(limit, "-1")),
            unified: ("memory.max", number(limit, "max")),
        });
    }
    if let Some(reservation) = memory.reservation() {
        settings.push(Setting {
            what: "memory.reservation",
            controller: "memory",
            legacy: ("memory.soft_limit_in_bytes", number(reservation, "-1")),
            unified: ("memory.low", number(reservation, "max")),
        });
    }
    if let Some(total) = memory.swap() {
        // The specification, like v1, counts memory and swap together; v2 counts swap alone.
        let swap = match memory.limit() {
            Some(limit) if total >= 0 && limit >= 0 => total.checked_sub(limit).filter(|swap| *swap >= 0),
            _ if total < 0 => Some(-1),
            _ => None,
        };
        let Some(swap) = swap else {
            let what = "memory.swap without or below memory.limit".to_owned();
            return Err(CgroupError::Unsupported { what });
        };
        settings.push(Setting {
            what: "memory.swap",
            controller: "memory",
            legacy: ("memory.memsw.limit_in_bytes", number(total, "-1")),
            unified: ("memory.swap.max", number(swap, "max")),
        });
    }
    Ok(())
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let exotic = [
        (
            cpu.realtime_runtime().is_some() || cpu.realtime_period().is_some(),
            "cpu.realtime",
        ),
        (cpu.idle().is_some(), "cpu.idle"),
        (cpu.burst().is_some(), "cpu.burst"),
    ];
    if let Some((_, what)) = exotic.iter().find(|(is, _)| *is) {
        return Err(CgroupError::Unsupported {
            what: (*what).to_owned(),
        });
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        // 2..=262144 to 1..=10000, as all runtimes do it.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        settings.push(Setting {
            what: "cpu.shares",
            controller: "cpu",
            legacy: ("cpu.shares", shares.to_string()),
            unified: ("cpu.weight", weight.to_string()),
        });
    }
    let period = cpu.period().filter(|period| *period > 0);
    if let Some(period) = period {
        settings.push(Setting {
            what: "cpu.period",
            controller: "cpu",
            legacy: ("cpu.cfs_period_us", period.to_string()),
            unified: ("cpu.max", format!("max {period}")),
        });
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        let period = period.unwrap_or(100_000);
        settings.push(Setting {
            what: "cpu.quota",
            controller: "cpu",
            legacy: ("cpu.cfs_quota_us", number(quota, "-1")),
            unified: ("cpu.max", format!("{} {period}", number(quota, "max"))),
        });
    }
    for (what, value, name) in [
        ("cpu.cpus", cpu.cpus(), "cpuset.cpus"),
        ("cpu.mems", cpu.mems(), "cpuset.mems"),
    ] {
        if let Some(value) = value.clone().filter(|value| !value.is_empty()) {
            let (legacy, unified) = ((name, value.clone()), (name, value));
            settings.push(Setting {
                what,
                controller: "cpuset",
                legacy,
                unified,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects() {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(100)).set_swap(Some(150));
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(Some(1024))
            .set_quota(Some(20_000))
            .set_cpus(Some("0-1".to_owned()));
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory)).set_cpu(Some(cpu));
        let lines: Vec<String> = settings(&resources)
            .unwrap()
            .into_iter()
            .map(|s| format!("{}={} | {}={}", s.legacy.0, s.legacy.1, s.unified.0, s.unified.1))
            .collect();
        assert_eq!(
            lines,
            [
                "memory.limit_in_bytes=100 | memory.max=100",
                "memory.memsw.limit_in_bytes=150 | memory.swap.max=50",
                "cpu.shares=1024 | cpu.weight=39",
                "cpu.cfs_quota_us=20000 | cpu.max=20000 100000",
                "cpuset.cpus=0-1 | cpuset.cpus=0-1",
            ]
        );
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        let mut resources = LinuxResources::default();
        resources.set_unified(Some([("memory.high".to_owned(), "1".to_owned())].into()));
        assert!(matches!(settings(&resources), Err(CgroupError::Unsupported { what }) if what == "unified"));
        let mut memory = LinuxMemory::default();
        memory.set_swap(Some(10));
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory));
        assert!(settings(&resources).is_err());
    }
}
