//! Mount options of a specification, taken apart.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// When reading updates the access time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AccessTime {
    /// As the kernel does by default.
    #[default]
    Relative,
    /// Never.
    Never,
    /// Always.
    Strict,
}

/// Attributes of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// Nothing can be written.
    pub read_only: bool,
    /// Set-uid bits have no effect.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Access times.
    pub access_time: AccessTime,
}

impl Attributes {
    /// `MOUNT_ATTR_*` bits.
    pub(crate) fn bits(self) -> u64 {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let access_time = match self.access_time {
            AccessTime::Relative => libc::MOUNT_ATTR_RELATIME,
            AccessTime::Never => libc::MOUNT_ATTR_NOATIME,
            AccessTime::Strict => libc::MOUNT_ATTR_STRICTATIME,
        };
        flag(self.read_only, libc::MOUNT_ATTR_RDONLY)
            | flag(self.no_suid, libc::MOUNT_ATTR_NOSUID)
            | flag(self.no_dev, libc::MOUNT_ATTR_NODEV)
            | flag(self.no_exec, libc::MOUNT_ATTR_NOEXEC)
            | access_time
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (on, name) in [
            (self.no_suid, "nosuid"),
            (self.no_dev, "nodev"),
            (self.no_exec, "noexec"),
            (self.access_time == AccessTime::Never, "noatime"),
            (self.access_time == AccessTime::Strict, "strictatime"),
        ] {
            if on {
                write!(f, ",{name}")?;
            }
        }
        Ok(())
    }
}

/// All options of one mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MountOptions {
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) attributes: Attributes,
    /// What is left is for the file system.
    pub(super) data: Vec<(String, Option<String>)>,
}

pub(super) fn parse(destination: &Path, options: &[String]) -> Result<MountOptions> {
    let mut parsed = MountOptions::default();
    let attributes = &mut parsed.attributes;
    for option in options {
        match option.as_str() {
            "bind" => parsed.bind = true,
            "rbind" => {
                parsed.bind = true;
                parsed.recursive = true;
            }
            "ro" | "rro" => attributes.read_only = true,
            "rw" => attributes.read_only = false,
            "nosuid" => attributes.no_suid = true,
            "suid" => attributes.no_suid = false,
            "nodev" => attributes.no_dev = true,
            "dev" => attributes.no_dev = false,
            "noexec" => attributes.no_exec = true,
            "exec" => attributes.no_exec = false,
            "noatime" => attributes.access_time = AccessTime::Never,
            "strictatime" => attributes.access_time = AccessTime::Strict,
            "relatime" | "atime" => attributes.access_time = AccessTime::Relative,
            // Every mount of a sandbox is private to its mount namespace, so that nothing it does
            // shows outside; asking for that or for slave propagation is asking for no more.
            "defaults" | "private" | "rprivate" | "slave" | "rslave" | "async" => {}
            "shared" | "rshared" | "unbindable" | "runbindable" | "idmap" | "ridmap" | "tmpcopyup" => {
                let destination = destination.display();
                return Err(Error::spec(format!(
                    "mount {destination}: option {option} is not supported"
                )));
            }
            other => parsed.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    if parsed.bind && !parsed.data.is_empty() {
        let (destination, name) = (destination.display(), &parsed.data[0].0);
        return Err(Error::spec(format!(
            "mount {destination}: a bind takes no option {name}"
        )));
    }
    Ok(parsed)
}
