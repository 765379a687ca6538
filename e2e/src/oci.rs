//! Reads an exported image: an OCI layout or a `docker save` archive, as a tar file.
//!
//! Slow and strict on purpose: every blob's digest and size, every DiffID and the shape of the history are checked, and
//! whatever is odd about the layer tars is told in [`Image::problems`].

mod layer;

use self::layer::apply_layer;
use crate::tree::Tree;
use crate::{Result, bail, ensure};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// An image as it was read.
#[derive(Debug)]
pub struct Image {
    /// The image config, as it stands in its blob.
    pub config: Value,
    /// `sha256:<hex>` of the config: the image id.
    pub id: String,
    /// The file tree of all layers together.
    pub tree: Tree,
    /// DiffIDs from the lowest layer upwards.
    pub diff_ids: Vec<String>,
    /// What breaks no reader but should not be so: unsorted, repeated or parentless tar entries.
    pub problems: Vec<String>,
}

/// Lower-case hex sha256.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let halves = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves
        .filter_map(|half| char::from_digit(half.into(), 16))
        .collect()
}

/// Reads all images of the archive's only index, each with the platform that the index gives it. The index lies in a
/// blob of its own, as buildx and `docker save` have it.
pub fn read_index(archive: &Path) -> Result<Vec<(String, Image)>> {
    let files = archive_files(archive)?;
    let top: Value = serde_json::from_slice(files.get("index.json").ok_or("there is no index.json")?)?;
    let entries = top["manifests"]
        .as_array()
        .ok_or("index.json without manifests")?;
    ensure!(entries.len() == 1, "index.json names {} things", entries.len());
    ensure!(
        entries[0]["mediaType"] == "application/vnd.oci.image.index.v1+json",
        "index.json does not name an index but {}",
        entries[0]
    );
    let index: Value = serde_json::from_slice(blob(&files, &entries[0])?)?;
    ensure!(
        index["schemaVersion"] == 2,
        "the index has schemaVersion {}",
        index["schemaVersion"]
    );
    let mut images = Vec::new();
    for entry in index["manifests"].as_array().ok_or("index without manifests")? {
        let part = |name: &str| entry["platform"][name].as_str();
        let names = [part("os"), part("architecture"), part("variant")];
        let platform: Vec<&str> = names.into_iter().flatten().collect();
        let image = read_manifest(&files, entry)?;
        for name in ["os", "architecture", "variant"] {
            ensure!(
                image.config[name] == entry["platform"][name],
                "the index says {} and the config {}",
                entry["platform"],
                image.config[name]
            );
        }
        images.push((platform.join("/"), image));
    }
    Ok(images)
}

/// Reads the archive's only image.
pub fn read(archive: &Path) -> Result<Image> {
    let files = archive_files(archive)?;
    if let Some(index) = files.get("index.json") {
        ensure!(
            files.contains_key("oci-layout"),
            "the layout has no oci-layout file"
        );
        let index: Value = serde_json::from_slice(index)?;
        read_layout(&files, &index)
    } else if let Some(manifest) = files.get("manifest.json") {
        read_docker_archive(&files, &serde_json::from_slice(manifest)?)
    } else {
        bail!("{} holds neither index.json nor manifest.json", archive.display())
    }
}

/// All regular files of a tar in memory. Links inside the archive (docker save writes some) are followed once.
fn archive_files(archive: &Path) -> Result<HashMap<String, Vec<u8>>> {
    let file = File::open(archive).map_err(|error| format!("open {}: {error}", archive.display()))?;
    let mut tar = tar::Archive::new(BufReader::new(file));
    let (mut files, mut links) = (HashMap::new(), Vec::new());
    for entry in tar.entries()? {
        let mut entry = entry?;
        let name = entry
            .path()?
            .to_string_lossy()
            .trim_start_matches("./")
            .to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                files.insert(name, bytes);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry
                    .link_name()?
                    .map(|target| target.to_string_lossy().into_owned());
                links.push((name, target.unwrap_or_default()));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        let target = target.trim_start_matches("../").to_owned();
        if let Some(bytes) = files.get(&target).cloned() {
            files.insert(name, bytes);
        }
    }
    Ok(files)
}

/// The blob that a descriptor names, with its digest and size checked.
fn blob<'a>(files: &'a HashMap<String, Vec<u8>>, descriptor: &Value) -> Result<&'a [u8]> {
    let digest = descriptor["digest"].as_str().ok_or("descriptor without digest")?;
    let hex = digest
        .strip_prefix("sha256:")
        .ok_or_else(|| format!("digest {digest} is not sha256"))?;
    let bytes = files
        .get(&format!("blobs/sha256/{hex}"))
        .ok_or_else(|| format!("blob {digest} is missing"))?;
    ensure!(
        sha256(bytes) == hex,
        "blob {digest} has other content than its digest says"
    );
    let size = descriptor["size"].as_u64().ok_or("descriptor without size")?;
    ensure!(
        size == bytes.len() as u64,
        "blob {digest} has {} bytes, its descriptor says {size}",
        bytes.len()
    );
    Ok(bytes)
}

fn read_layout(files: &HashMap<String, Vec<u8>>, index: &Value) -> Result<Image> {
    let mut descriptor = only_image(index)?.clone();
    // docker save and buildx put an index into the index.
    while descriptor["mediaType"]
        .as_str()
        .is_some_and(|media_type| media_type.contains("index"))
    {
        let inner: Value = serde_json::from_slice(blob(files, &descriptor)?)?;
        descriptor = only_image(&inner)?.clone();
    }
    read_manifest(files, &descriptor)
}

