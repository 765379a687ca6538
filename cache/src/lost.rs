//! What the disk did not take.
//!
//! The kernel takes writes into memory and finds out later whether the disk takes them. If not, it still counts the
//! pages as written, and drops them when it needs the memory: a file then has other bytes than were written, in the
//! running boot already. Which file that was is not told. So whoever hears of it leaves an empty file
//! `synced/lost/<boot id>.<from>.<to>`: nothing that is stamped with these epochs is believed any more, by anybody.
//! They begin after what a sync has found on disk, and what is published later is stamped with later ones.
//!
//! The disk that failed may not take this file either, or forget it when it is mounted again. So it is written to a
//! folder in memory, too, `<runtime>/lost/<of which store>.<boot id>.<from>.<to>`, and comes to the store before the
//! next sync counts.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use crate::{BootId, Result, Stamp, error, files};

/// Epochs of a boot, the first and the last one included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Epochs {
    boot: BootId,
    from: u64,
    to: u64,
}

impl Epochs {
    fn name(&self) -> String {
        format!("{}.{}.{}", self.boot, self.from, self.to)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut words = name.split('.');
        let epochs = Self {
            boot: words.next()?.parse().ok()?,
            from: words.next()?.parse().ok()?,
            to: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(epochs)
    }
}

/// What is known to be lost of a store, as it was when this process opened it.
#[derive(Debug)]
pub(crate) struct Lost {
    boot: BootId,
    folder: PathBuf,
    /// The folder in memory, and how the names of this store begin there.
    runtime: Option<(PathBuf, String)>,
    known: BTreeSet<Epochs>,
}

impl Lost {
    pub(crate) fn new(root: &Path, runtime: Option<&Path>, boot: &BootId) -> Result<Self> {
        let of_store = || {
            let hash = blake3::hash(root.as_os_str().as_encoded_bytes());
            format!("{}.", &hash.to_hex()[..32])
        };
        let mut lost = Self {
            boot: boot.clone(),
            folder: root.join("synced/lost"),
            runtime: runtime.map(|runtime| (runtime.join("lost"), of_store())),
            known: BTreeSet::new(),
        };
        lost.known = lost.read()?;
        Ok(lost)
    }

    fn read(&self) -> Result<BTreeSet<Epochs>> {
        let names = files::names(&self.folder)?;
        let mut found: BTreeSet<Epochs> = names.iter().filter_map(|name| Epochs::parse(name)).collect();
        if let Some((folder, prefix)) = &self.runtime {
            // A folder that this user may not read is none that this user's processes wrote to.
            let names = files::names(folder).unwrap_or_default();
            let of_store = names.iter().filter_map(|name| name.strip_prefix(prefix.as_str()));
            found.extend(of_store.filter_map(Epochs::parse));
        }
        Ok(found)
    }

    fn of_boot<'a>(&self, all: &'a BTreeSet<Epochs>) -> impl Iterator<Item = &'a Epochs> {
        all.iter().filter(move |epochs| epochs.boot == self.boot)
    }

    /// Whether what has this stamp may be torn.
    pub(crate) fn covers(&self, stamp: &Stamp) -> bool {
        let holds =
            |epochs: &Epochs| epochs.boot == stamp.boot && (epochs.from..=epochs.to).contains(&stamp.epoch);
        self.known.iter().any(holds)
    }

    /// Whether something was lost in the running boot: then what is in memory need not be what is on disk.
    pub(crate) fn any(&self) -> bool {
        self.of_boot(&self.known).next().is_some()
    }

    /// The first epoch of the running boot that nothing is known to be lost of, nor of any later one.
    pub(crate) fn next_epoch(&self) -> u64 {
        let last = self.of_boot(&self.known).map(|epochs| epochs.to).max();
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// Whether more was lost since this process opened the store.
    pub(crate) fn more(&self) -> Result<bool> {
        let now = self.read()?;
        Ok(self.of_boot(&now).any(|epochs| !self.known.contains(epochs)))
    }

    /// Makes known that these epochs are lost. The first error, if it could be told nowhere.
    pub(crate) fn note(&self, from: u64, to: u64) -> Result<()> {
        let boot = self.boot.clone();
        let name = Epochs { boot, from, to }.name();
        let kept = leave(&self.folder, &name);
        let told = match &self.runtime {
            Some((folder, prefix)) => leave(folder, &format!("{prefix}{name}")).is_ok(),
            None => false,
        };
        if told { Ok(()) } else { kept }
    }

    /// Has the store itself say what was so far only said in memory.
    pub(crate) fn keep(&self) -> Result<()> {
        for epochs in self.of_boot(&self.known) {
            let name = epochs.name();
            if !self.folder.join(&name).exists() {
                leave(&self.folder, &name)?;
            }
        }
        Ok(())
    }
}

/// An empty file: the folder alone has to reach the disk.
fn leave(folder: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(error::io("create", folder))?;
    let path = folder.join(name);
    File::create(&path).map_err(error::io("create", &path))?;
    files::sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn lost(root: &Path, runtime: Option<&Path>, boot: &str) -> Lost {
        Lost::new(root, runtime, &boot.parse().unwrap()).unwrap()
    }

    fn stamp(boot: &str, epoch: u64) -> Stamp {
        Stamp {
            boot: boot.parse().unwrap(),
            epoch,
        }
    }

    #[test]
    fn what_is_noted_is_known_to_the_next() {
        let dir = Scratch::new();
        let first = lost(dir.path(), None, "aa");
        assert!(!first.any());
        first.note(3, 5).unwrap();
        assert!(first.more().unwrap(), "this process does not know of it");
        let second = lost(dir.path(), None, "aa");
        assert!(second.any() && !second.more().unwrap());
        assert_eq!(second.next_epoch(), 6);
        for (epoch, is_lost) in [(2, false), (3, true), (5, true), (6, false)] {
            assert_eq!(second.covers(&stamp("aa", epoch)), is_lost, "{epoch}");
        }
        // In another boot it is the stamps of that one that are lost, and nothing of this one.
        let later = lost(dir.path(), None, "bb");
        assert!(!later.any() && !later.more().unwrap());
        assert_eq!(later.next_epoch(), 0);
        assert!(later.covers(&stamp("aa", 4)) && !later.covers(&stamp("bb", 4)));
    }

    #[test]
    fn a_store_that_takes_nothing_is_spoken_for_in_memory() {
        let (dir, runtime) = (Scratch::new(), Scratch::new());
        let folder = dir.path().join("synced/lost");
        std::fs::create_dir(dir.path().join("synced")).unwrap();
        std::os::unix::fs::symlink("nowhere", &folder).unwrap();
        lost(dir.path(), None, "aa").note(1, 2).unwrap_err();
        lost(dir.path(), Some(runtime.path()), "aa").note(1, 2).unwrap();
        std::fs::remove_file(&folder).unwrap();

        let next = lost(dir.path(), Some(runtime.path()), "aa");
        assert!(next.covers(&stamp("aa", 1)));
        next.keep().unwrap();
        assert!(lost(dir.path(), None, "bb").covers(&stamp("aa", 1)));
        assert!(
            !lost(&dir.path().join("other"), Some(runtime.path()), "aa").any(),
            "it is of another store"
        );
    }

    #[test]
    fn other_names_say_nothing() {
        let dir = Scratch::new();
        let folder = dir.path().join("synced/lost");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["aa.1", "aa.1.x", "aa.1.2.3", "AA.1.2", ".1.2", "aa.-1.2"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(lost(dir.path(), None, "aa").known, BTreeSet::new());
    }
}
