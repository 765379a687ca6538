//! Files and directories of other inputs, for a process to see.
//!
//! What is in the store never changes, so a read-only mount of a stage or an image shows its layers as they are; a
//! writable one has an upperdir over them that is thrown away.
//!
//! A local directory is the user's: no process may write to it, its files may change under way, their owners are not
//! those that a build shows (root), and what the ignore file excludes must not be seen. So what a mount selects of it is
//! copied first, each file checked against the hash that is in the step's key. That costs one copy of the selected
//! files in each build in which such a step really runs (extents are shared where the file system can), and is done
//! once a build for all steps that mount the same. The copy is not kept: a later build must see the files' times as they
//! are then, which no content hash covers and which tools like make and cargo go by.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::TempDir;
use kiln_executor::Attached;
use kiln_executor::overlay::{self, Overlay};
use kiln_tree::copy::{self, CopyError, CopyRequest};
use kiln_tree::{Root, TreePath};

use super::stub::{self, Point};
use super::{Prepared, Request, mount_failed};
use crate::context::ContextView;
use crate::error::StepFailure;
use crate::file::{self, CopyTree};
use crate::graph::Mount;
use crate::select::Place;
use crate::solve::{Chosen, Solve};
use crate::task::Task;

/// What a copy of a part of a local directory is called in its folder.
const COPIED: &str = "source";

/// A part of a local directory that was copied.
#[derive(Debug)]
pub(crate) struct ContextPart {
    view: Arc<ContextView>,
    path: TreePath,
    folder: Arc<TempDir>,
}

impl Solve<'_> {
    /// The path of the host that the mount shows. `inner` are the mountpoints in it.
    pub(super) fn bind_source(
        &self,
        mount: &Mount,
        slot: usize,
        chosen: &Chosen,
        inner: &[Point<'_>],
        request: &Request<'_>,
        prepared: &mut Prepared,
    ) -> Result<PathBuf, StepFailure> {
        let [place] = chosen.selection.places.as_slice() else {
            return Err(StepFailure::Graph("a mount of several places"));
        };
        let (mut lowers, path) = if let Some(view) = &chosen.view {
            let folder = self.context_part(view, place, request.task)?;
            let copied = TreePath::clean(COPIED).unwrap_or_default();
            (vec![folder.path().to_owned()], copied)
        } else {
            let snapshot = self.input_snapshot(request.inputs, slot)?;
            (self.engine.store.layers().lowers(&snapshot)?, place.path.clone())
        };
        if lowers.is_empty() {
            lowers.push(self.folder(prepared)?);
        }
        if place.is_dir && !inner.is_empty() {
            let folder = self.folder(prepared)?;
            for point in inner {
                let mut below = path.as_bytes().to_vec();
                below.extend_from_slice(point.target.as_bytes());
                stub::make(&folder, &below, point.directory)?;
            }
            lowers.push(folder);
        }
        let root = match lowers.as_slice() {
            [single] if mount.read_only => single.clone(),
            _ => self.attach(&lowers, !mount.read_only, prepared)?,
        };
        Ok(root.join(path.as_path()))
    }

    /// A new empty folder, root's and open to all, that lives as long as the mounts.
    fn folder(&self, prepared: &mut Prepared) -> Result<PathBuf, StepFailure> {
        let folder = self.engine.store.temp().dir()?;
        let path = folder.path().join("root");
        create(&path)?;
        prepared.folders.push(folder);
        Ok(path)
    }

    /// Stacks `lowers` and makes them visible; with an upperdir when it is `writable`.
    fn attach(
        &self,
        lowers: &[PathBuf],
        writable: bool,
        prepared: &mut Prepared,
    ) -> Result<PathBuf, StepFailure> {
        let folder = self.engine.store.temp().dir()?;
        let [at, upper, work] = ["at", "upper", "work"].map(|name| folder.path().join(name));
        create(&at)?;
        if writable {
            create(&upper)?;
            create(&work)?;
            // An overlay shows its upperdir's own looks.
            if let Some(top) = lowers.first() {
                let metadata = Root::open(top)?.stat("/")?;
                let root = Root::open(&upper)?;
                root.chown("/", metadata.uid, metadata.gid)?;
                root.chmod("/", metadata.mode)?;
            }
        }
        let overlay = Overlay {
            lowers,
            upper: writable.then_some((upper.as_path(), work.as_path())),
            volatile: true,
        };
        let mounted = overlay::mount(&overlay).map_err(mount_failed)?;
        let attached = Attached::new(mounted.as_fd(), &at).map_err(|source| StepFailure::Io {
            path: at.clone(),
            source,
        })?;
        prepared.attached.push(attached);
        prepared.folders.push(folder);
        Ok(at)
    }

    /// A folder with a copy of `place` of a local directory, called [`COPIED`].
    fn context_part(
        &self,
        view: &Arc<ContextView>,
        place: &Place,
        task: &Task,
    ) -> Result<Arc<TempDir>, StepFailure> {
        // Held while copying: steps that want the same wait for one copy.
        let mut parts = self.roots.context_parts();
        let known = parts
            .iter()
            .find(|part| Arc::ptr_eq(&part.view, view) && part.path == place.path);
        if let Some(part) = known {
            return Ok(Arc::clone(&part.folder));
        }
        let folder = Arc::new(self.engine.store.temp().dir()?);
        let tree = CopyTree::Context(Arc::clone(view));
        let destination = format!("/{COPIED}");
        let mut copy = CopyRequest::new(&tree, place.path.clone(), destination.as_bytes());
        copy.follow_source_symlink = false;
        // The directory itself, with its looks; the context's own root has none and becomes root's.
        copy.copy_dir_contents = place.path.is_root();
        copy_into(&copy, folder.path(), task)?;
        parts.push(ContextPart {
            view: Arc::clone(view),
            path: place.path.clone(),
            folder: Arc::clone(&folder),
        });
        Ok(folder)
    }
}

/// Copies into a folder; tells what cannot be done here.
pub(super) fn copy_into(request: &CopyRequest<'_>, folder: &Path, task: &Task) -> Result<(), StepFailure> {
    let copied = copy::copy(request, &Root::open(folder)?).map_err(|source| match source {
        CopyError::Changed { path } => StepFailure::SourceChanged { path, attempts: 1 },
        source => StepFailure::Copy {
            destination: String::from_utf8_lossy(request.source_path.as_bytes()).into_owned(),
            source,
        },
    })?;
    for warning in file::warnings(copied.refused) {
        task.warn(warning, None);
    }
    Ok(())
}

/// Makes a directory with mode 0755, whatever the umask says.
fn create(path: &Path) -> Result<(), StepFailure> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|source| StepFailure::Io {
            path: path.to_owned(),
            source,
        })
}
