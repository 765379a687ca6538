//! Docker's flags that Kiln does not have yet: a user who types one hears that, not that it is unknown.

/// Flags of `docker build` and `docker buildx build`.
const BUILD: &[&str] = &[
    "--annotation",
    "--attest",
    "--builder",
    "--cache-from",
    "--cache-to",
    "--metadata-file",
    "--output",
    "--provenance",
    "--push",
    "--sbom",
    "--security-opt",
    "--squash",
    "-o",
];

/// Flags of `docker run`.
const RUN: &[&str] = &[
    "--add-host",
    "--annotation",
    "--attach",
    "--blkio-weight",
    "--cap-add",
    "--cap-drop",
    "--cgroup-parent",
    "--cgroupns",
    "--cidfile",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-shares",
    "--cpus",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--detach",
    "--detach-keys",
    "--device",
    "--dns",
    "--dns-option",
    "--dns-search",
    "--domainname",
    "--env-file",
    "--expose",
    "--gpus",
    "--group-add",
    "--health-cmd",
    "--health-interval",
    "--health-retries",
    "--health-start-interval",
    "--health-start-period",
    "--health-timeout",
    "--init",
    "--ip",
    "--ip6",
    "--ipc",
    "--isolation",
    "--kernel-memory",
    "--label",
    "--label-file",
    "--link",
    "--log-driver",
    "--log-opt",
    "--mac-address",
    "--memory",
    "--memory-reservation",
    "--memory-swap",
    "--memory-swappiness",
    "--mount",
    "--network-alias",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--oom-score-adj",
    "--pid",
    "--pids-limit",
    "--privileged",
    "--publish",
    "--publish-all",
    "--read-only",
    "--restart",
    "--runtime",
    "--security-opt",
    "--shm-size",
    "--sig-proxy",
    "--stop-signal",
    "--stop-timeout",
    "--storage-opt",
    "--sysctl",
    "--tmpfs",
    "--ulimit",
    "--userns",
    "--uts",
    "--volume-driver",
    "--volumes-from",
    "-P",
    "-a",
    "-c",
    "-d",
    "-l",
    "-m",
    "-p",
];

/// What to say about `flag` of `command` when Docker has it.
pub(crate) fn flag(command: &str, flag: &str) -> Option<String> {
    let flags = match command {
        "build" => BUILD,
        "run" => RUN,
        _ => return None,
    };
    let name = flag.split('=').next().unwrap_or(flag);
    flags
        .contains(&name)
        .then(|| format!("{name}: kiln {command} does not support this flag of Docker yet"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{BUILD, RUN, flag};

    #[test]
    fn what_docker_has_is_not_unknown() {
        let message = "-d: kiln run does not support this flag of Docker yet";
        assert_eq!(flag("run", "-d").as_deref(), Some(message));
        assert!(flag("build", "--squash=true").is_some());
        assert_eq!(flag("build", "--sekret"), None);
        assert_eq!(flag("images", "-d"), None);
    }

    #[test]
    fn what_is_supported_is_not_listed() {
        let kiln = crate::arguments::Kiln::command();
        for (name, flags) in [("build", BUILD), ("run", RUN)] {
            let command = kiln.find_subcommand(name).unwrap();
            for argument in command.get_arguments() {
                let long = argument.get_long().map(|long| format!("--{long}"));
                let short = argument.get_short().map(|short| format!("-{short}"));
                for flag in long.into_iter().chain(short) {
                    assert!(!flags.contains(&flag.as_str()), "{name} {flag}");
                }
            }
        }
    }
}
