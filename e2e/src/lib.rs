//! What the end-to-end tests of the `kiln` binary are made of.
//!
//! The tests build real Dockerfiles with the real binary, export what was built, and read the export with [`oci`],
//! a slow and simple reader that shares no code with Kiln: a second opinion on every layer, digest and config.
//!
//! - [`measure`] runs a command and tells its time and memory.
//! - [`oci`] reads an OCI layout (or a `docker save` archive) into an [`oci::Image`]: config and merged [`tree::Tree`].
//! - [`tree`] is a file tree as data: it renders, compares and subtracts.
//! - [`case`] is one folder of `testdata/build`: a context, how to build it, and what must come out.
//! - [`builder`] builds with Kiln, or with a peer (Buildah, Docker), behind one enum.
//! - [`differences`] compares two builds, less what a list explains.
//! - [`crafted`] makes images and layers that no tool would make, and [`hostile_registry`] serves them.
//! - [`faults`] is what the fault runs are made of: one store, several processes, kills, full disks, flipped bytes.
//! - [`machine`] is what the tests know about the machine: binaries, base images, temporary folders.
//! - [`progress`] reads the plain progress output.
//! - [`project`] is a context that a test changes between builds.
//! - [`random`] gives random numbers that can be had again.
//! - [`remote`] serves files and git repositories.
//! - [`server`] is a real registry.
//! - [`trial`] turns functions into tests that pass, fail, or are skipped with a reason.

pub mod base;
pub mod builder;
pub mod case;
pub mod crafted;
pub mod differences;
pub mod faults;
pub mod hostile_registry;
pub mod machine;
pub mod measure;
pub mod oci;
pub mod progress;
pub mod project;
pub mod random;
pub mod remote;
pub mod server;
pub mod tree;
pub mod trial;

/// What went wrong, in words: a test has no use for finer types.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Fails with a formatted message.
#[macro_export]
macro_rules! bail {
    ($($argument:tt)*) => { return Err(format!($($argument)*).into()) };
}

/// Fails with a formatted message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($argument:tt)*) => { if !$condition { $crate::bail!($($argument)*); } };
}
