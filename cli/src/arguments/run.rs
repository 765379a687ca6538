//! `kiln run`.

use clap::{ArgAction, Args, ValueEnum};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "kiln run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Examples:\n  kiln run --rm busybox echo hello\n  kiln run --rm -it -v \"$PWD:/src\" -w /src python:3.11-slim bash\n\n\
                        Exit code: the command's own; 125 when the container could not be made, 126 when the command \
                        cannot be executed, 127 when it is not found."
)]
pub(crate) struct Run {
    /// Remove the container when its command ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Environment variable; without a value it is taken from this environment (repeatable)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, `user[:group]`, by name or number
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Host folder in the container, `HOST:CONTAINER[:ro]` (repeatable)
    #[arg(short, long = "volume", value_name = "HOST:CONTAINER[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Program instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Network
    #[arg(long, alias = "net", value_name = "host|none", default_value = "host")]
    pub(crate) network: String,
    /// When the registry is asked for the image
    #[arg(
        long,
        value_enum,
        value_name = "always|missing|never",
        default_value = "missing",
        hide_possible_values = true
    )]
    pub(crate) pull: PullWhen,
    /// Platform of the image
    #[arg(
        long,
        value_name = "OS/ARCH",
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platform: Option<String>,
    /// Do not show the progress of pulling
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image, then the command and its arguments, which are left as they are
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub(crate) image_and_command: Vec<String>,
}

/// When a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    /// Even if the image is here
    Always,
    /// If the image is not here
    Missing,
    /// Never
    Never,
}
