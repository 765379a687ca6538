//! `kiln build`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Surroundings;

/// How a build shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, `plain` otherwise
    Auto,
    /// Live view
    Tty,
    /// One line after the other
    Plain,
    /// Nothing but the result
    #[value(alias = "none")]
    Quiet,
    /// JSON lines
    Rawjson,
}

impl Progress {
    /// For commands whose only choice is `--quiet`.
    pub(crate) fn auto_or_quiet(quiet: bool) -> Self {
        if quiet { Self::Quiet } else { Self::Auto }
    }
}

/// Arguments of `build`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln build -t app:1 .\n  kiln build -t app:1 -f docker/Dockerfile --target test .\n  \
                        kiln build --build-arg VERSION=2 --progress plain -q .\n  \
                        kiln build --push -t registry.example/app:1 --cache-from registry.example/app:cache .\n  \
                        kiln build --no-cache-filter test,lint .\n  \
                        kiln build --verify-cache=10 --cache-ttl 7d ."
)]
pub(crate) struct Build {
    /// Name of the image, `name[:tag]` (repeatable)
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Dockerfile, `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Value of an ARG; without a value it is taken from the environment (repeatable)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) variables: Vec<String>,
    /// Label of the image (repeatable)
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// What stands for the stage or image NAME: a folder, docker-image://IMAGE, oci-layout://PATH[:TAG|@DIGEST]
    /// (repeatable)
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) named_contexts: Vec<String>,
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages (repeatable, comma-separated)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Run RUN steps again whose results are older, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(crate) cache_ttl: Option<String>,
    /// Run so many of each hundred cached steps once more, at random, and tell where their results differ; with `,fail`
    /// that is an error [default: 100]
    #[arg(
        long,
        value_name = "PERCENT[,fail]",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100"
    )]
    pub(crate) verify_cache: Option<String>,
    /// Cache to take steps from: type=registry,ref=NAME or type=local,src=PATH; NAME alone is of a registry (repeatable)
    #[arg(long, value_name = "NAME|FIELDS")]
    pub(crate) cache_from: Vec<String>,
    /// Cache to write: type=registry,ref=NAME, type=local,dest=PATH or type=inline, with mode=min|max and other
    /// attributes (repeatable)
    #[arg(long, value_name = "NAME|FIELDS")]
    pub(crate) cache_to: Vec<String>,
    /// Ask the registry for base images even if they are here
    #[arg(long)]
    pub(crate) pull: bool,
    /// Platform of the image, such as linux/arm64, or local; several make a multi-platform image (repeatable,
    /// comma-separated)
    #[arg(
        long = "platform",
        value_name = "OS/ARCH",
        value_delimiter = ',',
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platforms: Vec<String>,
    /// Network of RUN steps
    #[arg(long, value_name = "default|host|none", default_value = "default")]
    pub(crate) network: String,
    /// How progress is shown: tty, plain, quiet, rawjson, or auto (tty on a terminal, else plain)
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        default_value = "auto",
        env = "BUILDKIT_PROGRESS",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub(crate) progress: Progress,
    /// Tell at the end why each step ran that was not cached
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Where the result goes: a folder for its files, `-` for a tar of them, or
    /// type=image|registry|oci|docker|local|tar|cacheonly with attributes (repeatable)
    #[arg(short, long = "output", value_name = "DEST")]
    pub(crate) outputs: Vec<String>,
    /// Push the image to the registries of its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Write what the build came to (digests, names) to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Check the Dockerfile, build nothing; the same as --call=check
    #[arg(long)]
    pub(crate) check: bool,
    /// Tell about the Dockerfile instead of building it: check, outline, targets or subrequests.describe, as text or, with
    /// `,format=json`, as JSON
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// As many steps may run at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) jobs: usize,
    #[command(flatten)]
    pub(crate) surroundings: Surroundings,
    /// Docker's flags that ask for what happens anyway.
    #[arg(long, hide = true)]
    rm: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    pub(crate) load: bool,
    /// The build context: a folder, a repository, an address, or `-` for standard input
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
}
