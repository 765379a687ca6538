//! Containers: one process (and its children) on a writable layer over an image.
//!
//! A [`Container`] is a folder of the store, `containers/<id>/`:
//!
//! ```text
//! container.json   what was asked for, and how it ended      (replaced by rename)
//! lock             held exclusively while the process runs: who can take it knows that it has ended
//! diff/ work/      the overlay's upperdir and workdir: the container's own changes
//! hosts resolv.conf hostname   bound over the files of the image
//! ```
//!
//! [`Containers::create`] makes the folder, [`Container::start`] mounts the layers and runs the process in the
//! foreground, [`Container::remove`] deletes the folder. A container whose process was killed together with the
//! `kiln` that ran it is found by its free lock and counts as exited.

mod containers;
mod error;
mod name;
mod options;
mod process;
mod state;
mod volume;

pub use containers::{Container, Containers};
pub use error::{Error, Result};
pub use options::RunOptions;
pub use state::{ContainerState, HostProcess, Status};
pub use volume::{Volume, VolumeError};
