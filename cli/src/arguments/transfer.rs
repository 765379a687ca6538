//! What brings images in and out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `pull`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln pull busybox\n  kiln pull 127.0.0.1:5000/python:3.11-slim")]
pub(crate) struct Pull {
    /// Print the name and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform of the image; several are kept side by side (repeatable, comma-separated)
    #[arg(
        long = "platform",
        value_name = "OS/ARCH",
        value_delimiter = ',',
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platforms: Vec<String>,
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
    /// Platform of the image; what NAME stands for on other platforms stays then
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
    /// Of multi-platform images, only those for this platform (repeatable, comma-separated)
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// Arguments of `load`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln load -i app.tar\n  docker save app:1 | kiln load\n  \
                  kiln load --platform linux/arm64 < app.oci.tar.zst"
)]
pub(crate) struct Load {
    /// The archive, compressed or not, or a folder with an OCI layout [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Print the names and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Of multi-platform images, only those for this platform (repeatable, comma-separated)
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
}

/// Arguments of `push`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln push registry.example/team/app:1\n  kiln push --all-tags registry.example/team/app\n  \
                  kiln push --compression zstd registry.example/team/app:1"
)]
pub(crate) struct Push {
    /// Push all names that the repository has here
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print the name and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Of multi-platform images, only those for this platform (repeatable, comma-separated)
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// How layers are compressed that were built here [default: gzip]
    #[arg(long, value_name = "gzip|zstd|uncompressed")]
    pub(crate) compression: Option<String>,
    /// Level of the compression: 0 to 9 for gzip, 0 to 22 for zstd [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) compression_level: Option<i32>,
    /// Compress pulled layers anew, too, instead of pushing them as they came
    #[arg(long)]
    pub(crate) force_compression: bool,
    /// Docker's flag that asks for what happens anyway.
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub(crate) images: Vec<String>,
}

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln login registry.example\n  \
                  echo \"$TOKEN\" | kiln login -u ci --password-stdin registry.example")]
pub(crate) struct Login {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token; others on this machine can see it, so rather use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kiln logout registry.example")]
pub(crate) struct Logout {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}
