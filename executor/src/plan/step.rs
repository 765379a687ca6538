//! The steps a plan consists of.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Attributes;
use crate::WindowSize;

/// One step of the setup. Paths of targets are absolute in the sandbox's root and never lead out of
/// it, whatever symbolic links it contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Mount a new file system.
    Mount {
        /// Its type.
        filesystem: String,
        /// Where.
        target: PathBuf,
        /// Options of the file system.
        options: Vec<(String, Option<String>)>,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Show a file or directory of the host.
    Bind {
        /// Path on the host.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// With everything mounted below.
        recursive: bool,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Make a device node or fifo.
    Node {
        /// Where.
        target: PathBuf,
        /// `c`, `b` or `p`.
        kind: char,
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Make a symbolic link, replacing what is there.
    Symlink {
        /// Where.
        target: PathBuf,
        /// What it says.
        to: PathBuf,
    },
    /// Make the terminal, and show it as `/dev/console`.
    Terminal {
        /// Its size.
        size: Option<WindowSize>,
    },
    /// Change a mount that an earlier step made: its access becomes as in the attributes.
    Remount {
        /// Where.
        target: PathBuf,
        /// Attributes of the mount.
        attributes: Attributes,
    },
    /// Hide a file behind `/dev/null`, a directory behind an empty one; skip what does not exist.
    Mask {
        /// What.
        target: PathBuf,
    },
    /// Make a path read-only; skip what does not exist.
    ReadOnly {
        /// What.
        target: PathBuf,
    },
    /// Make the root itself read-only.
    ReadOnlyRoot,
    /// Set a kernel parameter.
    Sysctl {
        /// Name with dots.
        name: String,
        /// Value.
        value: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount {
                filesystem,
                target,
                options,
                attributes,
            } => {
                write!(f, "mount {filesystem} {} {attributes}", target.display())?;
                for (key, value) in options {
                    match value {
                        Some(value) => write!(f, " {key}={value}")?,
                        None => write!(f, " {key}")?,
                    }
                }
                Ok(())
            }
            Self::Bind {
                source,
                target,
                recursive,
                attributes,
            } => {
                let verb = if *recursive { "rbind" } else { "bind" };
                write!(f, "{verb} {} {} {attributes}", source.display(), target.display())
            }
            Self::Node {
                target,
                kind,
                major,
                minor,
                mode,
                uid,
                gid,
            } => {
                write!(
                    f,
                    "node {} {kind} {major}:{minor} {mode:o} {uid}:{gid}",
                    target.display()
                )
            }
            Self::Symlink { target, to } => write!(f, "symlink {} -> {}", target.display(), to.display()),
            Self::Terminal { .. } => write!(f, "terminal"),
            Self::Remount { target, attributes } => write!(f, "remount {} {attributes}", target.display()),
            Self::Mask { target } => write!(f, "mask {}", target.display()),
            Self::ReadOnly { target } => write!(f, "read-only {}", target.display()),
            Self::ReadOnlyRoot => write!(f, "read-only root"),
            Self::Sysctl { name, value } => write!(f, "sysctl {name}={value}"),
        }
    }
}