fn read_manifest(files: &HashMap<String, Vec<u8>>, descriptor: &Value) -> Result<Image> {
    let manifest: Value = serde_json::from_slice(blob(files, descriptor)?)?;
    ensure!(
        manifest["schemaVersion"] == 2,
        "manifest has schemaVersion {}",
        manifest["schemaVersion"]
    );
    let config_bytes = blob(files, &manifest["config"])?;
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array().ok_or("manifest without layers")? {
        layers.push(decompress(blob(files, layer)?, layer["mediaType"].as_str())?);
    }
    assemble(config_bytes, &layers)
}

/// The one manifest of an index that is an image; attestations do not count.
fn only_image(index: &Value) -> Result<&Value> {
    let manifests = index["manifests"].as_array().ok_or("index without manifests")?;
    let images: Vec<&Value> = manifests
        .iter()
        .filter(|entry| entry["platform"]["os"] != "unknown")
        .collect();
    ensure!(
        images.len() == 1,
        "the index names {} images, one was expected",
        images.len()
    );
    Ok(images[0])
}

fn read_docker_archive(files: &HashMap<String, Vec<u8>>, manifest: &Value) -> Result<Image> {
    let file = |name: &Value| -> Result<&Vec<u8>> {
        let name = name.as_str().ok_or("manifest.json names no file")?;
        files.get(name).ok_or_else(|| format!("{name} is missing").into())
    };
    let image = &manifest[0];
    let mut layers = Vec::new();
    for layer in image["Layers"].as_array().ok_or("manifest.json without Layers")? {
        layers.push(decompress(file(layer)?, None)?);
    }
    assemble(file(&image["Config"])?, &layers)
}

/// The layer's tar. A media type, when there is one, must say what the bytes are.
fn decompress(bytes: &[u8], media_type: Option<&str>) -> Result<Vec<u8>> {
    let (suffix, tar) = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut tar)?;
        ("gzip", tar)
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ("zstd", zstd::stream::decode_all(bytes)?)
    } else {
        ("tar", bytes.to_vec())
    };
    if let Some(media_type) = media_type {
        ensure!(
            media_type.ends_with(suffix),
            "a layer of media type {media_type} is {suffix}"
        );
    }
    Ok(tar)
}

fn assemble(config_bytes: &[u8], layers: &[Vec<u8>]) -> Result<Image> {
    let config: Value = serde_json::from_slice(config_bytes)?;
    let diff_ids: Vec<String> = config["rootfs"]["diff_ids"]
        .as_array()
        .ok_or("config without rootfs.diff_ids")?
        .iter()
        .map(|diff_id| diff_id.as_str().unwrap_or_default().to_owned())
        .collect();
    ensure!(
        diff_ids.len() == layers.len(),
        "{} diff_ids for {} layers",
        diff_ids.len(),
        layers.len()
    );
    ensure!(
        config["rootfs"]["type"] == "layers",
        "rootfs.type is {}",
        config["rootfs"]["type"]
    );
    let mut image = Image {
        id: format!("sha256:{}", sha256(config_bytes)),
        config,
        tree: Tree::default(),
        diff_ids,
        problems: vec![],
    };
    let mut inodes = 0;
    for (number, layer) in layers.iter().enumerate() {
        let found = format!("sha256:{}", sha256(layer));
        let stated = &image.diff_ids[number];
        ensure!(
            &found == stated,
            "layer {number} has DiffID {found}, the config says {stated}"
        );
        apply_layer(number, layer, &mut inodes, &mut image)
            .map_err(|error| format!("layer {number}: {error}"))?;
    }
    check_history(&mut image);
    Ok(image)
}

/// Every history entry that is not empty stands for a layer.
fn check_history(image: &mut Image) {
    let Some(history) = image.config["history"].as_array() else {
        return;
    };
    let with_layer = history
        .iter()
        .filter(|entry| entry["empty_layer"] != true)
        .count();
    if with_layer != image.diff_ids.len() {
        let layers = image.diff_ids.len();
        image.problems.push(format!(
            "the history tells of {with_layer} layers, there are {layers}"
        ));
    }
}

/// A tar of a root file system as a tree: one layer without an image around it.
pub fn read_root_tar(tar: &Path) -> Result<Tree> {
    let bytes = std::fs::read(tar).map_err(|error| format!("read {}: {error}", tar.display()))?;
    let mut image = Image {
        config: Value::Null,
        id: String::new(),
        tree: Tree::default(),
        diff_ids: vec![],
        problems: vec![],
    };
    apply_layer(0, &bytes, &mut 0, &mut image)?;
    Ok(image.tree)
}

/// The part of the config that a build decides, in one normal form: the author and the container config, empty fields
/// left out. `ArgsEscaped` is left out as well: it is deprecated, means something on Windows only, and peers differ.
pub fn build_config(config: &Value) -> Value {
    let mut normal = serde_json::Map::new();
    for key in ["author", "os"] {
        if let Some(value) = config.get(key).filter(|value| !is_empty(value)) {
            normal.insert(key.to_owned(), value.clone());
        }
    }
    let mut container = serde_json::Map::new();
    for (key, value) in config["config"].as_object().into_iter().flatten() {
        if key != "ArgsEscaped" && !is_empty(value) {
            container.insert(key.clone(), value.clone());
        }
    }
    normal.insert("config".to_owned(), Value::Object(container));
    Value::Object(normal)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
