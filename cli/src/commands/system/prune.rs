//! `kiln system prune`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use kiln_cache::Store;
use kiln_cache::disk::{self, Filter, Prune, Pruned};
use kiln_container::{Container, Containers, Status};

use super::super::cache::prune::{confirm, deleted, total};
use super::super::prune::{ImageFilter, choose_images, remove_images};
use crate::arguments::SystemPrune;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln system prune`.
pub(super) fn run(machine: &Machine, arguments: &SystemPrune) -> Result<ExitCode, Failure> {
    let filter = ImageFilter::read(&arguments.filter, false)?;
    let store = machine.store()?;
    if !arguments.force && !arguments.dry_run && !confirm(&question(arguments, &filter))? {
        return Ok(ExitCode::SUCCESS);
    }
    let (stopped, stay) = containers(&store, &filter)?;
    let (mut text, mut bytes) = remove_containers(stopped, arguments.dry_run)?;
    let chosen = choose_images(&store, arguments.all, &filter, &stay)?;
    text += &remove_images(&store, &chosen, arguments.dry_run)?;
    let cache = if filter.has_labels() {
        // Cache has no labels, so nothing of it fits: only what the images leave behind goes.
        Pruned {
            bytes: disk::prune_images(&store, &chosen.images, arguments.dry_run)?.bytes,
            ..Pruned::default()
        }
    } else {
        let request = Prune {
            all: arguments.all,
            filter: Filter {
                unused_for: filter.age,
                ..Filter::default()
            },
            dry_run: arguments.dry_run,
            without: chosen.images.iter().map(|image| image.id).collect(),
            ..Prune::default()
        };
        if filter.age.is_some() && !arguments.dry_run {
            // They are old enough, however lately their layers were looked at.
            bytes += disk::prune_images(&store, &chosen.images, false)?.bytes;
        }
        disk::prune(&store, &request)?
    };
    text += &deleted(&cache, arguments.dry_run);
    text += &total(bytes + cache.bytes, arguments.dry_run);
    super::super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Docker's words.
fn question(arguments: &SystemPrune, filter: &ImageFilter) -> String {
    let mut text = "WARNING! This will remove:\n  - all stopped containers\n".to_owned();
    text += if arguments.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    };
    if !filter.has_labels() {
        text += if arguments.all {
            "  - all build cache\n"
        } else {
            "  - unused build cache\n"
        };
    }
    if !arguments.filter.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        for filter in &arguments.filter {
            let _ = writeln!(text, "  - {filter}");
        }
    }
    text + "\n"
}

/// The containers that go, and those that stay.
fn containers(store: &Arc<Store>, filter: &ImageFilter) -> Result<(Vec<Container>, Vec<Container>), Failure> {
    let (mut go, mut stay) = (Vec::new(), Vec::new());
    for container in Containers::new(store).list()? {
        let state = container.state();
        // One that was created and is not run yet may be in the hands of its `kiln run`: its lock tells when it is
        // removed.
        let mut goes = state.status == Status::Exited && filter.is_old(Some(&state.created));
        if goes && filter.has_labels() {
            // A container has the labels of its image.
            let image = state
                .options
                .image
                .map(|id| store.images().by_id(&id))
                .transpose()?;
            goes = filter.fits_image(store, image.flatten().as_ref())?;
        }
        if goes { &mut go } else { &mut stay }.push(container);
    }
    Ok((go, stay))
}

/// Removes them; returns what was done, and what they took.
fn remove_containers(stopped: Vec<Container>, dry_run: bool) -> Result<(String, u64), Failure> {
    let (mut ids, mut bytes) = (String::new(), 0);
    for container in stopped {
        let size = disk::bytes_of(container.folder())?;
        let id = container.state().id.clone();
        if !dry_run && let Err(error) = container.remove(false) {
            // Somebody runs it by now.
            report::warning(&report::chain(&error));
            continue;
        }
        bytes += size;
        let _ = writeln!(ids, "{id}");
    }
    let text = match (ids.is_empty(), dry_run) {
        (true, _) => ids,
        (false, true) => format!("Containers that would be deleted:\n{ids}\n"),
        (false, false) => format!("Deleted Containers:\n{ids}\n"),
    };
    Ok((text, bytes))
}
