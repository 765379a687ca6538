//! Specifications with Docker's defaults.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Capabilities, Linux, LinuxCapabilities, LinuxDevice, LinuxNamespace,
    LinuxNamespaceType, LinuxResources, Mount, PosixRlimit, Process, Root, Spec, User,
};

use crate::{WindowSize, capabilities, seccomp};

mod defaults;

pub use defaults::DEFAULT_PATH;
pub(crate) use defaults::{DEFAULT_SHM_SIZE, MASKED_PATHS, READONLY_PATHS};

/// The network of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    None,
}

/// A directory or file of the host that is visible in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the sandbox.
    pub target: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// Starts a specification that runs `args` with Docker's defaults: its mounts, masked and read-only
/// paths, capabilities, devices, namespaces and seccomp profile, as root in `/`, on the host's
/// network.
pub fn default_for<I, S>(args: I) -> SpecBuilder
where
    I: IntoIterator<Item = S>,
    S: Into<String>,
{
    SpecBuilder {
        args: args.into_iter().map(Into::into).collect(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        user: (0, 0, Vec::new()),
        hostname: None,
        mounts: Vec::new(),
        terminal: None,
        network: Network::Host,
        privileged: false,
        no_new_privileges: false,
        seccomp: true,
        read_only_root: false,
        shm_size: DEFAULT_SHM_SIZE,
        capabilities: capabilities::DOCKER_DEFAULT.into(),
        rlimits: Vec::new(),
        resources: None,
        cgroup_parent: None,
        devices: Vec::new(),
        sysctls: Vec::new(),
        umask: 0o022,
    }
}

/// See [`default_for`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SpecBuilder {
    args: Vec<String>,
    env: Vec<String>,
    cwd: PathBuf,
    user: (u32, u32, Vec<u32>),
    hostname: Option<String>,
    mounts: Vec<Mount>,
    #[expect(
        clippy::option_option,
        reason = "no terminal; one of unknown size; one of a size"
    )]
    terminal: Option<Option<WindowSize>>,
    network: Network,
    privileged: bool,
    no_new_privileges: bool,
    seccomp: bool,
    read_only_root: bool,
    shm_size: u64,
    capabilities: Capabilities,
    rlimits: Vec<PosixRlimit>,
    resources: Option<LinuxResources>,
    cgroup_parent: Option<PathBuf>,
    devices: Vec<LinuxDevice>,
    sysctls: Vec<(String, String)>,
    umask: u32,
}

impl SpecBuilder {
    /// The whole environment, as `NAME=value`. A `PATH` is added when there is none.
    pub fn env<I, S>(mut self, env: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.env = env.into_iter().map(Into::into).collect();
        self
    }

