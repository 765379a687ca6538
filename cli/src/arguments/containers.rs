//! What lists and removes containers.

use clap::Args;

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln ps\n  kiln ps -a --format json")]
pub(crate) struct Ps {
    /// Ended containers, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `json` for one object a line
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln rm web\n  kiln rm -f $(kiln ps -aq)")]
pub(crate) struct Rm {
    /// Kill running containers
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}
