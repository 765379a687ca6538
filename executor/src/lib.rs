//! One process in a sandbox.
//!
//! The input is an OCI runtime specification ([`oci_spec::runtime::Spec`]) and a root: a detached
//! mount, usually an overlay made by [`overlay::mount`]. A [`Backend`] starts the process and hands
//! back a [`Running`], with its streams or its terminal.
//!
//! The way of the data:
//!
//! 1. [`namespace::enter`], once and before any thread exists, moves the whole process into a mount
//!    namespace of its own (and, for an ordinary user, a user namespace). All mounts made after that
//!    are private to the process and vanish with it, even after `kill -9`.
//! 2. [`overlay::mount`] stacks layers; [`mountpoints::write_stub_layer`] supplies the bottom-most
//!    layer that holds empty mountpoints, so that none is ever made in an upperdir.
//! 3. [`spec::default_for`] builds a specification with Docker's defaults.
//! 4. [`Builtin`] turns the specification into a [`plan::Plan`] (data, derived by a pure function),
//!    seals it into a memfd, and starts `/proc/self/exe` in new namespaces with `CLONE_VFORK`.
//! 5. In the child, [`init::main_if_init`], called first thing in `main`, carries the plan out and
//!    executes the command, which is then PID 1 of its pid namespace.
//!
//! Nothing here reads the environment or prints. All `unsafe` of the project is in the private module `sys`.

mod attached;
pub mod backend;
pub mod capabilities;
pub mod cgroup;
pub mod emulation;
pub mod error;
pub mod init;
pub mod memory;
mod message;
pub mod mountpoints;
pub mod namespace;
pub mod overlay;
pub mod plan;
pub mod probe;
pub mod running;
pub mod seccomp;
pub mod spec;
pub mod stdio;
mod surroundings;
#[expect(unsafe_code, reason = "the one place for it; every block states why it holds")]
mod sys;

pub use attached::Attached;
pub use backend::{Backend, Builtin, Sandbox};
pub use emulation::Emulator;
pub use error::{CommandError, Error, Result};
pub use nix::sys::signal::Signal;
pub use oci_spec::runtime;
pub use running::{ExitStatus, Running};
pub use stdio::{Stdio, Stream, WindowSize};
