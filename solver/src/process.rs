//! Running the process of an exec step in a sandbox.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_cache::disk::Space;
use kiln_cache::{LayerDraft, Snapshot, StepLog, Store};
use kiln_executor::spec::{self, Bind, Network, SpecBuilder};
use kiln_executor::{ExitStatus, Sandbox, Stdio};
use kiln_image::Platform;
use kiln_tree::{Root, accounts};

use crate::error::{StepFailure, chain};
use crate::graph::{Exec, NetworkMode, SecurityMode};
use crate::limits;
use crate::mounts::Prepared;
use crate::output::OutputTail;
use crate::pump::pump;
use crate::solve::{Solve, log_name};
use crate::task::Task;

/// The host name that a step sees: the same on every machine, so that it cannot get into a layer.
const HOSTNAME: &str = "buildkitsandbox";

/// Where the certificate bundle of the request is bound.
const CA_BUNDLE: &str = "/run/kiln/ca-certificates.crt";
/// A configuration for apt, which looks at no variable for certificates.
const CA_APT_CONF: &str = "/run/kiln/apt-ca.conf";
/// The variables by which programs find a bundle: OpenSSL, curl, Python requests, pip, Node.js, git, cargo, AWS.
const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

impl Solve<'_> {
    /// Runs `exec`, a program of `platform`, on `base` with its changes going to `draft`, and `mounts` over it.
    pub(crate) fn run_process(
        &self,
        exec: &Exec,
        platform: &Platform,
        base: &Snapshot,
        draft: &LayerDraft,
        mounts: &Prepared,
        task: &Task,
    ) -> Result<(), StepFailure> {
        let command = exec.args.join(" ");
        let scratch = self.engine.store.temp().dir()?;
        let mount = self.roots.sandbox(base, draft, mounts.stub())?;
        let root = Root::from_fd(mount.try_clone().map_err(io(scratch.path()))?);
        let identity = accounts::identity(&root, &exec.user)?;
        // Docker makes a missing working directory, too, and gives it to the user of the process.
        root.create_dir_all(&exec.cwd, 0o755, Some((identity.uid, identity.gid)))?;
        drop(root);
        let spec = self.spec(exec, &identity, mounts, scratch.path())?;
        let emulator = self.engine.emulators.get(platform)?;
        let failed = |source| StepFailure::Sandbox {
            command: command.clone(),
            source,
        };
        // Unique among all builds of this program.
        let id = format!("build-{}-{}", self.request.build, task.id());
        let running = self
            .engine
            .backend
            .start(Sandbox {
                id,
                root: mount,
                spec,
                stdio: Stdio::piped(),
                emulator,
            })
            .map_err(failed)?;
        let running = Arc::new(running);
        let mut tail = OutputTail::new(self.open_log(task));
        let killer = Arc::clone(&running);
        let guard = self.stop.on_raise(move || {
            // A process that is gone already is what is wanted.
            let _ = killer.kill_all();
        });
        let secrets = self.request.secrets.patterns();
        pump(&running, task, &mut tail, &secrets).map_err(io(scratch.path()))?;
        let status = running.wait().map_err(failed)?;
        drop(guard);
        let ended = tail.finish();
        if let Some(error) = ended.log_error {
            self.engine
                .note(format!("the log of a step is not complete: {error}"));
        }
        // Before the step's files go.
        let disk_full = is_disk_full(&self.engine.store);
        if status.success() && !disk_full {
            return Ok(());
        }
        if self.stop.is_raised() {
            return Err(StepFailure::Canceled);
        }
        let (last_output, log) = (ended.lines, ended.log);
        let out_of_memory = running.ran_out_of_memory();
        let status_text = if status.success() {
            // Many programs do not notice what they could not write; that is not to be cached.
            "the disk is full, and what it wrote may be cut off".to_owned()
        } else {
            describe(status, out_of_memory)
        };
        Err(StepFailure::Process {
            command,
            status: status_text,
            code: i32::from(status.code()),
            out_of_memory,
            disk_full,
            last_output,
            log,
        })
    }

    /// The step's log file. A build without logs is better than none.
    fn open_log(&self, task: &Task) -> Option<StepLog> {
        match self
            .engine
            .store
            .builds()
            .log(&self.request.build)
            .step(&log_name(task))
        {
            Ok(log) => Some(log),
            Err(error) => {
                self.engine
                    .note(format!("a step's output is not kept: {}", chain(&error)));
                None
            }
        }
    }

    fn spec(
        &self,
        exec: &Exec,
        identity: &accounts::Identity,
        mounts: &Prepared,
        scratch: &std::path::Path,
    ) -> Result<kiln_executor::runtime::Spec, StepFailure> {
        let write = |name: &str, data: &[u8]| -> Result<PathBuf, StepFailure> {
            let path = scratch.join(name);
            std::fs::write(&path, data).map_err(io(&path))?;
            Ok(path)
        };
        let network = self.network(exec.network);
        let mut env: Vec<String> = exec.env.iter().chain(&exec.unkeyed_env).cloned().collect();
        if !has(&env, "HOME") {
            env.push(format!("HOME={}", identity.home));
        }
        let hostname = exec.hostname.as_deref().unwrap_or(HOSTNAME);
        let mut builder = spec::default_for(exec.args.iter().cloned())
            .cwd(&exec.cwd)
            .user(identity.uid, identity.gid, identity.groups.clone())
            .hostname(hostname)
            .privileged(exec.security == SecurityMode::Insecure)
            .hosts(write("hosts", hosts(hostname, exec).as_bytes())?)
            .resolv_conf(write("resolv.conf", &self.engine.settings.resolv_conf)?)
            .network(if network == NetworkMode::None {
                Network::None
            } else {
                Network::Host
            });
        // As with Docker, they may hide the files above; not those below, which the step needs.
        builder = mounts.add_to(builder);
        if let Some(bundle) = &self.engine.settings.ca_bundle {
            let apt = write(
                "apt-ca.conf",
                format!("Acquire::https::CAInfo \"{CA_BUNDLE}\";\n").as_bytes(),
            )?;
            builder = builder
                .bind(Bind {
                    source: bundle.clone(),
                    target: CA_BUNDLE.into(),
                    read_only: true,
                })
                .bind(Bind {
                    source: apt,
                    target: CA_APT_CONF.into(),
                    read_only: true,
                });
            for variable in CA_VARIABLES {
                if !has(&env, variable) {
                    env.push(format!("{variable}={CA_BUNDLE}"));
                }
            }
            if !has(&env, "APT_CONFIG") {
                env.push(format!("APT_CONFIG={CA_APT_CONF}"));
            }
        }
        for (position, file) in exec.files.iter().enumerate() {
            let path = write(&format!("file-{position}"), &file.data)?;
            set_mode(&path, file.mode)?;
            builder = builder.bind(Bind {
                source: path,
                target: file.path.clone().into(),
                read_only: true,
            });
        }
        mounts.set_variables(&mut env);
        Ok(self.limit(builder, exec)?.env(env).build())
    }

    /// The limits of the request, and those of the step.
    fn limit(&self, mut builder: SpecBuilder, exec: &Exec) -> Result<SpecBuilder, StepFailure> {
        let limits = &self.request.limits;
        if let Some(size) = limits.shm_size {
            builder = builder.shm_size(size);
        }
        if let Some(resources) = limits.resources() {
            builder = builder.resources(resources);
        }
        if let Some(parent) = &limits.cgroup_parent {
            builder = builder.cgroup_parent(parent);
        }
        for limit in &exec.ulimits {
            builder = builder.rlimit(limits::rlimit(limit)?);
        }
        Ok(builder)
    }
}

