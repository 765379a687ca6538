//! What the store takes of the disk, and giving it back.
//!
//! [`Catalog`] says where the bytes are: it counts allocated blocks, every file of the store once, so its sum is what
//! the program `du` finds. What is in a layer is measured once and kept beside it (`layers/<id>/usage`).
//!
//! Images and what they are made of stay until the user removes them. All the rest is cache, a list of [`Item`]s. One
//! is deleted by renaming it into `tmp/`, under a lock that shows that no process uses it (`src/uses.rs`), after a look
//! at the images; so it is there whole, or not at all, and a killed deleter leaves rubbish only. The least recently
//! used goes first: a layer's `meta.json` and a blob have the time of their last use as mtime, and a layer is as
//! young as the youngest that stands on it.
//!
//! [`prune()`] deletes what a user wants to be gone, and looks at everything for it; a [`Keeper`] holds a ceiling and a
//! floor while commands run. Nobody waits for that, so it asks the index what goes with what, measures the store a part
//! at a time, and looks at everything only where the index cannot be asked.

mod attached;
mod catalog;
mod evict;
mod item;
mod known;
mod limits;
mod measure;
mod oldest;
mod prune;
mod roots;
mod size;
mod sums;
mod survey;
#[cfg(test)]
mod tests;
mod total;

pub(crate) use survey::USAGE_FILE;

pub use catalog::{Catalog, ImageUsage};
pub use item::{Item, ItemType};
pub use limits::{Amount, DiskLimits, Keeper};
pub use prune::{Filter, Keep, Prune, Pruned, Space, prune, prune_images};
pub use sums::Sum;

/// Says when something that takes long is to be given up.
pub(crate) type Stop<'a> = &'a dyn Fn() -> bool;

/// For what somebody waits for.
pub(crate) fn never() -> bool {
    false
}

/// An error, when it is time to give up.
fn check(stop: Stop<'_>, path: &std::path::Path) -> crate::Result<()> {
    if stop() {
        Err(crate::error::io("look at", path)(
            std::io::ErrorKind::Interrupted.into(),
        ))
    } else {
        Ok(())
    }
}

/// What a file takes of the disk, or a folder with everything in it; nothing for one that is not there.
pub fn bytes_of(path: &std::path::Path) -> crate::Result<u64> {
    measure::tree(path, &never).map_err(crate::error::io("measure", path))
}
