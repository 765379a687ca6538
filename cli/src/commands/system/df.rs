//! `kiln system df`.

use std::process::ExitCode;

use kiln_cache::disk::{self, Catalog};
use kiln_container::{Container, Containers, Status};
use serde_json::json;

use super::super::cache::du;
use super::super::list::List;
use super::super::prune::used_images;
use crate::arguments::SystemDf;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;

/// One line of Docker's table.
struct Row {
    name: &'static str,
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
    /// Docker tells the percentage of all but the cache.
    percent: bool,
}

/// Runs `kiln system df`.
pub(super) fn run(machine: &Machine, arguments: &SystemDf) -> Result<ExitCode, Failure> {
    let as_json = super::super::is_json(arguments.format.as_deref(), "table")?;
    let store = machine.store()?;
    let catalog = Catalog::read(&store)?;
    let containers = Containers::new(&store).list()?;
    let sizes = containers
        .iter()
        .map(|container| disk::bytes_of(container.folder()))
        .collect::<Result<Vec<u64>, _>>()?;
    if as_json && arguments.verbose {
        let mut value = du::everything(&catalog);
        let list = containers.iter().zip(&sizes).map(|(container, size)| {
            let state = container.state();
            json!({ "ID": state.id, "Names": state.name, "Image": state.options.image_name, "Size": size })
        });
        value["Containers"] = list.collect();
        super::super::print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"];
    let mut list = List::new(false, arguments.format.as_deref(), &heading)?;
    for row in rows(&catalog, &containers, &sizes) {
        let (size, reclaimable) = (format::size(row.bytes), reclaimable(&row));
        let json = || {
            json!({
                "Type": row.name, "TotalCount": row.total.to_string(), "Active": row.active.to_string(), "Size": size,
                "Reclaimable": reclaimable, "Bytes": row.bytes, "ReclaimableBytes": row.reclaimable,
            })
        };
        let cells = || {
            vec![
                row.name.to_owned(),
                row.total.to_string(),
                row.active.to_string(),
                size.clone(),
                reclaimable.clone(),
            ]
        };
        list.add(row.name, json, cells);
    }
    let mut text = list.render();
    if arguments.verbose {
        text += "\n";
        text += &details(&catalog, &containers, &sizes)?;
    }
    super::super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(catalog: &Catalog, containers: &[Container], sizes: &[u64]) -> [Row; 4] {
    let active = used_images(containers);
    let images = catalog.image_bytes();
    let is_running = |container: &Container| container.state().status == Status::Running;
    let held: u64 = sizes.iter().sum();
    let idle = containers.iter().zip(sizes);
    let idle: u64 = idle
        .filter(|(container, _)| !is_running(container))
        .map(|(_, size)| size)
        .sum();
    let free = catalog.items.iter().filter(|item| !item.in_use);
    [
        Row {
            name: "Images",
            total: catalog.images.len(),
            active: catalog
                .images
                .iter()
                .filter(|image| active.contains(&image.id))
                .count(),
            bytes: images,
            reclaimable: catalog.bytes_of_other_images(&active),
            percent: true,
        },
        Row {
            name: "Containers",
            total: containers.len(),
            active: containers
                .iter()
                .filter(|container| is_running(container))
                .count(),
            bytes: held,
            reclaimable: idle,
            percent: true,
        },
        Row {
            name: "Local Volumes",
            total: 0,
            active: 0,
            bytes: 0,
            reclaimable: 0,
            percent: true,
        },
        Row {
            name: "Build Cache",
            total: catalog.items.len(),
            active: catalog.items.iter().filter(|item| item.in_use).count(),
            // All the rest, so that the column adds up to what the disk has.
            bytes: catalog.total().saturating_sub(images + held),
            reclaimable: free.map(|item| item.bytes).sum(),
            percent: false,
        },
    ]
}

fn reclaimable(row: &Row) -> String {
    let size = format::size(row.reclaimable);
    if row.percent && row.bytes > 0 {
        let percent = u128::from(row.reclaimable) * 100 / u128::from(row.bytes);
        format!("{size} ({percent}%)")
    } else {
        size
    }
}

fn details(catalog: &Catalog, containers: &[Container], sizes: &[u64]) -> Result<String, Failure> {
    let heading = ["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "NAMES"];
    let mut list = List::new(false, None, &heading)?;
    let now = jiff::Timestamp::now();
    for (container, size) in containers.iter().zip(sizes) {
        let state = container.state();
        let cells = || {
            vec![
                state.id.chars().take(12).collect(),
                state.options.image_name.clone(),
                format::size(*size),
                format::ago(Some(&state.created), now),
                state.name.clone(),
            ]
        };
        list.add(&state.id, || json!({}), cells);
    }
    let containers = if containers.is_empty() {
        String::new()
    } else {
        list.render() + "\n"
    };
    Ok(du::details(catalog) + &containers)
}
