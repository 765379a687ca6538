//! Flags that say how much steps may use, what they may do, and whom they know.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use kiln_frontend::Entitlement;
use kiln_parser::{suggest, value};
use kiln_solver::graph::{ExtraHost, Ulimit};
use kiln_solver::limits::{Limits, ulimit_names};

use crate::arguments::Surroundings;
use crate::report::{self, Failure};

/// The address that `host-gateway` stands for: steps are on the host's network.
const HOST_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What `--cpus` is measured over, in microseconds.
const PERIOD: u64 = 100_000;

/// The limits that no key knows.
pub(super) fn limits(arguments: &Surroundings) -> Result<Limits, Failure> {
    let mut limits = Limits {
        shm_size: size("--shm-size", arguments.shm_size.as_deref())?,
        memory: memory("--memory", arguments.memory.as_deref())?,
        memory_swap: memory("--memory-swap", arguments.memory_swap.as_deref())?,
        cpu_shares: arguments.cpu_shares.filter(|shares| *shares > 0),
        cpu_period: arguments.cpu_period.filter(|period| *period > 0),
        cpu_quota: arguments.cpu_quota.filter(|quota| *quota != 0),
        cpuset_cpus: arguments.cpuset_cpus.clone(),
        cpuset_mems: arguments.cpuset_mems.clone(),
        cgroup_parent: arguments.cgroup_parent.clone(),
    };
    if let Some(swap) = limits.memory_swap.filter(|swap| *swap >= 0) {
        match limits.memory {
            None => {
                return Err(Failure::usage(
                    "--memory-swap is memory and swap together: it needs --memory",
                ));
            }
            Some(memory) if swap < memory => {
                return Err(Failure::usage("--memory-swap must not be less than --memory"));
            }
            Some(_) => {}
        }
    }
    if let Some(cpus) = &arguments.cpus {
        limits.cpu_period = Some(PERIOD);
        limits.cpu_quota = Some(quota(cpus)?);
    }
    Ok(limits)
}

fn size(flag: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else {
        return Ok(None);
    };
    let wrong = || Failure::usage(format!("{flag} {text}: it is no size")).hint("write 64m, 1g or bytes");
    // Nothing is Docker's word for no limit.
    Ok(Some(value::parse_size(text).ok_or_else(wrong)?).filter(|size| *size > 0))
}

/// A size as control groups have it; -1 is no limit.
fn memory(flag: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    if text == Some("-1") {
        return Ok(Some(-1));
    }
    let wrong = |_| Failure::usage(format!("{flag}: it is too large"));
    size(flag, text)?
        .map(|size| i64::try_from(size).map_err(wrong))
        .transpose()
}

/// `1.5` processors as microseconds of each period.
fn quota(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::usage(format!("--cpus {text}: expected a number above 0, such as 1.5"));
    let cpus: f64 = text.parse().map_err(|_| wrong())?;
    let quota = cpus * PERIOD as f64;
    // The kernel takes no less than a millisecond.
    if quota.is_finite() && (1_000.0..1e12).contains(&quota) {
        Ok(quota as i64)
    } else {
        Err(wrong())
    }
}

/// `nofile=1024:2048`; one number is both.
pub(super) fn ulimits(values: &[String]) -> Result<Vec<Ulimit>, Failure> {
    values.iter().map(|text| ulimit(text)).collect()
}

fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let wrong = |what: String| Failure::usage(format!("--ulimit {text}: {what}"));
    let (name, numbers) = text
        .split_once('=')
        .ok_or_else(|| wrong("expected NAME=SOFT[:HARD]".to_owned()))?;
    if !ulimit_names().any(|known| known == name) {
        let all: Vec<&str> = ulimit_names().collect();
        let hint =
            suggest::hint(name, ulimit_names()).unwrap_or_else(|| format!("there are {}", all.join(", ")));
        return Err(wrong(format!("invalid ulimit type: {name}")).hint(hint));
    }
    let (soft, hard) = numbers.split_once(':').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        let number: Option<i64> = text.parse().ok();
        number
            .filter(|number| *number >= -1)
            .ok_or_else(|| wrong(format!("{text:?} is no number, nor -1 for no limit")))
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft < 0 || soft > hard) {
        let message = format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}");
        return Err(wrong(message));
    }
    let name = name.to_owned();
    Ok(Ulimit { name, soft, hard })
}

/// `name:ip`, `name=ip`; brackets around an IPv6 address may be there.
pub(super) fn hosts(values: &[String]) -> Result<Vec<ExtraHost>, Failure> {
    values.iter().map(|text| host(text)).collect()
}

fn host(text: &str) -> Result<ExtraHost, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!("--add-host {text}: {what}"))
            .hint("write NAME:IP, NAME=IP or NAME:host-gateway")
    };
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| wrong("bad format for add-host"))?;
    let is_name = !name.is_empty()
        && name.len() <= 253
        && !name.contains(|character: char| {
            character.is_whitespace() || character.is_control() || character == '#'
        });
    if !is_name {
        return Err(wrong("the name is missing or no host name"));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    let address = match bare {
        "host-gateway" => HOST_GATEWAY,
        other => other.parse().map_err(|_| wrong("invalid IP address"))?,
    };
    let name = name.to_owned();
    Ok(ExtraHost { name, address })
}

