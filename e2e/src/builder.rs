//! What builds Dockerfiles: Kiln, or a peer to compare it with.

use crate::base::Base;
use crate::machine::{self, TempFolder};
use crate::{Result, bail, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the processes of a store have in the making: all that is in their temporary folders.
pub fn drafts(root: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = std::fs::read_dir(root.join("tmp"))
        .into_iter()
        .flatten()
        .flatten();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.path()))
        .flatten()
        .flatten()
        .map(|draft| draft.path())
}

/// One build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The context folder.
    pub context: PathBuf,
    /// The Dockerfile, when it is not the context's `Dockerfile`.
    pub file: Option<PathBuf>,
    /// `name:tag` of the result.
    pub tag: String,
    /// Further arguments, in Docker's syntax.
    pub arguments: Vec<String>,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Itself when the command succeeded; else an error that shows what it said.
    pub fn success(self) -> Result<Self> {
        ensure!(
            self.code == Some(0),
            "exit code {:?}\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Standard error when the command ended with this code; else an error that shows what it said.
    pub fn failure(self, code: i32) -> Result<String> {
        ensure!(
            self.code == Some(code),
            "exit code {:?} instead of {code}\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self.stderr)
    }
}

/// Standard input of a build: nothing, or a file.
fn feed(command: &mut Command, stdin: Option<&Path>) -> Result<()> {
    if let Some(path) = stdin {
        let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        command.stdin(file);
    }
    Ok(())
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Ended> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    Ok(output.into())
}

/// A builder with a store of its own.
#[derive(Debug)]
pub enum Builder {
    /// The binary under test.
    Kiln(Kiln),
    /// A Docker daemon. It is no store of one's own: the daemon's images of the bases' names are replaced.
    Docker(PathBuf),
    /// Buildah, without a daemon.
    Buildah(Buildah),
}

/// Kiln and its store.
#[derive(Debug)]
pub struct Kiln {
    binary: PathBuf,
    /// The store's folder.
    pub root: PathBuf,
    home: PathBuf,
}

/// Buildah and its storage.
#[derive(Debug)]
pub struct Buildah {
    binary: PathBuf,
    folder: PathBuf,
}

impl Kiln {
    /// Kiln with its store and home inside a folder.
    pub fn new(folder: &TempFolder) -> Result<Self> {
        let kiln = Self {
            binary: machine::kiln()?,
            root: folder.join("root"),
            home: folder.join("home"),
        };
        std::fs::create_dir_all(&kiln.home)?;
        // An own configuration: that of the machine has no say here.
        std::fs::write(kiln.config(), "")?;
        Ok(kiln)
    }

    /// Its configuration file, empty at first.
    pub fn config(&self) -> PathBuf {
        self.home.join("kiln.toml")
    }

    /// Kiln with a store, and the images imported that are named.
    pub fn with_bases(folder: &TempFolder, references: &[&str]) -> Result<Self> {
        let kiln = Self::new(folder)?;
        for reference in references {
            kiln.import(&crate::base::base(reference)?)?;
        }
        Ok(kiln)
    }

    /// A command line `kiln --root … ARGUMENTS`, ready to run.
    pub fn command<A: Into<OsString>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = machine::command(&self.binary, &self.home);
        command.env("KILN_CONFIG", self.config());
        command
            .arg("--root")
            .arg(&self.root)
            .args(arguments.into_iter().map(Into::into));
        command
    }

    /// Runs `kiln ARGUMENTS` to its end.
    pub fn run<A: Into<OsString>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Ended> {
        run(&mut self.command(arguments))
    }

    /// The command line of a build with plain progress.
    pub fn build_command(&self, request: &Request) -> Command {
        let mut command = self.command(["build", "--progress", "plain", "-t", &request.tag]);
        if let Some(file) = &request.file {
            command.arg("-f").arg(file);
        }
        command.args(&request.arguments).arg(&request.context);
        command
    }

    /// Imports a base image.
    pub fn import(&self, base: &Base) -> Result<()> {
        let mut command = self.command(["import"]);
        for change in &base.changes {
            command.arg("--change").arg(change);
        }
        command.arg(&base.tar).arg(&base.reference);
        run(&mut command)?
            .success()
            .map_err(|error| format!("import of {}: {error}", base.reference))?;
        Ok(())
    }
}

impl Builder {
    /// A builder by its name (`kiln`, `docker`, `buildah`), with its state inside a folder.
    pub fn named(name: &str, folder: &TempFolder) -> Result<Self> {
        let binary = || machine::program(name).ok_or_else(|| format!("{name} is not on the PATH"));
        Ok(match name {
            "kiln" => Self::Kiln(Kiln::new(folder)?),
            "docker" => Self::Docker(binary()?),
            "buildah" => Self::Buildah(Buildah::new(binary()?, folder)?),
            other => bail!("{other} is no builder: kiln, docker or buildah"),
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kiln(_) => "kiln",
            Self::Docker(_) => "docker",
            Self::Buildah(_) => "buildah",
        }
    }

    /// Makes a base image known.
    pub fn import(&self, base: &Base) -> Result<()> {
        match self {
            Self::Kiln(kiln) => kiln.import(base),
            Self::Docker(docker) => {
                let mut command = Command::new(docker);
                command.arg("import");
                for change in &base.changes {
                    command.arg("--change").arg(change);
                }
                run(command.arg(&base.tar).arg(&base.reference))?
                    .success()
                    .map(drop)
            }
            Self::Buildah(buildah) => buildah.import(base),
        }
    }

    /// Builds. An error is one of starting the builder; a failed build is an [`Ended`].
    pub fn build(&self, request: &Request, stdin: Option<&Path>) -> Result<Ended> {
        let mut command = self.build_command(request);
        feed(&mut command, stdin)?;
        run(&mut command)
    }

    fn build_command(&self, request: &Request) -> Command {
        match self {
            Self::Kiln(kiln) => kiln.build_command(request),
            Self::Docker(docker) => {
                let mut command = Command::new(docker);
                command.args([
                    "build",
                    "--network",
                    "host",
                    "--progress",
                    "plain",
                    "-t",
                    &request.tag,
                ]);
                if let Some(file) = &request.file {
                    command.arg("-f").arg(file);
                }
                // Its cache forgets times: a file of the same content from another case would come with its own.
                command.arg("--no-cache");
                command.args(&request.arguments).arg(&request.context);
                command
            }
            Self::Buildah(buildah) => {
                let mut command = buildah.command(["build", "--isolation", "chroot", "--network", "host"]);
                command.args([
                    "--layers=false",
                    "--identity-label=false",
                    "--format",
                    "docker",
                    "--pull-never",
                    "-t",
                    &request.tag,
                ]);
                let default = ["Dockerfile", "Containerfile"].map(|name| request.context.join(name));
                let file = request
                    .file
                    .clone()
                    .or_else(|| default.into_iter().find(|file| file.exists()));
                if let Some(file) = file {
                    command.arg("-f").arg(file);
                }
                command.args(&request.arguments).arg(&request.context);
                command
            }
        }
    }

    /// Exports an image into a tar that [`crate::oci::read`] understands.
    pub fn save(&self, tag: &str, archive: &Path) -> Result<()> {
        let ended = match self {
            Self::Kiln(kiln) => {
                let mut command = kiln.command(["save", "--format", "oci", "-o"]);
                run(command.arg(archive).arg(tag))?
            }
            Self::Docker(docker) => run(Command::new(docker).args(["save", "-o"]).arg(archive).arg(tag))?,
            Self::Buildah(buildah) => {
                // The OCI format has no place for a health check, a shell or triggers; this one does.
                let target = format!("docker-archive:{}", archive.display());
                run(buildah.command(["push", "-q", tag]).arg(target))?
            }
        };
        ended
            .success()
            .map_err(|error| format!("save of {tag}: {error}"))?;
        Ok(())
    }
}

impl Buildah {
    fn new(binary: PathBuf, folder: &TempFolder) -> Result<Self> {
        let buildah = Self {
            binary,
            folder: folder.join("buildah"),
        };
        std::fs::create_dir_all(buildah.folder.join("home"))?;
        std::fs::write(
            buildah.folder.join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )?;
        std::fs::write(
            buildah.folder.join("registries.conf"),
            "unqualified-search-registries = [\"docker.io\"]\n",
        )?;
        // Its default limits ask for more than an unprivileged machine may have.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        std::fs::write(buildah.folder.join("containers.conf"), limits)?;
        Ok(buildah)
    }

    fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = machine::command(&self.binary, &self.folder.join("home"));
        command.env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.folder.join("registries.conf"));
        command
            .arg("--root")
            .arg(self.folder.join("root"))
            .arg("--runroot")
            .arg(self.folder.join("run"));
        command.args(["--storage-driver", "vfs"]);
        let (subcommand, rest) = arguments.split_at(1);
        command.args(subcommand);
        if matches!(subcommand, ["build" | "push" | "pull"]) {
            command
                .arg("--signature-policy")
                .arg(self.folder.join("policy.json"));
        }
        command.args(rest);
        command
    }

    fn import(&self, base: &Base) -> Result<()> {
        let archive = self.folder.join("base.oci.tar");
        base.write_oci_archive(&archive)?;
        let source = format!("oci-archive:{}", archive.display());
        let pulled = run(self.command(["pull", "-q"]).arg(source))?.success()?;
        let id = pulled.stdout.trim();
        run(&mut self.command(["tag", id, &format!("docker.io/library/{}", base.reference)]))?.success()?;
        std::fs::remove_file(archive)?;
        Ok(())
    }
}
