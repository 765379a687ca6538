//! The two kinds of hierarchies.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use super::limits::Setting;
use super::{CgroupError, PARENT};

/// A tree of control groups that some controllers act on.
pub(super) trait Hierarchy: Debug + Send + Sync {
    /// Controllers that can be used in it.
    fn controllers(&self) -> Vec<String>;
    /// Whether it is the v2 hierarchy.
    fn unified(&self) -> bool;
    /// The group below which groups are made.
    fn base(&self) -> &Path;
    /// Makes a group with these settings: in `parent`, a path below the base, or where all groups are.
    fn create(
        &self,
        parent: Option<&Path>,
        name: &str,
        settings: &[&Setting],
    ) -> Result<PathBuf, CgroupError>;
}

fn unavailable(action: &str, path: &Path, error: &io::Error) -> CgroupError {
    CgroupError::Unavailable {
        what: vec![format!("{action} {}: {error}", path.display())],
    }
}

/// Makes the groups below `base` that lead to the one that the new group will be in; gives all of them, the
/// topmost first. Not being allowed to is ordinary for ordinary users.
fn make_parents(base: &Path, parent: Option<&Path>) -> Result<Vec<PathBuf>, CgroupError> {
    let mut made = Vec::new();
    let mut directory = base.to_owned();
    for name in parent.unwrap_or(Path::new(PARENT)) {
        directory.push(name);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unavailable("make control group", &directory, &error));
            }
            _ => made.push(directory.clone()),
        }
    }
    Ok(made)
}

/// Makes the group itself and fills it in; leaves nothing behind when that fails.
fn make<'a>(
    parent: &Path,
    name: &str,
    values: impl Iterator<Item = &'a (&'static str, String)>,
) -> Result<PathBuf, CgroupError> {
    let directory = parent.join(name);
    std::fs::create_dir(&directory).map_err(|error| unavailable("make control group", &directory, &error))?;
    for (file, value) in values {
        let path = directory.join(file);
        if let Err(error) = std::fs::write(&path, value) {
            // The failed write is what matters.
            let _ = std::fs::remove_dir(&directory);
            if error.kind() == io::ErrorKind::NotFound {
                return Err(unavailable("no such setting", &path, &error));
            }
            return Err(CgroupError::io(format!("write {value}"), &path, error));
        }
    }
    Ok(directory)
}

/// A v1 hierarchy.
#[derive(Debug)]
pub(super) struct Legacy {
    controllers: Vec<String>,
    base: PathBuf,
}

impl Legacy {
    pub(super) fn new(controllers: Vec<String>, mountpoint: PathBuf, own: &Path) -> Self {
        let base = below(mountpoint, own);
        Self { controllers, base }
    }
}

/// A path below a mountpoint. A path that leads out of a cgroup namespace (`/..`) is not there.
fn below(mountpoint: PathBuf, own: &Path) -> PathBuf {
    let own = own.strip_prefix("/").unwrap_or(own);
    let base = mountpoint.join(own);
    if own.starts_with("..") || !base.is_dir() {
        mountpoint
    } else {
        base
    }
}

impl Hierarchy for Legacy {
    fn controllers(&self) -> Vec<String> {
        self.controllers.clone()
    }

    fn unified(&self) -> bool {
        false
    }

    fn base(&self) -> &Path {
        &self.base
    }

    fn create(
        &self,
        parent: Option<&Path>,
        name: &str,
        settings: &[&Setting],
    ) -> Result<PathBuf, CgroupError> {
        let parents = make_parents(&self.base, parent)?;
        let parent = parents.last().unwrap_or(&self.base);
        let mut values: Vec<(&'static str, String)> = Vec::new();
        if self.controllers.iter().any(|controller| controller == "cpuset") {
            // A new v1 group has no processors and no memory, and takes no process then.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let mut inherited = String::new();
                for directory in &parents {
                    inherited = inherit(directory, file)?;
                }
                values.push((file, inherited));
            }
        }
        for setting in settings {
            values.retain(|(file, _)| *file != setting.legacy.0);
            values.push(setting.legacy.clone());
        }
        make(parent, name, values.iter())
    }
}

/// Fills a cpuset file of a group in from the group above, when it is empty, and returns its value.
fn inherit(group: &Path, file: &str) -> Result<String, CgroupError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|e| CgroupError::io("read", path, e))?;
        Ok::<_, CgroupError>(text.trim().to_owned())
    };
    let path = group.join(file);
    let value = read(&path)?;
    if !value.is_empty() {
        return Ok(value);
    }
    let value = read(&group.parent().unwrap_or(group).join(file))?;
    std::fs::write(&path, &value).map_err(|e| CgroupError::io(format!("write {value}"), &path, e))?;
    Ok(value)
}

/// The v2 hierarchy.
#[derive(Debug)]
pub(super) struct Unified {
    base: PathBuf,
}

impl Unified {
    /// Root makes its groups at the top: below its own group it could not, because a group with
    /// processes cannot have limited groups below it. An ordinary user may have got a subtree.
    pub(super) fn new(mountpoint: PathBuf, own: &Path, privileged: bool) -> Self {
        let base = if privileged {
            mountpoint
        } else {
            below(mountpoint, own)
        };
        Self { base }
    }
}

impl Hierarchy for Unified {
    fn controllers(&self) -> Vec<String> {
        std::fs::read_to_string(self.base.join("cgroup.controllers"))
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect()
    }

    fn unified(&self) -> bool {
        true
    }

    fn base(&self) -> &Path {
        &self.base
    }

    fn create(
        &self,
        parent: Option<&Path>,
        name: &str,
        settings: &[&Setting],
    ) -> Result<PathBuf, CgroupError> {
        let parents = make_parents(&self.base, parent)?;
        let parent = parents.last().unwrap_or(&self.base);
        let mut controllers: Vec<&str> = settings.iter().map(|setting| setting.controller).collect();
        controllers.sort_unstable();
        controllers.dedup();
        for directory in std::iter::once(&self.base).chain(&parents) {
            let path = directory.join("cgroup.subtree_control");
            for controller in &controllers {
                std::fs::write(&path, format!("+{controller}"))
                    .map_err(|error| unavailable(&format!("enable `{controller}` in"), &path, &error))?;
            }
        }
        make(parent, name, settings.iter().map(|setting| &setting.unified))
    }
}