/// What `--allow` and `--network` allow.
pub(super) fn entitlements(values: &[String], network: &str) -> Result<BTreeSet<Entitlement>, Failure> {
    let mut entitlements = BTreeSet::new();
    for text in values {
        let known = Entitlement::ALL.into_iter().find(|known| known.name() == text);
        entitlements.insert(known.ok_or_else(|| unknown_entitlement(text))?);
    }
    if network == "host" {
        // Who gives the whole build the host's network gives it to each step.
        entitlements.insert(Entitlement::NetworkHost);
    }
    Ok(entitlements)
}

fn unknown_entitlement(text: &str) -> Failure {
    let names = Entitlement::ALL.map(Entitlement::name);
    let failure = Failure::usage(format!("--allow {text}: unknown entitlement"));
    let hint = if text == "device" || text.starts_with("device=") {
        Some("RUN --device is not supported yet".to_owned())
    } else {
        suggest::hint(text, names.into_iter())
    };
    failure.hint(hint.unwrap_or_else(|| format!("it is {}", names.join(" or "))))
}

/// Flags of Docker that mean nothing here.
pub(super) fn without_meaning(arguments: &Surroundings) -> Result<(), Failure> {
    if let Some(isolation) = &arguments.isolation
        && !["", "default"].contains(&isolation.as_str())
    {
        return Err(Failure::usage(format!(
            "--isolation {isolation}: only default is known on Linux"
        )));
    }
    if arguments.compress {
        report::warning("--compress does nothing: the build context is sent nowhere");
    }
    if arguments.debug {
        report::warning("--debug does nothing in a build: --progress plain shows all output");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{entitlements, host, memory, quota, size, ulimit};

    #[test]
    fn sizes_and_shares() {
        assert_eq!(size("--shm-size", Some("128m")).unwrap(), Some(128 << 20));
        assert_eq!(size("--shm-size", Some("0")).unwrap(), None);
        assert!(size("--shm-size", Some("big")).is_err());
        assert_eq!(memory("--memory-swap", Some("-1")).unwrap(), Some(-1));
        assert_eq!(memory("--memory", Some("1g")).unwrap(), Some(1 << 30));
        assert_eq!(quota("1.5").unwrap(), 150_000);
        for wrong in ["0", "-1", "many", "inf", "0.001"] {
            assert!(quota(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ulimits_are_written_as_for_docker() {
        for (text, soft, hard) in [
            ("nofile=1024", 1024, 1024),
            ("nproc=1:2", 1, 2),
            ("core=0:-1", 0, -1),
            ("memlock=-1", -1, -1),
        ] {
            let limit = ulimit(text).unwrap();
            assert_eq!((limit.soft, limit.hard), (soft, hard), "{text}");
        }
        for (text, expected) in [
            ("nofile", "expected NAME=SOFT[:HARD]"),
            ("files=1", "invalid ulimit type: files"),
            ("nofile=x", "\"x\" is no number, nor -1 for no limit"),
            ("nofile=1:-2", "\"-2\" is no number, nor -1 for no limit"),
            (
                "nofile=2:1",
                "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
            ),
            (
                "nofile=-1:1",
                "ulimit soft limit must be less than or equal to hard limit: -1 > 1",
            ),
        ] {
            let error = ulimit(text).unwrap_err().text();
            assert_eq!(error, format!("--ulimit {text}: {expected}"));
        }
    }

    #[test]
    fn hosts_are_written_as_for_docker() {
        for (text, name, address) in [
            ("db:10.0.0.1", "db", "10.0.0.1"),
            ("db=10.0.0.1", "db", "10.0.0.1"),
            ("db:::1", "db", "::1"),
            ("db=[fe80::1]", "db", "fe80::1"),
            ("here:host-gateway", "here", "127.0.0.1"),
        ] {
            let host = host(text).unwrap();
            assert_eq!(
                (host.name.as_str(), host.address.to_string().as_str()),
                (name, address)
            );
        }
        for wrong in [
            "db",
            "db:",
            ":10.0.0.1",
            "db:somewhere",
            "a b:10.0.0.1",
            "a#b=10.0.0.1",
        ] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn entitlements_are_known_by_name() {
        let allowed = |values: &[&str], network| {
            let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
            entitlements(&values, network).map(|found| found.len())
        };
        assert_eq!(allowed(&[], "default").unwrap(), 0);
        assert_eq!(allowed(&[], "host").unwrap(), 1);
        assert_eq!(
            allowed(&["network.host", "security.insecure"], "host").unwrap(),
            2
        );
        assert!(allowed(&["security.all"], "default").is_err());
        assert!(allowed(&["device"], "default").is_err());
    }
}
