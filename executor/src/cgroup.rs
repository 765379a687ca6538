//! Limits through control groups: v1, hybrid, v2, or none.
//!
//! A group is made only for a sandbox whose specification has resources. Its name tells who owns it,
//! so that what a killed program left behind can be swept.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use thiserror::Error;

use crate::plan::CgroupView;

mod discover;
mod hierarchy;
mod limits;

use discover::Found;
use hierarchy::{Hierarchy, Legacy, Unified};
use limits::{Setting, settings};

/// All groups are in this one.
const PARENT: &str = "kiln";

/// How long to wait for the processes of a group to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a limit cannot be applied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// This machine cannot do it for this user. Callers may go on without the limit.
    #[error("resource limits are not available here: {}", what.join("; "))]
    Unavailable {
        /// What is missing for which limit.
        what: Vec<String>,
    },
    /// The specification has a limit that is not implemented.
    #[error("resource limit {what} is not supported")]
    Unsupported {
        /// Its name.
        what: String,
    },
    /// The kernel refused.
    #[error("control group {}: {action}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: String,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    fn io(action: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action: action.into(),
            path: path.to_owned(),
            source,
        }
    }
}

/// The hierarchies of the host.
#[derive(Debug)]
pub struct Groups {
    hierarchies: Vec<Box<dyn Hierarchy>>,
    view: CgroupView,
}

impl Groups {
    /// Looks at what is mounted and where the process is in it.
    pub fn discover() -> Result<Self, CgroupError> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|e| CgroupError::io("read", Path::new(path), e))
        };
        // A kernel without control groups has no such file.
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = discover::parse(&own, &read("/proc/self/mountinfo")?);
        let privileged = !crate::namespace::in_user_namespace();
        let view = view(&found);
        let hierarchies = found
            .into_iter()
            .map(|found| match found.controllers {
                Some(controllers) => Box::new(Legacy::new(controllers, found.mountpoint, &found.own)) as _,
                None => Box::new(Unified::new(found.mountpoint, &found.own, privileged)) as _,
            })
            .collect();
        Ok(Self { hierarchies, view })
    }

    /// How they are shown inside a sandbox.
    pub fn view(&self) -> CgroupView {
        self.view.clone()
    }

    /// Names of the controllers that there are, and whether they are of the unified hierarchy.
    pub fn controllers(&self) -> Vec<(String, bool)> {
        self.hierarchies
            .iter()
            .flat_map(|hierarchy| {
                let unified = hierarchy.unified();
                hierarchy
                    .controllers()
                    .into_iter()
                    .map(move |name| (name, unified))
            })
            .collect()
    }

    /// Makes a group with limits, in `parent` if given (a path below where this program makes groups), else where all groups
    /// are. Where a limit cannot be applied nothing is left behind.
    pub fn create(
        &self,
        id: &str,
        resources: &LinuxResources,
        parent: Option<&Path>,
    ) -> Result<Group, CgroupError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let settings = settings(resources)?;
        let parent = parent.map(checked_parent).transpose()?;
        let mut unavailable = Vec::new();
        let mut wanted: Vec<(&dyn Hierarchy, Vec<&Setting>)> = Vec::new();
        if parent.is_some() {
            // Whatever is limited in the parent counts for the group, too.
            wanted.extend(self.limiting().map(|hierarchy| (hierarchy, Vec::new())));
        }
        for setting in &settings {
            let has = |h: &dyn Hierarchy| h.controllers().iter().any(|name| name == setting.controller);
            let Some(hierarchy) = self.hierarchies.iter().map(|h| &**h).find(|h| has(*h)) else {
                unavailable.push(format!(
                    "{}: no `{}` controller",
                    setting.what, setting.controller
                ));
                continue;
            };
            match wanted
                .iter_mut()
                .find(|(known, _)| known.base() == hierarchy.base())
            {
                Some((_, settings)) => settings.push(setting),
                None => wanted.push((hierarchy, vec![setting])),
            }
        }
        if !unavailable.is_empty() {
            return Err(CgroupError::Unavailable { what: unavailable });
        }
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let safe: String = id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(64)
            .collect();
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or_default();
        let name = format!("{pid}-{started}-{count}-{safe}");
        let mut group = Group {
            directories: Vec::new(),
        };
        for (hierarchy, settings) in wanted {
            match hierarchy.create(parent.as_deref(), &name, &settings) {
                Ok(directory) => group.directories.push(directory),
                Err(error) => {
                    // The first failure is the one to tell.
                    let _ = group.remove();
                    return Err(error);
                }
            }
        }
        Ok(group)
    }

    /// The hierarchies that limit something: not the one that only names groups.
    fn limiting(&self) -> impl Iterator<Item = &dyn Hierarchy> {
        let named = |name: &String| name.starts_with("name=");
        self.hierarchies
            .iter()
            .map(|hierarchy| &**hierarchy)
            .filter(move |hierarchy| {
                let controllers = hierarchy.controllers();
                !controllers.is_empty() && !controllers.iter().any(named)
            })
    }

    /// Removes groups whose owner is gone, with the processes still in them. Returns how many.
    pub fn sweep(&self) -> usize {
        let mut swept = 0;
        for hierarchy in &self.hierarchies {
            let Ok(entries) = std::fs::read_dir(hierarchy.base().join(PARENT)) else {
                continue;
            };
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let name = entry.file_name();
                if name.to_str().is_some_and(owner_is_gone) {
                    let group = Group {
                        directories: vec![entry.path()],
                    };
                    group.kill();
                    swept += usize::from(group.remove().is_ok());
                }
            }
        }
        swept
    }
}

