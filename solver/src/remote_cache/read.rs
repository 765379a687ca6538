//! Reading what lies at a place, and telling a cache of Kiln from everything else.

use kiln_cache::portable::{self, PortableCache, parse_inline};
use kiln_image::{Descriptor, ImageConfig, Manifest, json, limits, media_type};
use serde::Deserialize;

use super::place::{Place, Root};
use super::{CacheError, Foreign};
use crate::error::chain;

/// Where BuildKit keeps its inline cache.
const BUILDKIT_INLINE: &str = "moby.buildkit.cache.v0";
/// Images of one index whose configurations are looked into.
const MAX_IMAGES: usize = 32;

/// As far as a document has to be known to tell what it is.
#[derive(Deserialize)]
struct Shape {
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

/// The cache at `place`; `None` when there is nothing at all.
pub(super) fn load(place: &dyn Place) -> Result<Option<PortableCache>, CacheError> {
    let Some(root) = place.root()? else {
        return Ok(None);
    };
    load_root(place, &root).map(Some)
}

/// The cache whose manifest or index is `root`.
pub(super) fn load_root(place: &dyn Place, root: &Root) -> Result<PortableCache, CacheError> {
    let mut found = None;
    let mut images = 0;
    gather(place, &root.bytes, 0, &mut images, &mut found)?;
    found.ok_or(CacheError::Foreign(Foreign::Image))
}

/// The cache whose manifest is `root`; nothing that is found in an image's configuration.
pub(super) fn load_own(place: &dyn Place, root: &Root) -> Result<PortableCache, CacheError> {
    if root.bytes.len() > portable::MAX_MANIFEST {
        return Err(CacheError::Malformed(format!(
            "its manifest has {} bytes",
            root.bytes.len()
        )));
    }
    let shape: Shape = json::from_slice(&root.bytes).map_err(malformed)?;
    let is_buildkit = |entry: &Descriptor| entry.media_type == portable::BUILDKIT_MEDIA_TYPE;
    match (shape.config, shape.manifests) {
        (Some(config), None) if config.media_type == portable::MEDIA_TYPE => own(place, &root.bytes, &config),
        (Some(config), None) if is_buildkit(&config) => Err(CacheError::Foreign(Foreign::BuildKit)),
        (None, Some(entries)) if entries.iter().any(is_buildkit) => {
            Err(CacheError::Foreign(Foreign::BuildKit))
        }
        (None, None) => Err(CacheError::Malformed("its manifest is none".to_owned())),
        _ => Err(CacheError::Foreign(Foreign::Image)),
    }
}

fn gather(
    place: &dyn Place,
    bytes: &[u8],
    depth: usize,
    images: &mut usize,
    found: &mut Option<PortableCache>,
) -> Result<(), CacheError> {
    if bytes.len() > portable::MAX_MANIFEST {
        return Err(CacheError::Malformed(format!(
            "its manifest has {} bytes",
            bytes.len()
        )));
    }
    let shape: Shape = json::from_slice(bytes).map_err(malformed)?;
    if let Some(manifests) = shape.manifests {
        let is_buildkit = |entry: &Descriptor| entry.media_type == portable::BUILDKIT_MEDIA_TYPE;
        if manifests.iter().any(is_buildkit) {
            return Err(CacheError::Foreign(Foreign::BuildKit));
        }
        if depth > limits::INDEX_DEPTH {
            return Err(CacheError::Malformed(
                "its indexes lie too deep in each other".to_owned(),
            ));
        }
        for entry in manifests.iter().filter(|entry| !entry.is_attestation()) {
            *images += 1;
            if *images > MAX_IMAGES {
                break;
            }
            let bytes = place.manifest(entry)?;
            gather(place, &bytes, depth + 1, images, found)?;
        }
        return Ok(());
    }
    let Some(config) = shape.config else {
        return Err(CacheError::Malformed("its manifest is none".to_owned()));
    };
    let cache = match config.media_type.as_str() {
        portable::MEDIA_TYPE => Some(own(place, bytes, &config)?),
        portable::BUILDKIT_MEDIA_TYPE => return Err(CacheError::Foreign(Foreign::BuildKit)),
        _ => inline(place, bytes, &config)?,
    };
    if let Some(cache) = cache {
        found.get_or_insert_default().merge_foreign(&cache)?;
    }
    Ok(())
}

fn own(place: &dyn Place, manifest: &[u8], config: &Descriptor) -> Result<PortableCache, CacheError> {
    let manifest: Manifest = json::from_slice(manifest).map_err(malformed)?;
    let document = read_bounded(place, config, portable::MAX_DOCUMENT)?;
    Ok(PortableCache::parse(&manifest, &document)?)
}

/// The cache in the configuration of an image, if it has one.
fn inline(
    place: &dyn Place,
    manifest: &[u8],
    config: &Descriptor,
) -> Result<Option<PortableCache>, CacheError> {
    if !matches!(
        config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
    ) {
        return Ok(None);
    }
    let manifest: Manifest = json::from_slice(manifest).map_err(malformed)?;
    let bytes = read_bounded(place, config, limits::CONFIG_SIZE)?;
    let image = ImageConfig::parse(&bytes).map_err(|error| CacheError::Malformed(chain(&error)))?;
    match image.extra.get(portable::INLINE_KEY) {
        Some(value) => Ok(Some(parse_inline(
            value,
            &manifest.layers,
            &image.rootfs.diff_ids,
        )?)),
        None if image.extra.contains_key(BUILDKIT_INLINE) => Err(CacheError::Foreign(Foreign::BuildKit)),
        None => Ok(None),
    }
}

/// A blob that is to be read into memory, if it does not claim to be too long for that.
pub(super) fn read_bounded(
    place: &dyn Place,
    blob: &Descriptor,
    limit: usize,
) -> Result<Vec<u8>, CacheError> {
    if blob.size > limit as u64 {
        let message = format!(
            "{} has {} bytes, more than the {limit} allowed",
            blob.digest, blob.size
        );
        return Err(CacheError::Malformed(message));
    }
    place.read(blob)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn malformed(error: serde_json::Error) -> CacheError {
    CacheError::Malformed(format!("its manifest is malformed: {error}"))
}
