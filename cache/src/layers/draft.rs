//! A layer in the making, and how it gets its place in the store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_tree::Listing;

use super::{
    Inode, LayerId, LayerMeta, META, MetaRead,
    meta::{KIND, VERSION},
    read_meta,
};
use crate::{Result, TempDir, error, lease, remove, sealed, store::Shared};

/// A layer in the making: `tmp/<owner>/<n>/layer/diff` and beside it the overlay's work folder. Dropped, it is
/// deleted.
#[derive(Debug)]
pub struct LayerDraft {
    shared: Arc<Shared>,
    dir: TempDir,
}

impl LayerDraft {
    pub(super) fn new(shared: &Arc<Shared>, dir: TempDir) -> Self {
        Self {
            shared: Arc::clone(shared),
            dir,
        }
    }

    /// The folder to fill, or to mount as an overlay's upperdir. It becomes the layer as it is.
    pub fn diff_path(&self) -> PathBuf {
        self.dir.path().join("layer/diff")
    }

    /// The overlay's workdir, on the same filesystem.
    pub fn work_path(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Gives the root folder of the layer its mode and owner.
    pub fn set_root(&self, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let path = self.diff_path();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))
            .map_err(error::io("set the owner of", &path))?;
        rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(mode & 0o7777))
            .map_err(error::errno("set the mode of", &path))
    }

    /// Renames the draft to its place. `None` if another one was there first.
    pub(super) fn publish(
        self,
        id: &LayerId,
        listing: &Listing,
        created_ms: u64,
    ) -> Result<Option<LayerMeta>> {
        let from = self.dir.path().join("layer");
        let path = from.join("listing");
        let mut bytes = Vec::new();
        listing
            .write_to(&mut bytes)
            .and_then(|()| std::fs::write(&path, &bytes))
            .map_err(error::io("write", &path))?;
        let to = self.shared.root.join("layers").join(id.as_str());
        let (size, content) = (total_size(listing), listing.content_hash());
        let place = Inode::of(&from)?;
        let (meta, won) = self.shared.durability.publish(|stamp| {
            let meta = LayerMeta {
                id: id.clone(),
                size,
                entries: listing.len() as u64,
                content,
                created_ms,
                stamp: stamp.clone(),
                place: Some(place),
            };
            let path = from.join(META);
            std::fs::write(&path, sealed::seal(KIND, VERSION, &meta)?).map_err(error::io("write", &path))?;
            Ok((meta, self.rename(&from, &to, id)?))
        })?;
        if won {
            // Every entry takes some room, however small it is.
            let small = BESIDE + listing.len() as u64;
            self.shared
                .add_published(size + bytes.len() as u64 + 4096 * small);
        }
        Ok(won.then_some(meta))
    }

    fn rename(&self, from: &Path, to: &Path, id: &LayerId) -> Result<bool> {
        let taken = |source: &std::io::Error| {
            matches!(
                source.kind(),
                std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
            )
        };
        match std::fs::rename(from, to) {
            Ok(()) => return Ok(true),
            Err(source) if taken(&source) => {}
            Err(source) => return Err(error::io("publish", to)(source)),
        }
        // Something is there. Only under the lock may it be judged and taken away: else two replacers could each
        // take away what the other has just published and somebody has mounted.
        let _turn = lease::short(&self.shared.root, "layers")?;
        if let MetaRead::Good(meta) = read_meta(to, id)? {
            if self.shared.durability.trusted(&meta.stamp) {
                return Ok(false);
            }
            if self.shared.durability.is_of_boot(&meta.stamp) {
                // What the disk did not take may still be mounted: its files stay.
                let reason = "the disk may not have taken it when it was written";
                self.shared.warn(self.shared.set_aside(to, reason));
                std::fs::rename(from, to).map_err(error::io("publish", to))?;
                return Ok(true);
            }
        }
        let worthless = self.shared.temp.away();
        match std::fs::rename(to, &worthless) {
            Ok(()) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(error::io("replace", to)(source)),
        }
        std::fs::rename(from, to).map_err(error::io("publish", to))?;
        // What is left over is swept later.
        let _ = remove::tree(&worthless);
        Ok(true)
    }
}

/// What comes with a layer: its two folders, its listing and metadata, the step's records by definition and by content,
/// each in a folder that may be new, the step's log.
const BESIDE: u64 = 10;

fn total_size(listing: &Listing) -> u64 {
    let size = |entry: &kiln_tree::Entry| match entry.kind {
        kiln_tree::EntryKind::File { size, .. } => size,
        _ => 0,
    };
    listing.entries().iter().map(size).fold(0, u64::saturating_add)
}
