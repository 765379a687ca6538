//! Archives of `docker save`: `manifest.json`.

use serde::Deserialize;

use super::{
    ImageFiles, LoadError, LoadableImage, LoadableLayer, LoadableManifest, checked_config, parse_name,
};
use crate::{Digest, Reference, limits};

/// The file that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// One of its entries.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn entries(files: &mut ImageFiles) -> Result<Vec<Entry>, LoadError> {
    let bytes = files.required_document(MANIFEST, "an archive of docker save")?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|source| LoadError::Malformed {
        name: MANIFEST.to_owned(),
        source: Box::new(source),
    })?;
    if entries.len() > limits::INDEX_ENTRIES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: limits::INDEX_ENTRIES,
        });
    }
    Ok(entries)
}

/// The images that `manifest.json` lists.
pub(super) fn images(files: &mut ImageFiles) -> Result<Vec<LoadableImage>, LoadError> {
    let mut images = Vec::new();
    for entry in entries(files)? {
        let config_bytes = files.required_document(&entry.config, MANIFEST)?;
        let names = entry.layers.unwrap_or_default();
        let config = checked_config(&entry.config, &config_bytes, names.len())?;
        let mut layers = Vec::with_capacity(names.len());
        for (file, diff_id) in names.into_iter().zip(&config.rootfs.diff_ids) {
            if !files.contains(&file)? {
                let by = MANIFEST.to_owned();
                return Err(LoadError::Missing { name: file, by });
            }
            layers.push(LoadableLayer {
                diff_id: *diff_id,
                file,
                blob: None,
            });
        }
        images.push(LoadableImage {
            names: tags(entry.repo_tags)?,
            index: None,
            manifests: vec![LoadableManifest {
                platform: config.platform(),
                manifest: None,
                config,
                config_bytes,
                layers,
            }],
            incomplete: Vec::new(),
        });
    }
    Ok(images)
}

/// Gives images of a layout that have no name there those that `manifest.json` has for them.
pub(super) fn add_names(files: &mut ImageFiles, images: &mut [LoadableImage]) -> Result<(), LoadError> {
    for entry in entries(files)? {
        let Some(config) = files.get(&entry.config)? else {
            continue;
        };
        let is_it = |image: &&mut LoadableImage| {
            let mut configs = image.manifests.iter().map(|manifest| &manifest.config_bytes);
            image.names.is_empty() && configs.any(|bytes| Digest::sha256_of(bytes) == config.digest)
        };
        let names = tags(entry.repo_tags)?;
        if let Some(image) = images.iter_mut().find(is_it) {
            image.names = names;
        }
    }
    Ok(())
}

fn tags(tags: Option<Vec<String>>) -> Result<Vec<Reference>, LoadError> {
    tags.unwrap_or_default()
        .iter()
        .map(|tag| parse_name(tag))
        .collect()
}
