//! Cache mounts: directories of the store, taken for the time that a process runs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_cache::{CacheMount, Key, MountBase, MountIdentity, MountSharing};
use kiln_tree::Root;
use kiln_tree::copy::{CopyRequest, SourceTree};

use super::{Prepared, Request, bind};
use crate::error::StepFailure;
use crate::file::CopyTree;
use crate::graph::{Mount, MountKind, Sharing};
use crate::solve::{Chosen, Solve};

/// How often a waiting step looks whether a cache mount is free.
const PAUSE: Duration = Duration::from_millis(50);

/// Mode of a new directory that is filled from nothing.
const DEFAULT_MODE: u32 = 0o755;

/// One directory that a step wants, for one or several of its mounts.
struct Wanted<'a> {
    identity: MountIdentity,
    sharing: MountSharing,
    /// The first mount that wants it.
    mount: &'a Mount,
    seed: Option<Seed<'a>>,
    positions: Vec<usize>,
}

/// What a new directory begins with.
struct Seed<'a> {
    slot: usize,
    chosen: &'a Chosen,
}

impl Solve<'_> {
    /// Takes all directories that `mounts` want, by the mount's position. All steps of all processes take them in the
    /// same order, that of their keys: so two that wait for each other's cannot be.
    pub(super) fn take_caches(
        &self,
        mounts: &[Mount],
        request: &Request<'_>,
        prepared: &mut Prepared,
    ) -> Result<HashMap<usize, PathBuf>, StepFailure> {
        let mut wanted: BTreeMap<Key, Wanted<'_>> = BTreeMap::new();
        for (position, mount) in mounts.iter().enumerate() {
            let Some(new) = wanted_by(position, mount, request)? else {
                continue;
            };
            // A step does not wait for itself: mounts of one identity show one directory.
            wanted
                .entry(new.identity.key())
                .and_modify(|known| {
                    known.positions.push(position);
                    known.sharing = stricter(known.sharing, new.sharing);
                })
                .or_insert(new);
        }
        let mut paths = HashMap::new();
        for wanted in wanted.values() {
            let cache = self.take_cache(wanted, request)?;
            paths.extend(wanted.positions.iter().map(|position| (*position, cache.data())));
            prepared.caches.push(cache);
        }
        Ok(paths)
    }

    fn take_cache(&self, wanted: &Wanted<'_>, request: &Request<'_>) -> Result<CacheMount, StepFailure> {
        let part = format!("waiting for the cache mount {}", wanted.identity.id);
        let mut waiting = false;
        loop {
            let fill = |folder: &Path| self.fill(folder, wanted, request);
            let taken = self
                .engine
                .store
                .cache_mounts()
                .acquire(&wanted.identity, wanted.sharing, fill)?;
            if let Some(cache) = taken {
                if waiting {
                    request.task.progress(part, 0, None, true);
                }
                return Ok(cache);
            }
            if self.stop.is_raised() {
                return Err(StepFailure::Canceled);
            }
            request.task.progress(part.as_str(), 0, None, false);
            waiting = true;
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes an empty directory what the identity says.
    fn fill(&self, folder: &Path, wanted: &Wanted<'_>, request: &Request<'_>) -> Result<(), StepFailure> {
        let base = &wanted.identity.base;
        let (mut mode, mut uid, mut gid) = (DEFAULT_MODE, 0, 0);
        if let Some(seed) = &wanted.seed {
            let tree = self.seed_tree(seed, request)?;
            let [place] = seed.chosen.selection.places.as_slice() else {
                return Err(StepFailure::Graph("a mount of several places"));
            };
            let mut copy = CopyRequest::new(&tree, place.path.clone(), b"/");
            copy.follow_source_symlink = false;
            bind::copy_into(&copy, folder, request.task)?;
            if let Some(entry) = tree.listing().get(&place.path) {
                (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
            }
        }
        let (uid, gid) = (base.uid.unwrap_or(uid), base.gid.unwrap_or(gid));
        let root = Root::open(folder)?;
        match root.chown("/", uid, gid) {
            Ok(()) => {}
            // This user namespace has no such id: no process in a sandbox can be that user either.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => request.task.warn(
                format!(
                    "the cache mount {} keeps the owner of this user: {uid}:{gid} is not mapped here",
                    wanted.identity.id
                ),
                wanted.mount.span,
            ),
            Err(error) => return Err(error.into()),
        }
        Ok(root.chmod("/", base.mode.unwrap_or(mode))?)
    }

    fn seed_tree(&self, seed: &Seed<'_>, request: &Request<'_>) -> Result<CopyTree, StepFailure> {
        if let Some(view) = &seed.chosen.view {
            return Ok(CopyTree::Context(Arc::clone(view)));
        }
        let snapshot = self.input_snapshot(request.inputs, seed.slot)?;
        Ok(CopyTree::Snapshot(
            self.roots.readable(&snapshot)?,
            self.roots.listing(&snapshot)?,
        ))
    }
}

/// The directory that a mount wants; `None` when it is no cache mount.
fn wanted_by<'a>(
    position: usize,
    mount: &'a Mount,
    request: &Request<'a>,
) -> Result<Option<Wanted<'a>>, StepFailure> {
    let MountKind::Cache {
        namespace,
        id,
        sharing,
        input,
        mode,
        uid,
        gid,
        ..
    } = &mount.kind
    else {
        return Ok(None);
    };
    let seed = match input {
        Some(slot) => Some(Seed {
            slot: *slot,
            chosen: request
                .chosen
                .get(position)
                .and_then(Option::as_ref)
                .ok_or(StepFailure::Graph("a mount without a selection"))?,
        }),
        None => None,
    };
    if let Some(seed) = &seed
        && seed.chosen.selection.places.iter().any(|place| !place.is_dir)
    {
        return Err(StepFailure::Source {
            message: "the source of a cache mount is no directory".to_owned(),
            span: mount.span,
        });
    }
    // With nothing to begin with, saying the default is the same as not saying it.
    let or_default = |value: &Option<u32>, default: u32| match (value, &seed) {
        (None, None) => Some(default),
        (value, _) => *value,
    };
    let base = MountBase {
        mode: or_default(mode, DEFAULT_MODE),
        uid: or_default(uid, 0),
        gid: or_default(gid, 0),
        seed: seed.as_ref().map(|seed| seed.chosen.selection.hash),
    };
    Ok(Some(Wanted {
        identity: MountIdentity {
            namespace: namespace.clone(),
            id: id.clone(),
            base,
        },
        sharing: match sharing {
            Sharing::Shared => MountSharing::Shared,
            Sharing::Private => MountSharing::Private,
            Sharing::Locked => MountSharing::Locked,
        },
        mount,
        seed,
        positions: vec![position],
    }))
}

/// The sharing of one directory for two mounts of a step.
fn stricter(one: MountSharing, other: MountSharing) -> MountSharing {
    use MountSharing::{Locked, Private, Shared};
    match (one, other) {
        (Locked, _) | (_, Locked) => Locked,
        (Private, _) | (_, Private) => Private,
        (Shared, Shared) => Shared,
    }
}
