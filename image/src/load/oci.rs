//! Archives that are OCI layouts.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    Document, ImageFiles, Incomplete, LoadError, LoadableImage, LoadableLayer, LoadableManifest,
    checked_config,
};
use crate::layout::{IMAGE_NAME, REF_NAME, blob_name};
use crate::{Descriptor, Index, Manifest, ManifestOrIndex, Reference, limits, parse_manifest};

/// The file that makes a folder a layout.
pub(super) const MARKER: &str = "oci-layout";
/// The file that lists a layout's images.
pub(super) const INDEX: &str = "index.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// The images of a layout.
pub(super) fn images(files: &mut ImageFiles) -> Result<Vec<LoadableImage>, LoadError> {
    let marker = files.required_document(MARKER, "an image layout")?;
    let marker: Marker = serde_json::from_slice(&marker).map_err(malformed(MARKER))?;
    if marker.image_layout_version != "1.0.0" {
        let version = marker.image_layout_version.chars().take(40).collect();
        return Err(LoadError::Version { version });
    }
    let bytes = files.required_document(INDEX, "an image layout")?;
    let index: Index = serde_json::from_slice(&bytes).map_err(malformed(INDEX))?;
    if index.manifests.len() > limits::INDEX_ENTRIES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: limits::INDEX_ENTRIES,
        });
    }
    let mut images = Images::default();
    for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
        images.entry(files, entry)?;
    }
    Ok(images.list)
}

#[derive(Default)]
struct Images {
    list: Vec<LoadableImage>,
    /// What each of them is in the layout's index.
    roots: Vec<Descriptor>,
}

impl Images {
    fn entry(&mut self, files: &mut ImageFiles, entry: &Descriptor) -> Result<(), LoadError> {
        let name = name_of(entry)?;
        // A layout lists an image once a name.
        let known = self.roots.iter().position(|root| root.digest == entry.digest);
        let at = if let Some(at) = known {
            at
        } else {
            let image = read(files, entry)?;
            let sibling = name.as_ref().and_then(|name| self.sibling(name, &image));
            if let Some(at) = sibling {
                self.list[at].manifests.extend(image.manifests);
                return Ok(());
            }
            self.list.push(image);
            self.roots.push(entry.clone());
            self.list.len() - 1
        };
        if let Some(name) = name {
            // As with a tag in a registry, the last one counts.
            for image in &mut self.list {
                image.names.retain(|known| *known != name);
            }
            self.list[at].names.push(name);
        }
        Ok(())
    }

    /// The image of the same name that `image` is another platform of.
    fn sibling(&self, name: &Reference, image: &LoadableImage) -> Option<usize> {
        let [manifest] = image.manifests.as_slice() else {
            return None;
        };
        self.list.iter().position(|other| {
            let same_platform = |listed: &LoadableManifest| listed.platform.matches(&manifest.platform);
            image.index.is_none()
                && other.index.is_none()
                && other.names.contains(name)
                && !other.manifests.iter().any(same_platform)
        })
    }
}

/// The name of an image: the whole one, or what its writer calls it where that is more than a tag.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>, LoadError> {
    if let Some(text) = entry.annotations.get(IMAGE_NAME) {
        let name = super::parse_name(text)?;
        return Ok(Some(name).filter(|name| name.digest.is_none()));
    }
    let text = entry.annotations.get(REF_NAME);
    let text = text.filter(|text| text.contains(['/', ':']));
    let name = text.and_then(|text| Reference::parse(text).ok());
    Ok(name.filter(|name| name.digest.is_none()))
}

fn read(files: &mut ImageFiles, root: &Descriptor) -> Result<LoadableImage, LoadError> {
    let mut image = LoadableImage {
        names: Vec::new(),
        index: None,
        manifests: Vec::new(),
        incomplete: Vec::new(),
    };
    let bytes = blob(files, root, INDEX)?;
    walk(files, root, bytes, 0, &mut image)?;
    Ok(image)
}

/// Collects the images that `descriptor`, whose bytes these are, leads to.
fn walk(
    files: &mut ImageFiles,
    descriptor: &Descriptor,
    bytes: Vec<u8>,
    depth: usize,
    image: &mut LoadableImage,
) -> Result<(), LoadError> {
    let name = blob_name(&descriptor.digest);
    let announced = Some(descriptor.media_type.as_str()).filter(|media_type| !media_type.is_empty());
    let parsed = parse_manifest(&bytes, announced).map_err(|source| LoadError::Malformed {
        name: name.clone(),
        source: Box::new(source),
    })?;
    let document = Document {
        descriptor: Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size),
        bytes,
    };
    let index = match parsed {
        ManifestOrIndex::Manifest(manifest) => {
            return add(files, descriptor, document, &manifest, image);
        }
        ManifestOrIndex::Index(index) => index,
    };
    if depth >= limits::INDEX_DEPTH {
        return Err(LoadError::TooDeep { name });
    }
    if depth == 0 {
        image.index = Some(document);
    }
    let mut seen = BTreeSet::new();
    for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
        if !seen.insert(entry.digest) {
            continue;
        }
        let child = blob_name(&entry.digest);
        // Docker saves the index of an image that was pulled for one platform only.
        if files.contains(&child)? {
            let bytes = blob(files, entry, &name)?;
            walk(files, entry, bytes, depth + 1, image)?;
        } else {
            image.incomplete.push(Incomplete {
                platform: entry.platform.clone(),
                missing: child,
            });
        }
    }
    Ok(())
}

fn add(
    files: &mut ImageFiles,
    descriptor: &Descriptor,
    document: Document,
    manifest: &Manifest,
    image: &mut LoadableImage,
) -> Result<(), LoadError> {
    let by = blob_name(&descriptor.digest);
    for needed in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let missing = blob_name(&needed.digest);
        if !files.contains(&missing)? {
            if image.index.is_none() {
                return Err(LoadError::Missing { name: missing, by });
            }
            image.incomplete.push(Incomplete {
                platform: descriptor.platform.clone(),
                missing,
            });
            return Ok(());
        }
    }
    let config_bytes = blob(files, &manifest.config, &by)?;
    let name = blob_name(&manifest.config.digest);
    let config = checked_config(&name, &config_bytes, manifest.layers.len())?;
    let layer = |(blob, diff_id): (&Descriptor, &_)| LoadableLayer {
        diff_id: *diff_id,
        file: blob_name(&blob.digest),
        blob: Some(blob.clone()),
    };
    let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).map(layer);
    image.manifests.push(LoadableManifest {
        platform: descriptor.platform.clone().unwrap_or_else(|| config.platform()),
        manifest: Some(document),
        layers: layers.collect(),
        config,
        config_bytes,
    });
    Ok(())
}

/// The bytes of a manifest or configuration, as long as its descriptor says. The digest stands in its name.
fn blob(files: &mut ImageFiles, descriptor: &Descriptor, by: &str) -> Result<Vec<u8>, LoadError> {
    let name = blob_name(&descriptor.digest);
    let bytes = files.required_document(&name, by)?;
    let found = crate::Digest::sha256_of(&bytes);
    if bytes.len() as u64 != descriptor.size || found != descriptor.digest {
        return Err(LoadError::Digest {
            name,
            wanted: format!("{} of {} bytes", descriptor.digest, descriptor.size),
            found,
            size: bytes.len() as u64,
        });
    }
    Ok(bytes)
}

fn malformed(name: &str) -> impl FnOnce(serde_json::Error) -> LoadError + '_ {
    |source| LoadError::Malformed {
        name: name.to_owned(),
        source: Box::new(source),
    }
}
