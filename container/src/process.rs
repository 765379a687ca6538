//! Running a container's process.

use std::path::PathBuf;

use kiln_executor::overlay::{self, Overlay};
use kiln_executor::spec::{self, Bind, Network};
use kiln_executor::{Backend, Emulator, ExitStatus, Running, Sandbox, Stdio, mountpoints};
use kiln_image::Config;
use kiln_tree::{Root, accounts};

use crate::containers::Container;
use crate::error::{Result, io};
use crate::state::{HostProcess, Status};

impl Container {
    /// Starts the process with `stdio`. `resolv_conf` is the host's resolver configuration, `emulator` what programs
    /// of the image's platform need here.
    ///
    /// The container counts as running until [`Container::ended`] is called or this program ends.
    pub fn start(
        &mut self,
        backend: &dyn Backend,
        image: &Config,
        stdio: Stdio,
        resolv_conf: &[u8],
        emulator: Option<Emulator>,
    ) -> Result<Running> {
        let mount = self.mount()?;
        let root = Root::from_fd(mount.try_clone().map_err(io("use the root of", &self.folder))?);
        let options = &self.state.options;
        let user = options.user.clone().unwrap_or_else(|| image.user.clone());
        let identity = accounts::identity(&root, &user)?;
        let hostname = options
            .hostname
            .clone()
            .unwrap_or_else(|| self.state.id.chars().take(12).collect());
        let cwd = options
            .workdir
            .clone()
            .unwrap_or_else(|| image.working_dir.clone());
        let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
        // Docker makes a missing working directory, too.
        root.create_dir_all(&cwd, 0o755, None)?;
        drop(root);
        let hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        let mut builder = spec::default_for(self.state.command.iter().cloned())
            .env(options.environment(image, &hostname, &identity.home))
            .cwd(cwd)
            .user(identity.uid, identity.gid, identity.groups.clone())
            .hostname(&hostname)
            .hostname_file(self.write("hostname", format!("{hostname}\n").as_bytes())?)
            .hosts(self.write("hosts", hosts.as_bytes())?)
            .resolv_conf(self.write("resolv.conf", resolv_conf)?)
            .network(if options.host_network {
                Network::Host
            } else {
                Network::None
            });
        if let Stdio::Terminal(size) = &stdio {
            builder = builder.terminal(*size);
        }
        for volume in &options.volumes {
            // `-v` makes a missing folder, as in Docker.
            if !volume.source.exists() {
                std::fs::create_dir_all(&volume.source).map_err(io("create", &volume.source))?;
            }
            builder = builder.bind(Bind {
                source: volume.source.clone(),
                target: volume.target.clone(),
                read_only: volume.read_only,
            });
        }
        let id = self.state.id.chars().take(12).collect();
        let running = backend.start(Sandbox {
            id,
            root: mount,
            spec: builder.build(),
            stdio,
            emulator,
        })?;
        self.state.status = Status::Running;
        self.state.process = HostProcess::of(running.pid());
        self.state.started = Some(jiff::Timestamp::now().to_string());
        self.save()?;
        Ok(running)
    }

    /// The process has ended.
    pub fn ended(&mut self, status: ExitStatus) -> Result<()> {
        self.state.status = Status::Exited;
        self.state.exit_code = Some(status.code());
        self.state.finished = Some(jiff::Timestamp::now().to_string());
        self.save()
    }

    /// Image layers with the container's own changes on top and mountpoints below.
    fn mount(&self) -> Result<std::os::fd::OwnedFd> {
        let stub = self.folder.join("stub");
        match std::fs::create_dir(&stub) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io("create", stub)(error));
            }
            _ => {}
        }
        mountpoints::write_stub_layer(&stub).map_err(io("create", &stub))?;
        let mut lowers = self.store.layers().lowers(&self.snapshot()?)?;
        let (diff, work) = (self.folder.join("diff"), self.folder.join("work"));
        if let Some(top) = lowers.first() {
            let metadata = Root::open(top)?.stat("/")?;
            let upper = Root::open(&diff)?;
            upper.chown("/", metadata.uid, metadata.gid)?;
            upper.chmod("/", metadata.mode)?;
        }
        lowers.push(stub);
        let overlay = Overlay {
            lowers: &lowers,
            upper: Some((&diff, &work)),
            volatile: true,
        };
        Ok(overlay::mount(&overlay).map_err(kiln_executor::Error::from)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).map_err(io("write", &path))?;
        Ok(path)
    }
}
