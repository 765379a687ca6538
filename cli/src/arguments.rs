//! What can be typed: the command line as clap sees it. Doc comments are the help texts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

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
    /// Give an image another name
    Tag(Tag),
    /// Show everything about containers and images, as JSON
    Inspect(Inspect),
    /// Show the steps that an image was made by
    History(History),
    /// Fetch images from a registry
    Pull(Pull),
    /// Make an image of a root file system tar
    Import(Import),
    /// Write images to an archive
    Save(Save),
    /// Look after the build cache
    #[command(subcommand)]
    Cache(Cache),
    /// Show the version
    Version(Version),
    /// Show what this machine's kernel gives, and what is missing for which feature
    Info(Info),
}

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

/// Arguments of `build`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln build -t app:1 .\n  kiln build -t app:1 -f docker/Dockerfile --target test .\n  \
                        kiln build --build-arg VERSION=2 --progress plain -q ."
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
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages (repeatable, comma-separated)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask the registry for base images even if they are here
    #[arg(long)]
    pub(crate) pull: bool,
    /// Platform of the image, for example linux/amd64
    #[arg(
        long,
        value_name = "OS/ARCH",
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platform: Option<String>,
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
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// As many steps may run at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) jobs: usize,
    /// Docker's flags that ask for what happens anyway.
    #[arg(long, hide = true)]
    rm: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    load: bool,
    /// The build context: a folder
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
}

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
    /// Name or id
    pub(crate) image: String,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln pull busybox\n  kiln pull 127.0.0.1:5000/python:3.11-slim")]
