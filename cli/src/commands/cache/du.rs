//! `kiln cache du`.

use std::process::ExitCode;

use kiln_cache::disk::{Catalog, ImageUsage, Item, ItemType, Sum};
use kiln_image::Reference;
use serde_json::{Value, json};

use crate::arguments::CacheDu;
use crate::format;
use crate::machine::Machine;
use crate::progress::visible;
use crate::report::Failure;
use crate::table::Table;

/// As much of a step is shown.
const STEP_WIDTH: usize = 72;

/// As much of an id tells it from others.
const ID_WIDTH: usize = 19;

/// Runs `kiln cache du`.
pub(super) fn run(machine: &Machine, arguments: &CacheDu) -> Result<ExitCode, Failure> {
    let as_json = super::super::is_json(arguments.format.as_deref(), "table")?;
    let store = machine.store()?;
    let catalog = Catalog::read(&store)?;
    if as_json {
        super::super::print_json(&everything(&catalog))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    if arguments.verbose {
        text += &details(&catalog);
    }
    text += &sums(&catalog);
    super::super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Every image, and every thing of the cache.
pub(in crate::commands) fn details(catalog: &Catalog) -> String {
    let kinds = ItemType::ALL.into_iter();
    let cache: String = kinds.map(|kind| items(kind, &catalog.items)).collect();
    images(&catalog.images) + &cache
}

fn sums(catalog: &Catalog) -> String {
    let mut table = Table::new(&["KIND", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"]);
    let mut reclaimable = 0;
    for sum in catalog.sums() {
        reclaimable += sum.reclaimable;
        let cells = [sum.bytes, sum.shared_bytes, sum.reclaimable].map(format::size);
        let count = if sum.count > 0 || sum.bytes == 0 {
            sum.count.to_string()
        } else {
            String::new()
        };
        table.row([sum.name.to_owned(), count].into_iter().chain(cells).collect());
    }
    table.row(vec![
        "total".to_owned(),
        String::new(),
        format::size(catalog.total()),
        String::new(),
        format::size(reclaimable),
    ]);
    table.render()
}

fn images(images: &[ImageUsage]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["IMAGE", "IMAGE ID", "SIZE", "SHARED", "EXCLUSIVE"]);
    let mut images: Vec<&ImageUsage> = images.iter().collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.bytes));
    for image in images {
        table.row(vec![
            name(image),
            format::id(&image.id, false),
            format::size(image.bytes),
            format::size(image.shared_bytes),
            format::size(image.bytes - image.shared_bytes),
        ]);
    }
    table.render() + "\n"
}

/// The first name of an image, as people type it.
fn name(image: &ImageUsage) -> String {
    let familiar = |name: &String| {
        name.parse::<Reference>()
            .map_or_else(|_| name.clone(), |reference| reference.familiar())
    };
    image.names.first().map_or_else(|| "<none>".to_owned(), familiar)
}

fn items(kind: ItemType, items: &[Item]) -> String {
    let mut of: Vec<&Item> = items.iter().filter(|item| item.kind == kind).collect();
    if of.is_empty() {
        return String::new();
    }
    // The largest first: that is what one wants to know. When it would be deleted is in the last column but one.
    of.sort_by_key(|item| std::cmp::Reverse(item.bytes + item.shared_bytes));
    let last = if kind == ItemType::Regular { "STEP" } else { "NAME" };
    let mut table = Table::new(&["ID", "TYPE", "SIZE", "SHARED", "IN USE", "LAST USED", last]);
    for item in of {
        let shown = visible(item.description.as_bytes());
        table.row(vec![
            item.id.chars().take(ID_WIDTH).collect(),
            kind.name().to_owned(),
            format::size(item.bytes + item.shared_bytes),
            format::size(item.shared_bytes),
            if item.in_use { "yes" } else { "no" }.to_owned(),
            last_used(item.used_ms),
            format::ellipsis(&shown, STEP_WIDTH),
        ]);
    }
    table.render() + "\n"
}

/// How long ago.
pub(in crate::commands) fn last_used(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let text = at.map(|at| at.to_string());
    format::ago(text.as_deref(), jiff::Timestamp::now())
}

/// Everything, for programs.
pub(in crate::commands) fn everything(catalog: &Catalog) -> Value {
    let sum = |sum: &Sum| {
        json!({
            "Kind": sum.name, "Count": sum.count, "Size": sum.bytes, "SharedSize": sum.shared_bytes,
            "Reclaimable": sum.reclaimable,
        })
    };
    let image = |image: &ImageUsage| {
        json!({
            "ID": image.id.to_string(), "Names": image.names, "Created": image.created, "Size": image.bytes,
            "SharedSize": image.shared_bytes, "UniqueSize": image.bytes - image.shared_bytes,
        })
    };
    json!({
        "Total": catalog.total(),
        "Sums": catalog.sums().iter().map(sum).collect::<Vec<_>>(),
        "Images": catalog.images.iter().map(image).collect::<Vec<_>>(),
        "Cache": catalog.items.iter().map(item).collect::<Vec<_>>(),
    })
}

/// A thing of the cache, for programs.
pub(in crate::commands) fn item(item: &Item) -> Value {
    json!({
        "ID": item.id, "Type": item.kind.name(), "Description": item.description, "Size": item.bytes,
        "SharedSize": item.shared_bytes, "Shared": item.is_shared(), "InUse": item.in_use,
        "CreatedMs": item.created_ms, "LastUsedMs": item.used_ms,
    })
}
