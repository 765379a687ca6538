//! What can be typed: the command line as clap sees it. Doc comments are the help texts.

mod build;
mod builds;
mod containers;
mod images;
mod machine;
mod run;
mod surroundings;
#[cfg(test)]
mod tests;
mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use build::{Build, Progress};
pub(crate) use builds::{Builds, BuildsDiff, BuildsList, BuildsLogs, BuildsRemove, BuildsShow, Why};
pub(crate) use containers::{Ps, Rm};
pub(crate) use images::{History, Image, ImagePrune, Images, Inspect, Kind, Rmi, Tag};
pub(crate) use machine::{
    Cache, CacheDu, CachePrune, CacheVerify, Info, System, SystemDf, SystemPrune, Version,
};
pub(crate) use run::{PullWhen, Run};
pub(crate) use surroundings::Surroundings;
pub(crate) use transfer::{ArchiveFormat, Import, Load, Login, Logout, Pull, Push, Save};

/// Builds Dockerfiles and runs containers, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  kiln build -t app:1 .        build the Dockerfile of this folder\n  \
                  kiln run --rm -it app:1 sh   run a shell in the image\n  \
                  kiln images                  list the images\n  \
                  kiln info                    tell what this machine can do\n\n\
                  Documentation: README.md and docs/ of the project."
)]
pub(crate) struct Kiln {
    /// Show the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command and its subcommands with all their arguments changed.
fn deep(command: clap::Command, change: &impl Fn(clap::Arg) -> clap::Arg) -> clap::Command {
    command
        .mut_args(change)
        .mut_subcommands(|command| deep(command, change))
}

/// The command line with its booleans as Docker takes them: `--rm`, and also `--rm=true` and `--rm=false`.
///
/// Texts are made of the plain definition, in which such a flag looks like the flag that it is.
fn lenient() -> clap::Command {
    let change = |argument: clap::Arg| {
        // An empty variable counts as none, as everywhere.
        let is_empty = |argument: &clap::Arg| {
            argument
                .get_env()
                .and_then(std::env::var_os)
                .is_some_and(|value| value.is_empty())
        };
        let argument = if is_empty(&argument) {
            argument.env(None)
        } else {
            argument
        };
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .value_parser(clap::builder::BoolishValueParser::new())
        } else {
            argument
        }
    };
    deep(Kiln::command(), &change)
}

impl Kiln {
    /// Reads a command line, the program's name first.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = lenient().try_get_matches_from(arguments).map_err(|error| {
            match Self::command().try_get_matches_from(arguments) {
                Err(plain) if plain.kind() == error.kind() => plain,
                _ => error,
            }
        })?;
        Self::from_arg_matches(&matches)
    }
}

/// The command of a command line, as far as it can be told of a wrong one.
pub(crate) fn command_name(arguments: &[OsString]) -> Option<String> {
    let matches = lenient()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .ok()?;
    matches.subcommand_name().map(str::to_owned)
}

/// Options before or after the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder of images, layers and cache [default: /var/lib/kiln for root, ~/.local/share/kiln otherwise]
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "KILN_ROOT",
        hide_env_values = true
    )]
    pub(crate) root: Option<PathBuf>,
    /// Configuration file [default: ~/.config/kiln/config.toml or /etc/kiln/config.toml]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "KILN_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    /// Certificates that RUN steps trust beside the image's own: a bundle file, or `host` for this machine's
    #[arg(
        long,
        value_name = "FILE|host",
        global = true,
        env = "KILN_CA_BUNDLE",
        hide_env_values = true
    )]
    pub(crate) ca_bundle: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<Build>),
    /// Run a command in a new container
    Run(Box<Run>),
    /// List containers
    Ps(Ps),
    /// Remove containers
    Rm(Rm),
    /// List images
    Images(Images),
    /// Remove images
    Rmi(Rmi),
    /// Look after images
    #[command(subcommand)]
    Image(Image),
    /// Give an image another name
    Tag(Tag),
    /// Show everything about containers and images, as JSON
    Inspect(Inspect),
    /// Show the steps that an image was made by
    History(History),
    /// Fetch images from a registry
    Pull(Pull),
    /// Bring images to a registry
    Push(Push),
    /// Keep a user and password for a registry
    Login(Login),
    /// Forget the user and password for a registry
    Logout(Logout),
    /// Make an image of a root file system tar
    Import(Import),
    /// Write images to an archive
    Save(Save),
    /// Take images out of an archive
    Load(Load),
    /// Tell why the steps of a build ran
    Why(Why),
    /// Look at earlier builds
    #[command(subcommand)]
    Builds(Builds),
    /// Look after the build cache
    #[command(subcommand)]
    Cache(Cache),
    /// Look after everything that Kiln keeps on the disk
    #[command(subcommand)]
    System(System),
    /// Show the version
    Version(Version),
    /// Show what this machine's kernel gives, and what is missing for which feature
    Info(Info),
}
