//! What looks after this machine's Kiln: cache, disk, version, information.

use clap::{Args, Subcommand};

/// The commands of `cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Show what takes how much of the disk
    Du(CacheDu),
    /// Delete cache that nobody uses, the least recently used first
    Prune(CachePrune),
    /// Check every record, layer, blob and image of the store
    Verify(CacheVerify),
    /// Check everything, and move what is damaged aside, so that it is made anew
    Repair(CacheRepair),
}

/// Arguments of `cache du`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln cache du\n  kiln cache du -v\n  kiln cache du --format json | jq .Total"
)]
pub(crate) struct CacheDu {
    /// Every image, step, cache mount, repository and blob
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// `json` for one object with everything, in bytes
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `cache prune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln cache prune\n  kiln cache prune --keep 10GB\n  kiln cache prune --filter until=48h --filter type=exec.cachemount\n  \
                  kiln cache prune --all --dry-run"
)]
pub(crate) struct CachePrune {
    /// The steps of images, too: the images stay, and their steps run again
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what fits: `until=24h` (unused for so long), `type=TYPE`, `id=ID`, `shared`, `private` (repeatable)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Leave so much cache
    #[arg(
        long,
        value_name = "SIZE",
        visible_alias = "keep-storage",
        visible_alias = "reserved-space"
    )]
    pub(crate) keep: Option<String>,
    /// Leave no more cache than that
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Delete until the file system has so much free
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
    /// Delete until the whole store, with its images, is no larger than that
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<String>,
    /// Only show what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Arguments of `cache repair`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln cache repair\n\nThe same as `kiln cache verify --repair`.")]
pub(crate) struct CacheRepair {
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}

/// The commands of `system`.
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Show what takes how much of the disk, as Docker does
    Df(SystemDf),
    /// Remove stopped containers, images without a name, and cache that nobody uses
    Prune(SystemPrune),
}

/// Arguments of `system df`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln system df\n  kiln system df -v\n  kiln system df --format json")]
pub(crate) struct SystemDf {
    /// Every image, container and thing of the cache
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// `json` for one object a line
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `system prune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln system prune\n  kiln system prune --all --force\n  kiln system prune --filter until=240h\n  \
                  kiln system prune --force --filter label=stage=test"
)]
pub(crate) struct SystemPrune {
    /// All images that no container uses, and all cache
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what fits: `until=24h`, made (cache: used) before that; `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`, which spare the
    /// cache (repeatable)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Accepted for Docker's sake: there are no volumes yet
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only show what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Arguments of `cache verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln cache verify\n  kiln cache verify --repair\n\nExit code: 0 when there is no damage (or it was repaired), 1 otherwise."
)]
pub(crate) struct CacheVerify {
    /// Move what is damaged aside, so that it is made anew
    #[arg(long)]
    pub(crate) repair: bool,
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln version\n  kiln version --format json")]
pub(crate) struct Version {
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln info\n  kiln info --format json")]
pub(crate) struct Info {
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}
