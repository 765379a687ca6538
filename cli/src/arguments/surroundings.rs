//! Flags of `kiln build` that say what its steps see and how much they may use.

use clap::Args;

/// What the steps of a build are given and allowed.
#[derive(Debug, Args)]
pub(crate) struct Surroundings {
    /// Secret for `RUN --mount=type=secret`, `id=ID[,src=FILE|,env=NAME]` (repeatable)
    #[arg(long = "secret", value_name = "SPEC")]
    pub(crate) secrets: Vec<String>,
    /// SSH agent or keys for `RUN --mount=type=ssh`, `default|ID[=SOCKET|KEY[,KEY]]` (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,
    /// Allow what a RUN asks for: `network.host`, `security.insecure` (repeatable)
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Name in the /etc/hosts of RUN steps, `NAME:IP`; `host-gateway` is this machine (repeatable)
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub(crate) hosts: Vec<String>,
    /// Size of /dev/shm in RUN steps [default: 64m]
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Resource limit of RUN steps, `NAME=SOFT[:HARD]`, for example nofile=1024:2048 (repeatable)
    #[arg(long = "ulimit", value_name = "LIMIT")]
    pub(crate) ulimits: Vec<String>,
    /// Memory of each RUN step
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Memory and swap of each RUN step together; -1 for any amount of swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Processors of each RUN step, for example 1.5
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["cpu_period", "cpu_quota"])]
    pub(crate) cpus: Option<String>,
    /// Weight of RUN steps against other processes [default: 1024]
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds that --cpu-quota is measured over
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Processors that RUN steps may use, for example 0-2,4
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that RUN steps may use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Control group in which those of RUN steps are made
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Docker's flags without a meaning here.
    #[arg(long, hide = true)]
    pub(crate) compress: bool,
    #[arg(short = 'D', long, hide = true)]
    pub(crate) debug: bool,
    #[arg(long, hide = true, value_name = "default")]
    pub(crate) isolation: Option<String>,
}
