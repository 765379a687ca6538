//! `kiln inspect`: images as JSON, with the fields of `docker image inspect`.

use std::process::ExitCode;

use kiln_cache::{ImageRecord, Store};
use kiln_image::ImageConfig;
use serde_json::{Value, json};

use crate::arguments::Inspect;
use crate::exit;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln inspect`: prints what was found even when something was not.
pub(crate) fn run(machine: &Machine, arguments: &Inspect) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let mut found = Vec::new();
    let mut failed = false;
    for image in &arguments.images {
        match inspect(&store, image) {
            Ok(value) => found.push(value),
            Err(failure) => {
                report::failure(&failure);
                failed = true;
            }
        }
    }
    super::print_json(&found)?;
    Ok(if failed {
        ExitCode::from(exit::FAILURE)
    } else {
        ExitCode::SUCCESS
    })
}

fn inspect(store: &Store, image: &str) -> Result<Value, Failure> {
    let record = store.images().require(image)?;
    let config = config(store, &record)?;
    let familiar = |names: &[String]| -> Vec<String> {
        let short = |name: &String| {
            name.parse::<kiln_image::Reference>()
                .ok()
                .map(|name| name.familiar())
        };
        names
            .iter()
            .map(|name| short(name).unwrap_or_else(|| name.clone()))
            .collect()
    };
    Ok(json!({
        "Id": record.id,
        "RepoTags": familiar(&record.names),
        "RepoDigests": record.repo_digests,
        "Comment": config.history.last().and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": record.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": record.size,
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
    }))
}

/// The configuration of an image of the store.
pub(super) fn config(store: &Store, record: &ImageRecord) -> Result<ImageConfig, Failure> {
    let bytes = store
        .blobs()
        .read(&record.config)?
        .ok_or_else(|| Failure::message(format!("the configuration of image {} is lost", record.id)))?;
    ImageConfig::parse(&bytes).map_err(|error| Failure::error(&error))
}
