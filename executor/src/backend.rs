//! The trait behind which a sandbox is started, and what it is started from.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;

use crate::{Emulator, Result, Running, Stdio};

mod builtin;

pub use builtin::Builtin;

/// Everything that is needed to start one process.
#[derive(Debug)]
pub struct Sandbox {
    /// Short name, unique among running sandboxes of this process; part of the cgroup's name.
    pub id: String,
    /// The root: a detached mount as [`crate::overlay::mount`] returns it. `root.path` of the
    /// specification is not looked at, `root.readonly` is honoured.
    pub root: OwnedFd,
    /// OCI runtime specification; see [`crate::spec::default_for`].
    pub spec: Spec,
    /// Standard streams. [`Stdio::Terminal`] implies `process.terminal`.
    pub stdio: Stdio,
    /// What interprets the programs of the root, when they are not this machine's and the host has not registered
    /// it: see [`crate::emulation::support`].
    pub emulator: Option<Emulator>,
}

/// Something that can start a process in a sandbox: the built-in one, later any OCI runtime.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Starts the process. When this returns, its command has been executed: everything that can
    /// fail before (mounts, cgroups, a missing command) is an error here.
    fn start(&self, sandbox: Sandbox) -> Result<Running>;
}
