//! What a step's process sees over its root: the mounts of an [`Exec`], made ready for a sandbox.
//!
//! Everything that is mounted gets a path of the host first ([`Prepared`] keeps it alive while the process runs):
//! [`bind`] finds or makes it for files of other inputs, [`cache`] takes a directory of the store. [`stub`] sees to
//! it that mountpoints exist without being made in the layer.

mod bind;
mod cache;
mod stub;

pub(crate) use bind::ContextPart;

use std::path::{Path, PathBuf};

use kiln_cache::{CacheMount, TempDir};
use kiln_executor::spec::{Bind, SpecBuilder};
use kiln_executor::{Attached, overlay, runtime};

use crate::error::StepFailure;
use crate::graph::{Exec, Mount, MountKind, VertexId};
use crate::lend::Lent;
use crate::solve::{Chosen, Solve};
use crate::task::Task;

/// The mounts of one process, ready. To be dropped after the process has ended.
///
/// The order of the fields is that of their end: first nothing is mounted any more, then others get the cache
/// mounts, then the folders go.
#[derive(Default)]
pub(crate) struct Prepared {
    ready: Vec<Ready>,
    attached: Vec<Attached>,
    caches: Vec<CacheMount>,
    lent: Lent,
    folders: Vec<TempDir>,
    /// Mountpoints, to be stacked below everything else.
    stub: Option<TempDir>,
}

/// One mount as the sandbox wants it.
#[derive(Debug)]
enum Ready {
    Bind(Bind),
    Tmpfs { target: String, options: Vec<String> },
    Lent(Box<runtime::Mount>),
}

impl Prepared {
    /// The folder with mountpoints that is to be stacked below everything else.
    pub(crate) fn stub(&self) -> Option<&Path> {
        self.stub.as_ref().map(TempDir::path)
    }

    /// Adds the mounts to a specification, outer ones first.
    pub(crate) fn add_to(&self, mut builder: SpecBuilder) -> SpecBuilder {
        for mount in &self.ready {
            builder = match mount {
                Ready::Bind(bind) => builder.bind(bind.clone()),
                Ready::Tmpfs { target, options } => {
                    let options: Vec<&str> = options.iter().map(String::as_str).collect();
                    builder.tmpfs(target, &options)
                }
                Ready::Lent(mount) => builder.mount(mount.as_ref().clone()),
            };
        }
        builder
    }

    /// Sets the variables that are lent to the process, over those of the same name.
    pub(crate) fn set_variables(&self, env: &mut Vec<String>) {
        self.lent.set_variables(env);
    }
}

/// What a step's mounts are made from.
#[derive(Clone, Copy)]
struct Request<'a> {
    inputs: &'a [VertexId],
    /// What the mounts select, by their position.
    chosen: &'a [Option<Chosen>],
    task: &'a Task,
}

impl Request<'_> {
    fn chosen(&self, position: usize) -> Result<&Chosen, StepFailure> {
        let chosen = self.chosen.get(position).and_then(Option::as_ref);
        chosen.ok_or(StepFailure::Graph("a mount without a selection"))
    }
}

impl Solve<'_> {
    /// Makes everything ready that `exec` mounts. May wait for a cache mount that another process has.
    pub(crate) fn prepare_mounts(
        &self,
        exec: &Exec,
        base: &kiln_cache::Snapshot,
        inputs: &[VertexId],
        chosen: &[Option<Chosen>],
        task: &Task,
    ) -> Result<Prepared, StepFailure> {
        let mut prepared = Prepared::default();
        if exec.mounts.is_empty() {
            return Ok(prepared);
        }
        let request = Request { inputs, chosen, task };
        let folder = self.engine.store.temp().dir()?;
        prepared.lent = Lent::new(exec, self.request, folder.path())?;
        prepared.folders.push(folder);
        let points = points(&exec.mounts, &request, &prepared.lent)?;
        let present: Vec<stub::Point<'_>> = points.iter().flatten().copied().collect();
        let caches = self.take_caches(&exec.mounts, &request, &mut prepared)?;
        for (position, mount) in exec.mounts.iter().enumerate() {
            let source = match &mount.kind {
                MountKind::Bind { input, .. } => {
                    let outer = points.get(position).copied().flatten();
                    let inner = outer.map_or_else(Vec::new, |outer| stub::inside(&present, &outer));
                    self.bind_source(
                        mount,
                        *input,
                        request.chosen(position)?,
                        &inner,
                        &request,
                        &mut prepared,
                    )?
                }
                MountKind::Cache { .. } => caches
                    .get(&position)
                    .cloned()
                    .ok_or(StepFailure::Graph("a cache mount without a directory"))?,
                MountKind::Tmpfs { size } => {
                    prepared.ready.push(tmpfs(mount, *size));
                    continue;
                }
                MountKind::Secret { .. } | MountKind::Ssh { .. } => {
                    // What the request does not have, and need not have, is not there.
                    let lent = prepared.lent.mount(&mount.target);
                    prepared
                        .ready
                        .extend(lent.map(|mount| Ready::Lent(Box::new(mount))));
                    continue;
                }
            };
            prepared.ready.push(Ready::Bind(Bind {
                source,
                target: PathBuf::from(&mount.target),
                read_only: mount.read_only,
            }));
        }
        prepared.stub = self.stub_layer(base, &stub::outside(&present))?;
        Ok(prepared)
    }
}

/// Where each mount goes, and whether a file or a directory; nowhere when what it lends is missing.
fn points<'a>(
    mounts: &'a [Mount],
    request: &Request<'_>,
    lent: &Lent,
) -> Result<Vec<Option<stub::Point<'a>>>, StepFailure> {
    let mut points = Vec::with_capacity(mounts.len());
    for (position, mount) in mounts.iter().enumerate() {
        let directory = match &mount.kind {
            MountKind::Bind { .. } => {
                let places = &request.chosen(position)?.selection.places;
                places.first().is_some_and(|place| place.is_dir)
            }
            MountKind::Cache { .. } | MountKind::Tmpfs { .. } => true,
            MountKind::Secret { .. } | MountKind::Ssh { .. } if lent.mount(&mount.target).is_none() => {
                points.push(None);
                continue;
            }
            MountKind::Secret { .. } | MountKind::Ssh { .. } => false,
        };
        points.push(Some(stub::Point {
            target: &mount.target,
            directory,
        }));
    }
    Ok(points)
}

fn tmpfs(mount: &Mount, size: Option<u64>) -> Ready {
    let mut options: Vec<String> = size.map(|size| format!("size={size}")).into_iter().collect();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    Ready::Tmpfs {
        target: mount.target.clone(),
        options,
    }
}

fn mount_failed(error: overlay::OverlayError) -> StepFailure {
    StepFailure::Mount(error.into())
}