pub(crate) struct Pull {
    /// Print the name and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform of the image
    #[arg(
        long,
        value_name = "OS/ARCH",
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platform: Option<String>,
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub(crate) images: Vec<String>,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln import rootfs.tar.gz base:1\n  \
                        kiln import --change 'CMD [\"python3\"]' --change 'ENV LANG=C.UTF-8' - base:1 < rootfs.tar")]
pub(crate) struct Import {
    /// Dockerfile instruction that changes the image's configuration (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Remark in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Platform of the image
    #[arg(
        long,
        value_name = "OS/ARCH",
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platform: Option<String>,
    /// The tar, compressed or not; `-` for standard input
    pub(crate) file: PathBuf,
    /// Name of the image
    pub(crate) name: Option<String>,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// What `docker load` takes; an OCI layout, too
    Docker,
    /// OCI image layout
    Oci,
}

/// Arguments of `save`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln save -o app.tar app:1\n  kiln save --format oci -o app.oci.tar app:1"
)]
pub(crate) struct Save {
    /// The archive [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The archive's form; what `docker load` takes is an OCI layout, too
    #[arg(
        long,
        value_enum,
        value_name = "docker|oci",
        default_value = "docker",
        hide_possible_values = true
    )]
    pub(crate) format: ArchiveFormat,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::{Build, Cache, Command, Kiln, Kind, Progress, PullWhen, Run, command_name, lenient};

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("kiln")
            .chain(line.split(' ').filter(|word| !word.is_empty()))
            .map(OsString::from)
            .collect()
    }

    fn read(line: &str) -> Kiln {
        Kiln::read(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn build(line: &str) -> Build {
        let Command::Build(build) = read(line).command else {
            panic!("{line}")
        };
        *build
    }

    fn run(line: &str) -> Run {
        let Command::Run(run) = read(line).command else {
            panic!("{line}")
        };
        *run
    }

    #[test]
    fn the_definition_is_consistent() {
        Kiln::command().debug_assert();
        lenient().debug_assert();
    }

    #[test]
    fn booleans_are_as_docker_has_them() {
        let table = [
            ("build .", [false, false, false]),
            ("build --pull --no-cache -q .", [true, true, true]),
            ("build --pull=true --no-cache=1 --quiet=t .", [true, true, true]),
            (
                "build --pull=false --no-cache=0 --quiet=FALSE .",
                [false, false, false],
            ),
            ("build . --pull --no-cache=false -q=true", [true, false, true]),
        ];
        for (line, expected) in table {
            let build = build(line);
            assert_eq!([build.pull, build.no_cache, build.quiet], expected, "{line}");
            assert_eq!(build.context.as_os_str(), ".", "{line}");
        }
        assert!(!run("run --rm=false x").rm);
        let error = Kiln::read(&words("run --rm=maybe x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }

    #[test]
    fn build_reads_what_docker_reads() {
        let build = build(
            "build -t a:1 -ta:2 --tag=a:3 -f - --build-arg A=1=2 --build-arg=B --label x=y --target t \
             --no-cache-filter a,b --platform=linux/arm64 --progress=none --iidfile i --jobs 3 --network=none \
             --rm --force-rm --load ctx",
        );
        assert_eq!(build.tags, ["a:1", "a:2", "a:3"]);
        assert_eq!(build.file.unwrap().as_os_str(), "-");
        assert_eq!(build.variables, ["A=1=2", "B"]);
        assert_eq!(build.no_cache_filter, ["a", "b"]);
        assert_eq!(build.progress, Progress::Quiet);
        assert_eq!((build.jobs, build.network.as_str()), (3, "none"));
        assert!(!build.pull);
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let table: &[(&str, &[&str])] = &[
            ("run busybox ls -la", &["busybox", "ls", "-la"]),
            (
                "run busybox --rm -it -e x",
                &["busybox", "--rm", "-it", "-e", "x"],
            ),
            ("run -it --rm busybox --help", &["busybox", "--help"]),
            (
                "run --name n busybox sh -c x -- y",
                &["busybox", "sh", "-c", "x", "--", "y"],
            ),
            ("run -- busybox --root /x", &["busybox", "--root", "/x"]),
            ("--root /r run busybox", &["busybox"]),
        ];
        for (line, expected) in table {
            assert_eq!(run(line).image_and_command, *expected, "{line}");
        }
        let run = run(
            "run -itu0 --rm=true -e A=1 -eB --env=C= -v ./x:/y:ro -w/w -h host --net none --pull always -q i",
        );
        assert!(run.interactive && run.tty && run.rm && run.quiet);
        assert_eq!(run.user.as_deref(), Some("0"));
        assert_eq!(run.env, ["A=1", "B", "C="]);
        assert_eq!(run.volumes, ["./x:/y:ro"]);
        assert_eq!(run.workdir.as_deref(), Some("/w"));
        assert_eq!(
            (run.hostname.as_deref(), run.network.as_str()),
            (Some("host"), "none")
        );
        assert_eq!(run.pull, PullWhen::Always);
        let empty: Vec<OsString> = ["kiln", "run", "--entrypoint", "", "i"]
            .map(OsString::from)
            .into();
        let Command::Run(run) = Kiln::read(&empty).unwrap().command else {
            panic!()
        };
        assert_eq!(run.entrypoint.as_deref(), Some(""));
    }

    #[test]
    fn the_other_commands_read_their_flags() {
        let kiln = read("images -aq --no-trunc --root=/r");
        assert_eq!(kiln.global.root.unwrap().as_os_str(), "/r");
        assert!(
            matches!(kiln.command, Command::Images(images) if images.all && images.quiet && images.no_trunc)
        );
        let Command::Inspect(inspect) = read("inspect -f json --type=image a b").command else {
            panic!()
        };
        assert_eq!((inspect.kind, inspect.names.len()), (Some(Kind::Image), 2));
        let Command::Import(import) = read("import -c USER=x --change=EXPOSE -m note - n:1").command else {
            panic!()
        };
        assert_eq!((import.changes.len(), import.file.as_os_str().len()), (2, 1));
        let Command::Cache(Cache::Verify(verify)) = read("cache verify --repair").command else {
            panic!()
        };
        assert!(verify.repair);
        assert!(
            matches!(read("rmi -f a b").command, Command::Rmi(rmi) if rmi.force && rmi.images.len() == 2)
        );
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let table = [
            ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("buidl .", ErrorKind::InvalidSubcommand),
            ("build", ErrorKind::MissingRequiredArgument),
            ("build a b", ErrorKind::UnknownArgument),
            ("build --progress=fancy .", ErrorKind::InvalidValue),
            ("run", ErrorKind::MissingRequiredArgument),
            ("run --bogus busybox", ErrorKind::UnknownArgument),
            ("run -d busybox", ErrorKind::UnknownArgument),
            ("run -itz busybox", ErrorKind::UnknownArgument),
            ("tag a", ErrorKind::MissingRequiredArgument),
            ("--version", ErrorKind::DisplayVersion),
            ("run --help", ErrorKind::DisplayHelp),
            ("help build", ErrorKind::DisplayHelp),
        ];
        for (line, kind) in table {
            assert_eq!(Kiln::read(&words(line)).unwrap_err().kind(), kind, "{line}");
        }
        let similar = Kiln::read(&words("build --taregt x .")).unwrap_err().to_string();
        assert!(similar.contains("'--target'"), "{similar}");
    }

    #[test]
    fn the_command_of_a_wrong_line_is_known() {
        assert_eq!(
            command_name(&words("--root run images --bogus")).as_deref(),
            Some("images")
        );
        assert_eq!(command_name(&words("run --bogus x")).as_deref(), Some("run"));
        assert_eq!(command_name(&words("buidl")), None);
    }

    #[test]
    fn the_reference_is_complete() {
        fn describe(command: &mut clap::Command, text: &mut String) {
            let name = command.get_bin_name().unwrap_or("kiln").to_owned();
            let help = command.render_help().to_string();
            text.extend(["$ ", &name, " --help\n", help.trim_end(), "\n\n"]);
            for inner in command
                .get_subcommands_mut()
                .filter(|inner| inner.get_name() != "help")
            {
                describe(inner, text);
            }
        }
        let mut kiln = Kiln::command().term_width(100);
        kiln.build();
        let mut text = String::new();
        describe(&mut kiln, &mut text);
        crate::expected::check("help.txt", &text);
    }
}
