//! The containers of a store: making, finding, removing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::{Snapshot, Store};
use kiln_image::Config;
use kiln_tree::Root;
use rustix::fs::{FlockOperation, flock};

use crate::RunOptions;
use crate::error::{Error, Result, io};
use crate::name;
use crate::state::{ContainerState, Status};

/// A killed process is given this long to be gone.
const KILL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// All containers of a store.
#[derive(Debug, Clone)]
pub struct Containers {
    store: Arc<Store>,
    folder: PathBuf,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    pub(crate) store: Arc<Store>,
    pub(crate) folder: PathBuf,
    pub(crate) state: ContainerState,
    /// Held while this program is responsible for the container.
    pub(crate) lock: Option<File>,
}

impl Containers {
    /// The containers of `store`.
    pub fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::clone(store),
            folder: store.root().join("containers"),
        }
    }

    /// Makes a container of the image configuration `image`. Its folder is complete when it appears.
    pub fn create(&self, options: RunOptions, image: &Config) -> Result<Container> {
        let names = self.folder.join("names");
        std::fs::create_dir_all(&names).map_err(io("create", &names))?;
        let command = options.arguments(image)?;
        let id = name::random_id();
        let name = match &options.name {
            Some(name) => {
                name::check(name)?;
                name.clone()
            }
            None => name::random_name(),
        };
        let folder = self.folder.join(&id);
        for part in ["diff", "work"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(io("create", &path))?;
        }
        let mut container = Container {
            store: Arc::clone(&self.store),
            lock: None,
            state: ContainerState {
                id,
                name,
                options,
                command,
                status: Status::Created,
                exit_code: None,
                created: jiff::Timestamp::now().to_string(),
                started: None,
                finished: None,
                process: None,
            },
            folder,
        };
        container.lock = Some(
            container
                .take_lock()?
                .ok_or_else(|| Error::Running(container.state.id.clone()))?,
        );
        container.save()?;
        if let Err(error) = self.claim(&container.state) {
            container.delete()?;
            return Err(error);
        }
        Ok(container)
    }

    /// Takes the name: whoever makes `names/<name>` first has it.
    fn claim(&self, state: &ContainerState) -> Result<()> {
        let path = self.folder.join("names").join(&state.name);
        loop {
            match std::os::unix::fs::symlink(&state.id, &path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io("create", &path)(error)),
            }
            let holder = std::fs::read_link(&path).map_err(io("read", &path))?;
            if self.folder.join(&holder).exists() {
                let id: String = holder.to_string_lossy().chars().take(12).collect();
                return Err(Error::NameInUse {
                    name: state.name.clone(),
                    id,
                });
            }
            // The holder's program died between its two steps of removing.
            std::fs::remove_file(&path).map_err(io("remove", &path))?;
        }
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(containers),
            Err(error) => return Err(io("read", &self.folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(io("read", &self.folder))?;
            if entry.file_name() != "names"
                && let Some(container) = self.open(&entry.path())?
            {
                containers.push(container);
            }
        }
        containers.sort_by(|one, other| other.state.created.cmp(&one.state.created));
        Ok(containers)
    }

    /// The container with this name, id or beginning of an id.
    pub fn find(&self, text: &str) -> Result<Container> {
        let mut matching: Vec<Container> = self
            .list()?
            .into_iter()
            .filter(|container| container.state.name == text || container.state.id.starts_with(text))
            .collect();
        if let Some(exact) = matching
            .iter()
            .position(|container| container.state.name == text || container.state.id == text)
        {
            return Ok(matching.swap_remove(exact));
        }
        match (matching.pop(), matching.is_empty()) {
            (None, _) => Err(Error::NotFound(text.to_owned())),
            (Some(only), true) if !text.is_empty() => Ok(only),
            _ => Err(Error::Ambiguous(text.to_owned())),
        }
    }

    /// Opens a container's folder; `None` when it is being made or removed just now.
    fn open(&self, folder: &Path) -> Result<Option<Container>> {
        let path = folder.join("container.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let state: ContainerState =
            serde_json::from_slice(&bytes).map_err(|source| Error::State { path, source })?;
        let mut container = Container {
            store: Arc::clone(&self.store),
            folder: folder.to_owned(),
            state,
            lock: None,
        };
        if container.state.status == Status::Running && container.take_lock()?.is_some() {
            // Its program was killed, and its process with it.
            container.state.status = Status::Exited;
        }
        Ok(Some(container))
    }
}

impl Container {
    /// What is known of it.
    pub fn state(&self) -> &ContainerState {
        &self.state
    }

    /// Removes the container and its changes. A running one is removed only with `force`: its process is killed
    /// with the program that runs it.
    pub fn remove(mut self, force: bool) -> Result<()> {
        if self.lock.is_none() {
            self.lock = self.take_lock()?;
        }
        if self.lock.is_none() && force {
            self.lock = self.kill()?;
        }
        if self.lock.is_none() {
            return Err(Error::Running(self.state.name));
        }
        let name = self.folder.with_file_name("names").join(&self.state.name);
        self.delete()?;
        match std::fs::read_link(&name) {
            Ok(holder) if holder.as_os_str() == self.state.id.as_str() => {
                std::fs::remove_file(&name).map_err(io("remove", name))
            }
            _ => Ok(()),
        }
    }

    /// Kills the process; its program then lets go of the lock.
    fn kill(&self) -> Result<Option<File>> {
        if let Some(process) = self.state.process
            && process.is_alive()
        {
            process.kill().map_err(io("kill the process of", &self.folder))?;
        }
        let deadline = std::time::Instant::now() + KILL_PATIENCE;
        loop {
            match self.take_lock()? {
                None if std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                lock => return Ok(lock),
            }
        }
    }

    /// The folder goes; from now on nobody finds the container.
    fn delete(&self) -> Result<()> {
        let state = self.folder.join("container.json");
        match std::fs::remove_file(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", state)(error));
            }
            _ => {}
        }
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let name = self.folder.file_name().unwrap_or_default();
        Root::open(parent)?.remove_all(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
        Ok(())
    }

    /// Writes the state; readers see the old one or the new one.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.folder.join("container.json");
        let part = self.folder.join("container.json.new");
        let bytes = serde_json::to_vec_pretty(&self.state).map_err(|source| Error::State {
            path: path.clone(),
            source,
        })?;
        std::fs::write(&part, bytes).map_err(io("write", &part))?;
        std::fs::rename(&part, &path).map_err(io("write", path))
    }

    /// The lock, unless another program has it.
    fn take_lock(&self) -> Result<Option<File>> {
        let path = self.folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io("lock", path)(errno.into())),
        }
    }

    /// The image's layers.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let id = self
            .state
            .options
            .image
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let record = self.store.images().require(&id)?;
        Ok(Snapshot {
            layers: record.layers.into_iter().map(|layer| layer.layer).collect(),
        })
    }
}