/// With less than this a file system is full: what could not be written any more was not a single byte.
const FULL: u64 = 64 * 1024;

fn is_disk_full(store: &Store) -> bool {
    Space::of(store).is_ok_and(|space| space.free < FULL)
}

/// `/etc/hosts` of a step.
fn hosts(hostname: &str, exec: &Exec) -> String {
    let mut hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in &exec.extra_hosts {
        let _ = writeln!(hosts, "{}\t{}", host.address, host.name);
    }
    hosts
}

fn has(env: &[String], name: &str) -> bool {
    env.iter()
        .any(|variable| variable.split_once('=').is_some_and(|(key, _)| key == name))
}

fn set_mode(path: &std::path::Path, mode: u32) -> Result<(), StepFailure> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io(path))
}

/// `exit code: 1` as Docker words it, and the signal's name or what the kernel says besides.
fn describe(status: ExitStatus, out_of_memory: bool) -> String {
    let code = status.code();
    match status {
        _ if out_of_memory => format!("exit code: {code} (out of memory)"),
        ExitStatus::Code(_) => format!("exit code: {code}"),
        ExitStatus::Signal(_) => format!("exit code: {code} ({status})"),
    }
}

fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> StepFailure + use<> {
    let path = path.to_owned();
    move |source| StepFailure::Io { path, source }
}