/// A parent as a relative path. As a name of systemd's it would need systemd to make it.
fn checked_parent(parent: &Path) -> Result<PathBuf, CgroupError> {
    let relative = parent.strip_prefix("/").unwrap_or(parent);
    let names = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if relative.as_os_str().is_empty() || !names {
        let what = format!("cgroup parent {}", parent.display());
        return Err(CgroupError::Unsupported { what });
    }
    Ok(relative.to_owned())
}

fn view(found: &[Found]) -> CgroupView {
    let legacy: Vec<(String, String)> = found
        .iter()
        .filter_map(|found| {
            let controllers = found.controllers.as_ref()?;
            let directory = found.mountpoint.file_name()?.to_string_lossy().into_owned();
            let named = controllers.iter().any(|name| name.starts_with("name="));
            let mut option = controllers.join(",");
            if named {
                option.insert_str(0, "none,");
            }
            Some((directory, option))
        })
        .collect();
    if !legacy.is_empty() {
        return CgroupView::Legacy(legacy);
    }
    if found.is_empty() {
        CgroupView::None
    } else {
        CgroupView::Unified
    }
}

/// When a process was started, in the kernel's ticks: with the process id, a name for it that is
/// never used again.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may contain anything, but nothing after it contains a parenthesis.
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// Whether a group's name is one of ours and its owner does not run any more.
fn owner_is_gone(name: &str) -> bool {
    let mut parts = name.splitn(3, '-');
    let (Some(pid), Some(started), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let (Ok(pid), Ok(started)) = (pid.parse::<u32>(), started.parse::<u64>()) else {
        return false;
    };
    start_time(pid) != Some(started)
}

/// The groups of one sandbox.
#[derive(Debug)]
pub struct Group {
    directories: Vec<PathBuf>,
}

impl Group {
    /// Files to write a process id to.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.directories
            .iter()
            .map(|directory| directory.join("cgroup.procs"))
            .collect()
    }

    /// Its directories, one a hierarchy.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Whether the kernel killed a process of the group because its memory was used up.
    pub fn ran_out_of_memory(&self) -> bool {
        let killed = |text: String| {
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        };
        // v2 and v1; each hierarchy has one of them at most.
        self.directories.iter().any(|directory| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .filter_map(|file| std::fs::read_to_string(directory.join(file)).ok())
                .any(killed)
        })
    }

    fn kill(&self) {
        for file in self.procs_files() {
            for pid in std::fs::read_to_string(file).unwrap_or_default().lines() {
                if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                    // Gone is what is wanted.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }

    /// Removes it. Its processes must have been killed; the kernel may still need a moment.
    pub fn remove(self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + PATIENCE;
        let mut result = Ok(());
        for directory in self.directories.iter().rev() {
            let mut pause = Duration::from_micros(200);
            loop {
                match std::fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(error) => {
                        result = Err(CgroupError::io("remove", directory, error));
                        break;
                    }
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        assert!(!owner_is_gone(&format!("{pid}-{started}-0-x")));
        assert!(
            owner_is_gone(&format!("{pid}-{}-0-x", started + 1)),
            "a later process of the same id"
        );
        assert!(!owner_is_gone("somebody-elses-group"));
        assert!(!owner_is_gone("1"));
    }
}
