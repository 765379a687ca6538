//! `kiln image`.

use std::process::ExitCode;

use kiln_cache::disk;
use kiln_container::Containers;

use super::cache::prune::{confirm, total};
use super::prune::{Chosen, ImageFilter, choose_images, remove_images};
use crate::arguments::{Image, ImagePrune};
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln image …`.
pub(crate) fn run(machine: &Machine, command: &Image) -> Result<ExitCode, Failure> {
    match command {
        Image::Prune(arguments) => prune(machine, arguments),
    }
}

fn prune(machine: &Machine, arguments: &ImagePrune) -> Result<ExitCode, Failure> {
    let filter = ImageFilter::read(&arguments.filter, true)?;
    let all = arguments.all || filter.dangling == Some(false);
    let store = machine.store()?;
    let what = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let question = format!("WARNING! This will remove {what}.\n");
    if !arguments.force && !arguments.dry_run && !confirm(&question)? {
        return Ok(ExitCode::SUCCESS);
    }
    let containers = Containers::new(&store).list()?;
    let chosen: Chosen = choose_images(&store, all, &filter, &containers)?;
    let mut text = remove_images(&store, &chosen, arguments.dry_run)?;
    let pruned = disk::prune_images(&store, &chosen.images, arguments.dry_run)?;
    text += &total(pruned.bytes, arguments.dry_run);
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
