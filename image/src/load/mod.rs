//! Reading archives of images: what `docker save`, `kiln save`, `skopeo` and `podman` write.
//!
//! Three forms are known: an OCI layout (`oci-layout`, `index.json`), Docker's (`manifest.json`), and Docker's of before
//! 2016 (`repositories` alone). An archive may have several of them at once; the first of that list is read, because it
//! alone names manifests, so that an image keeps its digests, and several platforms.
//!
//! An archive comes as a stream and says last what its files are. So [`ImageFiles`] first puts each of them beside the
//! store under a name of its own, with its digest: the archive's names are never names of the file system.
//! [`contents`] then says which images they make. What the layers hold is checked by who unpacks them.

mod docker;
mod error;
mod files;
mod legacy;
mod oci;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::{Descriptor, Digest, ImageConfig, Platform, Reference, limits};

pub use error::LoadError;
pub use files::{ImageFiles, StoredFile};

/// A manifest, index or configuration with the bytes that make its digest.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A layer in an archive.
#[derive(Debug, Clone)]
pub struct LoadableLayer {
    /// The digest that the configuration gives its tar.
    pub diff_id: Digest,
    /// Which file of the archive it is.
    pub file: String,
    /// How the manifest describes it, where there is one.
    pub blob: Option<Descriptor>,
}

/// An image for one platform in an archive.
#[derive(Debug, Clone)]
pub struct LoadableManifest {
    /// The platform that it is listed for.
    pub platform: Platform,
    /// Its manifest, which only an OCI layout has.
    pub manifest: Option<Document>,
    /// Its configuration.
    pub config: ImageConfig,
    /// The configuration's bytes: their digest is the image's id.
    pub config_bytes: Vec<u8>,
    /// Its layers, bottom first.
    pub layers: Vec<LoadableLayer>,
}

/// What an archive does not have all files of.
#[derive(Debug, Clone)]
pub struct Incomplete {
    /// The platform that it is listed for, where that is known.
    pub platform: Option<Platform>,
    /// A file that is missing.
    pub missing: String,
}

/// An image in an archive.
#[derive(Debug, Clone)]
pub struct LoadableImage {
    /// Its names.
    pub names: Vec<Reference>,
    /// The index that lists its platforms, if there is one.
    pub index: Option<Document>,
    /// One image a platform; at least one.
    pub manifests: Vec<LoadableManifest>,
    /// Platforms that the index lists and the archive does not have.
    pub incomplete: Vec<Incomplete>,
}

/// The images of an archive; of multi-platform ones only those for `platforms`, where any are named.
pub fn contents(files: &mut ImageFiles, platforms: &[Platform]) -> Result<Vec<LoadableImage>, LoadError> {
    let mut images = all_images(files)?;
    if images.is_empty() {
        return Err(LoadError::Empty);
    }
    for image in &mut images {
        select(image, platforms)?;
    }
    Ok(images)
}

fn all_images(files: &mut ImageFiles) -> Result<Vec<LoadableImage>, LoadError> {
    if files.contains(oci::MARKER)? && files.contains(oci::INDEX)? {
        let mut images = oci::images(files)?;
        if images.iter().any(|image| image.names.is_empty()) && files.contains(docker::MANIFEST)? {
            docker::add_names(files, &mut images)?;
        }
        return Ok(images);
    }
    if files.contains(docker::MANIFEST)? {
        return docker::images(files);
    }
    if files.contains(legacy::REPOSITORIES)? {
        return legacy::images(files);
    }
    Err(LoadError::NoImages)
}

/// Leaves of `image` what is for `platforms`.
fn select(image: &mut LoadableImage, platforms: &[Platform]) -> Result<(), LoadError> {
    if platforms.is_empty() {
        let lost = image.incomplete.first();
        return match lost {
            Some(lost) if image.manifests.is_empty() => Err(LoadError::Missing {
                name: lost.missing.clone(),
                by: shown_name(image),
            }),
            _ => Ok(()),
        };
    }
    let mut chosen = BTreeSet::new();
    for wanted in platforms {
        let fallbacks = wanted.fallbacks();
        let position = fallbacks.iter().find_map(|platform| {
            let fits = |listed: &LoadableManifest| listed.platform.matches(platform);
            image.manifests.iter().position(fits)
        });
        let Some(position) = position else {
            return Err(not_there(image, wanted));
        };
        chosen.insert(position);
    }
    let mut position = 0;
    image.manifests.retain(|_| {
        position += 1;
        chosen.contains(&(position - 1))
    });
    image.incomplete.clear();
    Ok(())
}

fn not_there(image: &LoadableImage, wanted: &Platform) -> LoadError {
    let lost = image.incomplete.iter().find(|lost| {
        let listed = lost.platform.as_ref();
        listed.is_some_and(|listed| listed.matches(wanted))
    });
    match lost {
        Some(lost) => LoadError::Missing {
            name: lost.missing.clone(),
            by: format!("{} for {wanted}", shown_name(image)),
        },
        None => LoadError::NoPlatform {
            image: shown_name(image),
            wanted: Box::new(wanted.clone()),
            available: image
                .manifests
                .iter()
                .map(|manifest| manifest.platform.clone())
                .collect(),
        },
    }
}

/// What an image is called in messages.
fn shown_name(image: &LoadableImage) -> String {
    match (image.names.first(), image.manifests.first()) {
        (Some(name), _) => name.familiar(),
        (None, Some(manifest)) => format!("image {}", Digest::sha256_of(&manifest.config_bytes)),
        (None, None) => "the image".to_owned(),
    }
}

/// A configuration with as many layers as there are files for.
fn checked_config(name: &str, bytes: &[u8], layers: usize) -> Result<ImageConfig, LoadError> {
    let config = ImageConfig::parse(bytes).map_err(|source| LoadError::Malformed {
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    if layers > limits::LAYERS {
        return Err(LoadError::TooMany {
            what: "layers",
            limit: limits::LAYERS,
        });
    }
    let diff_ids = config.rootfs.diff_ids.len();
    if layers != diff_ids {
        return Err(LoadError::LayerCount {
            name: name.to_owned(),
            layers,
            diff_ids,
        });
    }
    Ok(config)
}

/// A name that a document gives an image.
fn parse_name(text: &str) -> Result<Reference, LoadError> {
    Reference::parse(text).map_err(|source| LoadError::ImageName {
        text: text.chars().take(300).collect(),
        source,
    })
}
