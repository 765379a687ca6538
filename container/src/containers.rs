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
/// The lock of a dead container is held by others no longer than this.
const PROBE_PATIENCE: std::time::Duration = std::time::Duration::from_millis(200);

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

    /// Makes a container of the image configuration `image`. Its folder is complete when it appears, and has its
    /// name from then on.
    pub fn create(&self, options: RunOptions, image: &Config) -> Result<Container> {
        let names = self.names();
        std::fs::create_dir_all(&names).map_err(io("create", &names))?;
        let command = options.arguments(image)?;
        let id = name::random_id();
        let temp = self.store.temp().dir()?;
        let draft = temp.path().join("container");
        for path in [draft.clone(), draft.join("diff"), draft.join("work")] {
            std::fs::create_dir(&path).map_err(io("create", &path))?;
        }
        let mut container = Container {
            store: Arc::clone(&self.store),
            lock: None,
            state: ContainerState {
                id,
                name: String::new(),
                options,
                command,
                status: Status::Created,
                exit_code: None,
                created: jiff::Timestamp::now().to_string(),
                started: None,
                finished: None,
                process: None,
            },
            folder: draft,
        };
        container.lock = Some(
            container
                .take_lock()?
                .ok_or_else(|| Error::Running(container.state.id.clone()))?,
        );
        let _turn = self.turn()?;
        container.state.name = self.free_name(container.state.options.name.as_deref())?;
        container.save()?;
        let folder = self.folder.join(&container.state.id);
        std::fs::rename(&container.folder, &folder).map_err(io("create", &folder))?;
        container.folder = folder;
        let link = names.join(&container.state.name);
        std::os::unix::fs::symlink(&container.state.id, &link).map_err(io("create", link))?;
        Ok(container)
    }

    /// `wanted`, or a made-up name, that no container has. To be called in one's [turn](Self::turn): nobody else
    /// takes the name before it is used.
    fn free_name(&self, wanted: Option<&str>) -> Result<String> {
        if let Some(wanted) = wanted {
            name::check(wanted)?;
            return match self.holder(wanted)? {
                None => Ok(wanted.to_owned()),
                Some(holder) => Err(Error::NameInUse {
                    name: wanted.to_owned(),
                    id: holder.chars().take(12).collect(),
                }),
            };
        }
        loop {
            let made_up = name::random_name();
            if self.holder(&made_up)?.is_none() {
                return Ok(made_up);
            }
        }
    }

    /// The id of the container that has the name. A link that leads nowhere goes: its program died between the two
    /// steps of removing.
    fn holder(&self, name: &str) -> Result<Option<String>> {
        let link = self.names().join(name);
        let holder = match std::fs::read_link(&link) {
            Ok(holder) => holder,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", link)(error)),
        };
        if self.folder.join(&holder).exists() {
            return Ok(Some(holder.to_string_lossy().into_owned()));
        }
        std::fs::remove_file(&link).map_err(io("remove", link))?;
        Ok(None)
    }

    fn names(&self) -> PathBuf {
        self.folder.join("names")
    }

    /// Waits until nobody else gives or takes names; for a few system calls each time.
    fn turn(&self) -> Result<File> {
        turn(&self.folder)
    }

    /// All containers, the newest first. A damaged one is an error.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut containers = self
            .scan()?
            .into_iter()
            .map(|(_, container)| container)
            .collect::<Result<Vec<_>>>()?;
        containers.sort_by(|one, other| other.state.created.cmp(&one.state.created));
        Ok(containers)
    }

    /// The container with this name, id or beginning of an id.
    pub fn find(&self, text: &str) -> Result<Container> {
        let mut matching: Vec<Container> = Vec::new();
        let mut damaged = None;
        for (id, container) in self.scan()? {
            match container {
                Ok(container) if container.state.name == text || container.state.id == text => {
                    return Ok(container);
                }
                Ok(container) if !text.is_empty() && id.starts_with(text) => matching.push(container),
                // One that is damaged does not stand in the way of the others.
                Err(error) if id == text => damaged = Some(error),
                _ => {}
            }
        }
        match (matching.pop(), matching.is_empty(), damaged) {
            (Some(only), true, None) => Ok(only),
            (Some(_), _, _) => Err(Error::Ambiguous(text.to_owned())),
            (None, _, Some(error)) => Err(error),
            (None, _, None) => Err(Error::NotFound(text.to_owned())),
        }
    }

    /// The folders of all containers, by id, opened as far as they can be.
    fn scan(&self) -> Result<Vec<(String, Result<Container>)>> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(io("read", &self.folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(io("read", &self.folder))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if id.len() == name::ID_LENGTH
                && let Some(container) = self.open(&entry.path()).transpose()
            {
                found.push((id, container));
            }
        }
        Ok(found)
    }

    /// Opens a container's folder; `None` when it was removed just now.
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
        if container.state.status == Status::Running && container.is_abandoned()? {
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

    /// Where it is in the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the container and its changes. A running one is removed only with `force`: its process is killed
    /// with the program that runs it. One that somebody else removes meanwhile is gone, which is what is wanted.
    pub fn remove(mut self, force: bool) -> Result<()> {
        if self.lock.is_none() {
            self.lock = match self.seize(force) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(());
                }
                lock => lock?,
            };
        }
        if self.lock.is_none() {
            return Err(Error::Running(self.state.name));
        }
        let temp = self.store.temp().dir()?;
        let containers = self.folder.parent().unwrap_or(&self.folder).to_owned();
        let turn = turn(&containers)?;
        match std::fs::rename(&self.folder, temp.path().join("container")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", &self.folder)(error));
            }
            _ => {}
        }
        let link = containers.join("names").join(&self.state.name);
        if std::fs::read_link(&link).is_ok_and(|holder| holder.as_os_str() == self.state.id.as_str()) {
            std::fs::remove_file(&link).map_err(io("remove", link))?;
        }
        drop(turn);
        // From here on nobody finds the container. Its files take longer; a killed program leaves them to the next
        // sweep of temporary files.
        let path = temp.path().to_owned();
        Root::open(&path)?.remove_all("container")?;
        Ok(())
    }

    /// Gets the lock of somebody else's container. Without `force` not while its program lives; though somebody may
    /// hold the lock of a dead one for a moment, to see whether it can be had.
    fn seize(&self, force: bool) -> Result<Option<File>> {
        if let Some(lock) = self.take_lock()? {
            return Ok(Some(lock));
        }
        let process = self.state.process.filter(|process| process.is_alive());
        let patience = match (process, force) {
            (Some(process), true) => {
                process.kill().map_err(io("kill the process of", &self.folder))?;
                KILL_PATIENCE
            }
            (Some(_), false) => return Ok(None),
            (None, true) => KILL_PATIENCE,
            (None, false) => PROBE_PATIENCE,
        };
        let deadline = std::time::Instant::now() + patience;
        loop {
            match self.take_lock()? {
                None if std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                lock => return Ok(lock),
            }
        }
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
        self.try_lock(FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether the program that is responsible for it is gone. Others who ask at the same time get the same answer.
    fn is_abandoned(&self) -> Result<bool> {
        match self.try_lock(FlockOperation::NonBlockingLockShared) {
            // Removed since its state was read.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(true),
            lock => Ok(lock?.is_some()),
        }
    }

    fn try_lock(&self, operation: FlockOperation) -> Result<Option<File>> {
        let path = self.folder.join("lock");
        let file = open_lock(&path)?;
        match flock(&file, operation) {
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

/// Whoever has it may give and take names.
fn turn(containers: &Path) -> Result<File> {
    let path = containers.join("names.lock");
    let file = open_lock(&path)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| io("lock", path)(errno.into()))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io("open", path))
}

#[cfg(test)]
mod tests;
