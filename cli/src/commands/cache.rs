//! `kiln cache`.

pub(super) mod du;
pub(super) mod prune;

use std::fmt::Write as _;
use std::process::ExitCode;

use kiln_cache::verify;

use crate::arguments::{Cache, CacheVerify};
use crate::exit;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln cache …`.
pub(crate) fn run(machine: &Machine, command: &Cache) -> Result<ExitCode, Failure> {
    match command {
        Cache::Du(arguments) => du::run(machine, arguments),
        Cache::Prune(arguments) => prune::run(machine, arguments),
        Cache::Verify(arguments) => check(machine, arguments),
        Cache::Repair(arguments) => check(
            machine,
            &CacheVerify {
                repair: true,
                format: arguments.format.clone(),
            },
        ),
    }
}

/// Runs `kiln cache verify`: exit code 1 when something is damaged.
fn check(machine: &Machine, arguments: &CacheVerify) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "text")?;
    let store = machine.store()?;
    let options = verify::Options {
        owners: !machine.entered.user_namespace,
        devices: !machine.entered.user_namespace,
    };
    let report = verify::run(&store, options, &|_| {})?;
    let mut text = String::new();
    if as_json {
        let value = serde_json::json!({
            "records": report.records,
            "layers": report.layers,
            "entries": report.entries,
            "blobs": report.blobs,
            "blob_bytes": report.blob_bytes,
            "images": report.images,
            "unsynced": report.unsynced,
            "stale": report.stale,
            "damage": report.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        let _ = writeln!(text, "{value:#}");
    } else {
        let _ = writeln!(
            text,
            "checked {} records, {} layers with {} entries, {} blobs ({}), {} images",
            report.records,
            report.layers,
            report.entries,
            report.blobs,
            format::size(report.blob_bytes),
            report.images
        );
        for damage in &report.damage {
            let _ = writeln!(text, "damaged: {damage}");
        }
        let _ = writeln!(
            text,
            "{}",
            if report.damage.is_empty() {
                "no damage"
            } else {
                "damage found"
            }
        );
    }
    if arguments.repair && !report.damage.is_empty() {
        for warning in verify::repair(&store, &report)? {
            let _ = writeln!(text, "set aside: {warning}");
        }
    }
    super::print(&text)?;
    let repaired = report.damage.is_empty() || arguments.repair;
    Ok(if repaired {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILURE)
    })
}
