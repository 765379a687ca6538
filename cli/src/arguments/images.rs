//! What lists, names and shows images.

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `images`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln images\n  kiln images -q app\n  kiln images --format json")]
pub(crate) struct Images {
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the digests of pulled images
    #[arg(long)]
    pub(crate) digests: bool,
    /// Accepted for Docker's sake: all images are always shown
    #[arg(short, long)]
    pub(crate) all: bool,
    /// `json` for one object a line
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
    /// Only images of this name, `repository[:tag]`
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Arguments of `rmi`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln rmi app:1\n  kiln rmi -f 4b9107e61c85")]
pub(crate) struct Rmi {
    /// Remove all names of an image given by its id; do not complain about missing ones
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// The commands of `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Remove images without a name, or all that no container uses
    Prune(ImagePrune),
}

/// Arguments of `image prune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln image prune\n  kiln image prune --all --force\n  kiln image prune --all --filter until=240h\n  \
                  kiln image prune --filter label=stage=test"
)]
pub(crate) struct ImagePrune {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what fits: `until=24h` (created before that), `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`, `dangling=false` (repeatable)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln tag app:1 registry.example/app:1")]
pub(crate) struct Tag {
    /// Name or id
    pub(crate) source: String,
    /// The further name
    pub(crate) target: String,
}

/// What can be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A container
    Container,
    /// An image
    Image,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln inspect python:3.11-slim\n  kiln inspect --type container web")]
pub(crate) struct Inspect {
    /// `json` for everything in one line
    #[arg(short, long, value_name = "json")]
    pub(crate) format: Option<String>,
    /// Look for this only [default: a container, else an image]
    #[arg(
        long = "type",
        value_enum,
        value_name = "container|image",
        hide_possible_values = true
    )]
    pub(crate) kind: Option<Kind>,
    /// Of a multi-platform image, the one for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln history app:1\n  kiln history --no-trunc --format json app:1")]
pub(crate) struct History {
    /// Whole commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `json` for one object a line
    #[arg(long, value_name = "table|json")]
    pub(crate) format: Option<String>,
    /// Of a multi-platform image, the one for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Name or id
    pub(crate) image: String,
}