    /// Working directory. It must exist in the root.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = cwd.into();
        self
    }

    /// User, group and supplementary groups. As in Docker, a user other than root starts without
    /// effective capabilities.
    pub fn user(mut self, uid: u32, gid: u32, groups: impl Into<Vec<u32>>) -> Self {
        self.user = (uid, gid, groups.into());
        self
    }

    /// Host name, in a UTS namespace of its own in any case.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Makes a directory or file of the host visible, with everything mounted below it.
    pub fn bind(mut self, bind: Bind) -> Self {
        let mode = if bind.read_only { "ro" } else { "rw" };
        let mut mount = defaults::mount(&bind.target, "bind", Path::new("/"), &["rbind", "rprivate", mode]);
        mount.set_source(Some(bind.source));
        self.mounts.push(mount);
        self
    }

    /// Binds `source` read-write over `/etc/resolv.conf`. Not part of the root, so no trace of it or
    /// of writes to it is left there.
    pub fn resolv_conf(self, source: impl Into<PathBuf>) -> Self {
        self.etc_file(source, "/etc/resolv.conf")
    }

    /// Binds `source` over `/etc/hosts`.
    pub fn hosts(self, source: impl Into<PathBuf>) -> Self {
        self.etc_file(source, "/etc/hosts")
    }

    /// Binds `source` over `/etc/hostname`.
    pub fn hostname_file(self, source: impl Into<PathBuf>) -> Self {
        self.etc_file(source, "/etc/hostname")
    }

    fn etc_file(self, source: impl Into<PathBuf>, target: &str) -> Self {
        self.bind(Bind {
            source: source.into(),
            target: target.into(),
            read_only: false,
        })
    }

    /// An empty file system in memory.
    pub fn tmpfs(mut self, target: impl AsRef<Path>, options: &[&str]) -> Self {
        let options: Vec<&str> = ["nosuid", "nodev"].iter().chain(options).copied().collect();
        self.mounts.push(defaults::mount(
            target.as_ref(),
            "tmpfs",
            Path::new("tmpfs"),
            &options,
        ));
        self
    }

    /// Any further mount. A later mount at the same destination replaces an earlier one.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// A terminal of this size. The standard streams must be [`crate::Stdio::Terminal`] too.
    pub fn terminal(mut self, size: Option<WindowSize>) -> Self {
        self.terminal = Some(size);
        self
    }

    /// Network; the host's is the default.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// All capabilities, no seccomp filter, nothing masked or read-only.
    pub fn privileged(mut self, privileged: bool) -> Self {
        self.privileged = privileged;
        self
    }

    /// Forbids gaining privileges by set-uid programs. Off by default, as in Docker.
    pub fn no_new_privileges(mut self, on: bool) -> Self {
        self.no_new_privileges = on;
        self
    }

    /// Docker's seccomp profile. On by default.
    pub fn seccomp(mut self, on: bool) -> Self {
        self.seccomp = on;
        self
    }

    /// Makes the root read-only.
    pub fn read_only_root(mut self, on: bool) -> Self {
        self.read_only_root = on;
        self
    }

    /// Size of `/dev/shm` in bytes; 64 MiB by default.
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.shm_size = bytes;
        self
    }

    /// A resource limit of the process.
    pub fn rlimit(mut self, limit: PosixRlimit) -> Self {
        self.rlimits.push(limit);
        self
    }

    /// Limits through cgroups. Without, no cgroup is made.
    pub fn resources(mut self, resources: LinuxResources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// The group, below where this program makes groups, in which that of the sandbox is made. It counts with
    /// [`resources`](Self::resources) alone.
    pub fn cgroup_parent(mut self, parent: impl Into<PathBuf>) -> Self {
        self.cgroup_parent = Some(parent.into());
        self
    }

    /// A device node besides the default ones.
    pub fn device(mut self, device: LinuxDevice) -> Self {
        self.devices.push(device);
        self
    }

    /// A kernel parameter of the sandbox's own namespaces.
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.push((name.into(), value.into()));
        self
    }

    /// File mode creation mask; 022 by default.
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = umask;
        self
    }

    /// The finished specification.
    pub fn build(self) -> Spec {
        let process = self.process();
        let linux = self.linux();
        let mut root = Root::default();
        root.set_path(PathBuf::from("/"))
            .set_readonly(Some(self.read_only_root));
        let mut mounts = defaults::mounts(self.shm_size, self.privileged);
        for mount in self.mounts {
            mounts.retain(|earlier| earlier.destination() != mount.destination());
            mounts.push(mount);
        }
        let mut spec = Spec::default();
        spec.set_version("1.2.0".to_owned())
            .set_root(Some(root))
            .set_mounts(Some(mounts))
            .set_process(Some(process))
            .set_hostname(self.hostname)
            .set_annotations(None)
            .set_linux(Some(linux));
        spec
    }

    fn process(&self) -> Process {
        let mut env = self.env.clone();
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.insert(0, format!("PATH={DEFAULT_PATH}"));
        }
        if self.terminal.is_some() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        let (uid, gid, groups) = self.user.clone();
        let mut user = User::default();
        user.set_uid(uid)
            .set_gid(gid)
            .set_additional_gids(Some(groups))
            .set_umask(Some(self.umask));
        let bounding = if self.privileged {
            capabilities::all()
        } else {
            self.capabilities.clone()
        };
        let held = if uid == 0 {
            bounding.clone()
        } else {
            Capabilities::new()
        };
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(Some(bounding))
            .set_effective(Some(held.clone()))
            .set_permitted(Some(held))
            .set_inheritable(Some(Capabilities::new()))
            .set_ambient(Some(Capabilities::new()));
        let mut process = Process::default();
        process
            .set_args(Some(self.args.clone()))
            .set_env(Some(env))
            .set_cwd(self.cwd.clone())
            .set_user(user)
            .set_capabilities(Some(sets))
            .set_no_new_privileges(Some(self.no_new_privileges))
            .set_rlimits((!self.rlimits.is_empty()).then(|| self.rlimits.clone()))
            .set_apparmor_profile(None)
            .set_selinux_label(None)
            .set_terminal(Some(self.terminal.is_some()));
        process.set_console_size(self.terminal.flatten().map(console_size));
        process
    }

    fn linux(&self) -> Linux {
        let mut linux = Linux::default();
        let mut types = vec![
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Cgroup,
        ];
        if self.network == Network::None {
            types.push(LinuxNamespaceType::Network);
        }
        let namespaces = types.into_iter().map(|typ| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(typ).set_path(None);
            namespace
        });
        let paths = |paths: &[&str]| {
            let on = !self.privileged;
            Some(
                paths
                    .iter()
                    .filter(|_| on)
                    .map(|&path| path.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let devices = defaults::devices()
            .into_iter()
            .chain(self.devices.iter().cloned())
            .collect();
        linux
            .set_namespaces(Some(namespaces.collect()))
            .set_masked_paths(paths(&MASKED_PATHS))
            .set_readonly_paths(paths(&READONLY_PATHS))
            .set_devices(Some(devices))
            .set_resources(self.resources.clone())
            .set_cgroups_path(self.cgroup_parent.clone());
        if self.seccomp && !self.privileged {
            linux.set_seccomp(Some(seccomp::docker::profile(&self.capabilities)));
        }
        if !self.sysctls.is_empty() {
            linux.set_sysctl(Some(self.sysctls.iter().cloned().collect()));
        }
        linux
    }
}

fn console_size(size: WindowSize) -> ConsoleSize {
    // Every field has a default: building cannot fail.
    BoxBuilder::default()
        .height(u64::from(size.rows))
        .width(u64::from(size.columns))
        .build()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
