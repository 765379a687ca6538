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
