//! What the request lends to a step: secrets as files and variables, and sockets of SSH agents.
//!
//! The files and sockets are in memory, in a folder that only this program sees; the sandbox gets each of them bound
//! to its target. All is gone when the step ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kiln_executor::memory::MemoryFolder;
use kiln_executor::runtime;

use crate::error::StepFailure;
use crate::graph::{Exec, Mount, MountKind, SourceSpan};
use crate::secret::{SecretError, Secrets};
use crate::solve::SolveRequest;
use crate::ssh::forward::Forward;
use crate::ssh::{AgentError, SshAgents};

/// What is lent, until it is dropped.
#[derive(Default)]
pub(crate) struct Lent {
    /// Variables of the process, by name.
    variables: BTreeMap<String, String>,
    /// What is bound, by target.
    files: BTreeMap<String, (PathBuf, Binding)>,
    // In this order: nobody listens any more when the folder goes.
    sockets: Vec<Forward>,
    folder: Option<MemoryFolder>,
}

/// What may be done with a bound file.
#[derive(Debug, Clone, Copy)]
enum Binding {
    /// A secret; executable when its mode says so.
    File {
        executable: bool,
    },
    Socket,
}

impl Lent {
    /// Lends what `exec` asks for. `scratch` is an empty folder of the step.
    pub(crate) fn new(exec: &Exec, request: &SolveRequest, scratch: &Path) -> Result<Self, StepFailure> {
        let mut lent = Self::default();
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::Secret { .. } => lent.secret(mount, &request.secrets, scratch)?,
                MountKind::Ssh { .. } => lent.agent(mount, &request.ssh, scratch)?,
                MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => {}
            }
        }
        Ok(lent)
    }

    /// The mount of what is lent at `target`; `None` when it is missing and need not be there.
    pub(crate) fn mount(&self, target: &str) -> Option<runtime::Mount> {
        let (source, binding) = self.files.get(target)?;
        let mut options = vec!["rbind", "rprivate", "ro", "nosuid", "nodev"];
        if !matches!(binding, Binding::File { executable: true }) {
            options.push("noexec");
        }
        let mut mount = runtime::Mount::default();
        mount
            .set_destination(target.into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(source.clone()))
            .set_options(Some(options.into_iter().map(str::to_owned).collect()));
        Some(mount)
    }

    /// Sets the lent variables, over those of the same name.
    pub(crate) fn set_variables(&self, env: &mut Vec<String>) {
        env.retain(|variable| {
            let name = variable
                .split_once('=')
                .map_or(variable.as_str(), |(name, _)| name);
            !self.variables.contains_key(name)
        });
        env.extend(
            self.variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
    }

    fn secret(&mut self, mount: &Mount, secrets: &Secrets, scratch: &Path) -> Result<(), StepFailure> {
        let MountKind::Secret {
            id,
            environment,
            file,
            required,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let failed = |source: SecretError| StepFailure::Secret {
            source,
            span: mount.span,
        };
        let Some(value) = secrets.get(id) else {
            if *required {
                let (id, span) = (id.clone(), mount.span);
                return Err(StepFailure::MissingSecret { id, span });
            }
            if let Some(name) = environment {
                // BuildKit's way: the variable is there and empty.
                self.variables.insert(name.clone(), String::new());
            }
            return Ok(());
        };
        let value = value.map_err(failed)?;
        if let Some(name) = environment {
            let text = secrets.text(id).transpose().map_err(failed)?;
            self.variables.insert(name.clone(), text.unwrap_or_default());
        }
        if *file {
            let path = self.place(scratch)?;
            let failed = io(&path);
            let written = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(&value));
            written
                .and_then(|()| own(&path, *uid, *gid, *mode))
                .map_err(failed)?;
            let executable = mode & 0o111 != 0;
            self.files
                .insert(mount.target.clone(), (path, Binding::File { executable }));
        }
        Ok(())
    }

    fn agent(&mut self, mount: &Mount, agents: &SshAgents, scratch: &Path) -> Result<(), StepFailure> {
        let MountKind::Ssh {
            id,
            required,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let span = mount.span;
        let Some(agent) = agents.socket(id) else {
            if *required {
                let id = id.clone();
                return Err(StepFailure::MissingAgent { id, span });
            }
            return Ok(());
        };
        let agent = agent.map_err(|source| StepFailure::Agent { source, span })?;
        let path = self.place(scratch)?;
        let forward = listen(&path, &agent)
            .and_then(|forward| own(&path, *uid, *gid, *mode).map(|()| forward))
            .map_err(|source| failed_socket(id, source, span))?;
        self.sockets.push(forward);
        self.files.insert(mount.target.clone(), (path, Binding::Socket));
        Ok(())
    }

    /// A new name in the folder, which is made when it is first needed.
    fn place(&mut self, scratch: &Path) -> Result<PathBuf, StepFailure> {
        if self.folder.is_none() {
            let path = scratch.join("lent");
            std::fs::create_dir(&path).map_err(io(&path))?;
            self.folder = Some(MemoryFolder::mount(&path).map_err(StepFailure::Mount)?);
        }
        let number = self.files.len();
        Ok(scratch.join("lent").join(number.to_string()))
    }
}

/// Listens at `path`, whose length the name of a socket may not have: the folder is named by its descriptor.
fn listen(path: &Path, agent: &Path) -> std::io::Result<Forward> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Forward::listen(&short, agent)
}

/// Owner first: changing it takes some bits of the mode away.
fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> std::io::Result<()> {
    if (uid, gid) != (0, 0) {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))
}

fn failed_socket(id: &str, source: std::io::Error, span: Option<SourceSpan>) -> StepFailure {
    let id = id.to_owned();
    StepFailure::Agent {
        source: AgentError::Socket { id, source },
        span,
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StepFailure + use<> {
    let path = path.to_owned();
    move |source| StepFailure::Io { path, source }
}
