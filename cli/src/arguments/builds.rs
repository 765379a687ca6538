//! What looks at earlier builds.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln why\n  kiln why 3                  the third step\n  kiln why 'RUN make'         \
                  steps with these words\n  kiln why --build 019a3c2f41d0 --format json"
)]
pub(crate) struct Why {
    /// A step's number, or words of it [default: all that ran]
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Which build: the beginning of its id, or latest
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub(crate) build: String,
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}

/// The commands of `builds`.
#[derive(Debug, Subcommand)]
pub(crate) enum Builds {
    /// List builds, the newest first
    #[command(alias = "list")]
    Ls(BuildsList),
    /// Show a build: steps, times, reasons
    #[command(alias = "inspect")]
    Show(BuildsShow),
    /// Show what the steps of a build wrote
    Logs(BuildsLogs),
    /// Compare two builds
    Diff(BuildsDiff),
    /// Remove builds and their logs
    Rm(BuildsRemove),
}

/// Arguments of `builds ls`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln builds ls\n  kiln builds ls -q | head -1\n  kiln builds ls --format json"
)]
pub(crate) struct BuildsList {
    /// Show ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show ids whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `json` for one object a line
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `builds show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln builds show\n  kiln builds show latest --html build.html\n  \
                        kiln builds show 019a3c2f41d0 --format json"
)]
pub(crate) struct BuildsShow {
    /// Which build: the beginning of its id, or latest
    #[arg(value_name = "ID", default_value = "latest")]
    pub(crate) build: String,
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
    /// Write a page with the timeline, the critical path and the logs to this file
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    pub(crate) html: Option<PathBuf>,
}

/// Arguments of `builds logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln builds logs\n  kiln builds logs 019a3c2f41d0 --step 3\n  \
                        kiln builds logs latest --step 'RUN make'"
)]
pub(crate) struct BuildsLogs {
    /// Which build: the beginning of its id, or latest
    #[arg(value_name = "ID", default_value = "latest")]
    pub(crate) build: String,
    /// A step's number, or words of it [default: all]
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
}

/// Arguments of `builds diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln builds diff                            the latest with the one before\n  kiln builds diff 019a3c2f41d0               the latest with that one\n  kiln builds diff 019a3c2f41d0 019a3c31a2b3 --format json"
)]
pub(crate) struct BuildsDiff {
    /// The one [default: the build before the latest, of the same Dockerfile and target]
    #[arg(value_name = "BEFORE")]
    pub(crate) before: Option<String>,
    /// The other
    #[arg(value_name = "AFTER", default_value = "latest")]
    pub(crate) after: String,
    /// `json` for one object
    #[arg(short, long, value_name = "text|json")]
    pub(crate) format: Option<String>,
}

/// Arguments of `builds rm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln builds rm 019a3c2f41d0\n  kiln builds rm --all")]
pub(crate) struct BuildsRemove {
    /// Remove all builds that have ended
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
    /// Which builds: the beginnings of their ids, or latest
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
}
