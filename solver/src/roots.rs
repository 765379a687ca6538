//! Snapshots as mounted roots, and as merged listings.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_cache::{LayerDraft, LayerId, Snapshot, Store, TempDir};
use kiln_executor::mountpoints;
use kiln_executor::overlay::{self, Overlay};
use kiln_tree::{ContentHash, Listing, Root};

use crate::error::StepFailure;
use crate::mounts::ContextPart;
use crate::remote_cache::import::Imports;

/// Gives snapshots a form in which steps can use them. Shared by all steps of a build.
pub(crate) struct Roots<'a> {
    store: Arc<Store>,
    imports: Arc<Imports<'a>>,
    merged: Mutex<HashMap<ContentHash, Arc<Listing>>>,
    /// Mountpoints for sandboxes, made when the first one starts.
    stub: Mutex<Option<TempDir>>,
    /// Parts of local directories that steps mount.
    context_parts: Mutex<Vec<ContextPart>>,
}

impl<'a> Roots<'a> {
    pub(crate) fn new(store: Arc<Store>, imports: Arc<Imports<'a>>) -> Self {
        Self {
            store,
            imports,
            merged: Mutex::default(),
            stub: Mutex::default(),
            context_parts: Mutex::default(),
        }
    }

    /// The snapshot with `draft`'s upperdir on top. The upperdir has the mode and owner of the root below it.
    pub(crate) fn writable(&self, snapshot: &Snapshot, draft: &LayerDraft) -> Result<Root, StepFailure> {
        let lowers = self.store.layers().lowers(snapshot)?;
        if lowers.is_empty() {
            return Ok(Root::open(&draft.diff_path())?);
        }
        Ok(Root::from_fd(mount_writable(&lowers, draft)?))
    }

    /// The snapshot with `draft`'s upperdir on top and a stub below everything, as a detached mount for a
    /// sandbox: the stub holds mountpoints for what a sandbox mounts, so that none is made in the upperdir. `more` holds
    /// those for what this step mounts.
    pub(crate) fn sandbox(
        &self,
        snapshot: &Snapshot,
        draft: &LayerDraft,
        more: Option<&Path>,
    ) -> Result<OwnedFd, StepFailure> {
        let mut lowers = self.store.layers().lowers(snapshot)?;
        lowers.push(self.stub()?);
        lowers.extend(more.map(Path::to_owned));
        mount_writable(&lowers, draft)
    }

    /// The stub layer of this build: no sandbox can write to it, so one serves all.
    fn stub(&self) -> Result<PathBuf, StepFailure> {
        let mut stub = self.stub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stub) = stub.as_ref() {
            return Ok(stub.path().to_owned());
        }
        let folder = self.store.temp().dir()?;
        let path = folder.path().to_owned();
        mountpoints::write_stub_layer(&path).map_err(|source| StepFailure::Io {
            path: path.clone(),
            source,
        })?;
        *stub = Some(folder);
        Ok(path)
    }

    /// The parts of local directories that were copied for mounts so far.
    pub(crate) fn context_parts(&self) -> MutexGuard<'_, Vec<ContextPart>> {
        self.context_parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the draft's root folder the mode and owner of the snapshot's root, since an overlay shows those of
    /// its upperdir.
    pub(crate) fn inherit_root(&self, snapshot: &Snapshot, draft: &LayerDraft) -> Result<(), StepFailure> {
        if let Some(top) = self.store.layers().lowers(snapshot)?.first() {
            let metadata = Root::open(top)?.stat("/")?;
            draft.set_root(metadata.mode, metadata.uid, metadata.gid)?;
        }
        Ok(())
    }

    /// The snapshot, read-only.
    pub(crate) fn readable(&self, snapshot: &Snapshot) -> Result<Root, StepFailure> {
        readable(&self.store, snapshot)
    }

    /// What is in the snapshot, whiteouts applied.
    pub(crate) fn listing(&self, snapshot: &Snapshot) -> Result<Arc<Listing>, StepFailure> {
        let key = snapshot.content_key();
        if let Some(listing) = self
            .merged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(Arc::clone(listing));
        }
        let merged = merged_listing(snapshot, |id| match self.store.layers().get(id)? {
            Some(layer) => Ok(layer.listing()?),
            None => Ok(self
                .imports
                .listing(id)
                .ok_or_else(|| kiln_cache::Error::LayerMissing(id.clone()))?),
        })?;
        self.merged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::clone(&merged));
        Ok(merged)
    }
}

/// A snapshot whose layers are all in the store, read-only.
pub(crate) fn readable(store: &Store, snapshot: &Snapshot) -> Result<Root, StepFailure> {
    let lowers = store.layers().lowers(snapshot)?;
    match lowers.as_slice() {
        [] => {
            let empty = store.temp().dir()?;
            Ok(Root::open(empty.path())?)
        }
        [single] => Ok(Root::open(single)?),
        _ => {
            let overlay = Overlay {
                lowers: &lowers,
                upper: None,
                volatile: false,
            };
            Ok(Root::from_fd(overlay::mount(&overlay).map_err(mount_failed)?))
        }
    }
}

/// What is in a snapshot, whiteouts applied, from the listings of its layers.
pub(crate) fn merged_listing(
    snapshot: &Snapshot,
    mut listing: impl FnMut(&LayerId) -> Result<Arc<Listing>, StepFailure>,
) -> Result<Arc<Listing>, StepFailure> {
    let mut merged = Arc::new(Listing::default());
    for id in &snapshot.layers {
        let listing = listing(id)?;
        if !listing.is_empty() {
            merged = Arc::new(Listing::merge(&merged, &listing));
        }
    }
    Ok(merged)
}

fn mount_writable(lowers: &[PathBuf], draft: &LayerDraft) -> Result<OwnedFd, StepFailure> {
    let (diff, work) = (draft.diff_path(), draft.work_path());
    let overlay = Overlay {
        lowers,
        upper: Some((&diff, &work)),
        volatile: true,
    };
    overlay::mount(&overlay).map_err(mount_failed)
}

fn mount_failed(error: overlay::OverlayError) -> StepFailure {
    StepFailure::Mount(error.into())
}
