//! Archives of `docker save` of before 2016: `repositories`, and a folder a layer with `json` and `layer.tar`.
//!
//! There an image is its top layer, and each layer names its parent. What is a configuration today is put together of
//! all of them; the DiffIDs are those of the tars.

use std::collections::BTreeMap;
use std::fs::File;

use serde::Deserialize;

use super::{ImageFiles, LoadError, LoadableImage, LoadableLayer, LoadableManifest};
use crate::layer::Encoding;
use crate::{Config, Digest, History, ImageConfig, Reference, limits};

/// Repository to tag to top layer.
pub(super) const REPOSITORIES: &str = "repositories";

/// A layer's `json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Layer {
    parent: Option<String>,
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<Config>,
    container_config: Option<Command>,
}

/// What made a layer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Command {
    cmd: Option<Vec<String>>,
}

/// The images that `repositories` lists.
pub(super) fn images(files: &mut ImageFiles) -> Result<Vec<LoadableImage>, LoadError> {
    let bytes = files.required_document(REPOSITORIES, "an archive of docker save")?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> = json(REPOSITORIES, &bytes)?;
    let mut tops: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, top) in tags {
            let name = super::parse_name(&format!("{repository}:{tag}"))?;
            tops.entry(top).or_default().push(name);
        }
    }
    if tops.len() > limits::INDEX_ENTRIES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: limits::INDEX_ENTRIES,
        });
    }
    let mut images = Vec::with_capacity(tops.len());
    for (top, names) in tops {
        images.push(LoadableImage {
            names,
            index: None,
            manifests: vec![image(files, &top)?],
            incomplete: Vec::new(),
        });
    }
    Ok(images)
}

fn image(files: &mut ImageFiles, top: &str) -> Result<LoadableManifest, LoadError> {
    let mut chain = Vec::new();
    let mut by = REPOSITORIES.to_owned();
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        // So are layers that are their own ancestors.
        if chain.len() == limits::LAYERS {
            return Err(LoadError::TooMany {
                what: "layers",
                limit: limits::LAYERS,
            });
        }
        let name = format!("{id}/json");
        let bytes = files.required_document(&name, &by)?;
        let layer: Layer = json(&name, &bytes)?;
        next = layer.parent.clone().filter(|parent| !parent.is_empty());
        by = name;
        chain.push((id, layer));
    }
    chain.reverse();
    let mut config = ImageConfig::default();
    let mut layers = Vec::with_capacity(chain.len());
    for (id, layer) in &chain {
        let file = format!("{id}/layer.tar");
        let diff_id = diff_id(files, &file, &format!("{id}/json"))?;
        config.rootfs.diff_ids.push(diff_id);
        config.history.push(History {
            created: layer.created.clone(),
            created_by: layer
                .container_config
                .as_ref()
                .and_then(|command| command.cmd.as_ref())
                .map(|command| command.join(" ")),
            author: layer.author.clone().filter(|author| !author.is_empty()),
            comment: layer.comment.clone().filter(|comment| !comment.is_empty()),
            ..History::default()
        });
        layers.push(LoadableLayer {
            diff_id,
            file,
            blob: None,
        });
    }
    if let Some((_, top)) = chain.pop() {
        config.created = top.created;
        config.author = top.author.filter(|author| !author.is_empty());
        config.architecture = top.architecture.unwrap_or_else(|| "amd64".to_owned());
        config.os = top.os.unwrap_or_else(|| "linux".to_owned());
        config.config = top.config.unwrap_or_default();
    }
    Ok(LoadableManifest {
        platform: config.platform(),
        manifest: None,
        config_bytes: config.to_bytes(),
        config,
        layers,
    })
}

/// The digest of a layer's tar.
fn diff_id(files: &mut ImageFiles, name: &str, by: &str) -> Result<Digest, LoadError> {
    let file = files.require(name, by)?;
    let encoding = File::open(&file.path).and_then(Encoding::of_reader);
    let encoding = encoding.map_err(|source| LoadError::File {
        operation: "read",
        path: file.path.clone(),
        source,
    })?;
    if encoding == Encoding::Plain {
        return Ok(file.digest);
    }
    let plain = files.decompressed(&file)?;
    super::files::remove(&plain.path)?;
    Ok(plain.digest)
}

fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Malformed {
        name: name.to_owned(),
        source: Box::new(source),
    })
}
