//! What looks after this machine's Kiln: cache, version, information.

use clap::{Args, Subcommand};

/// The commands of `cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Check every record, layer, blob and image of the store
    Verify(CacheVerify),
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
