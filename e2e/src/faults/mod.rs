//! What the fault runs are made of: one store that several processes work on, and what is done to it.
//!
//! - [`programs`] are the Dockerfiles, and what each must come to.
//! - [`site`] is the store with a registry, a server of files and folders around it.
//! - [`jobs`] are the commands that are run on the store, chosen at random.
//! - [`crew`] runs them, four at a time, and kills some.
//! - [`disk`] is a small file system that fills.
//! - [`thin`] is a disk that takes writes and loses them later.
//! - [`flips`] changes bytes of the store's files.
//! - [`checks`] says whether all is well afterwards.

pub mod checks;
pub mod crew;
pub mod disk;
pub mod flips;
pub mod jobs;
pub mod programs;
pub mod site;
pub mod thin;

/// Tells how it goes, on standard error: a fault run takes its time.
pub fn say(line: &str) {
    use std::io::Write as _;
    // Nothing depends on it.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
