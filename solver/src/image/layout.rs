//! Images of OCI layouts in directories: resolved as those of registries, their blobs copied instead of downloaded.

use std::io::Read;
use std::path::Path;

use kiln_cache::BlobWriter;
use kiln_image::layout::{self, LayoutError, LayoutReader};
use kiln_image::{
    Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, parse_manifest,
};

use super::resolve::source_layers;
use super::{Images, PullError, Resolved};
use crate::cancel::Cancel;
use crate::following::{Feed, Growth};
use crate::graph::{ImageSource, SourceLayer};
use crate::task::Task;

/// Which image of which layout. With neither tag nor digest it is the only image.
#[derive(Debug, Clone, Copy)]
pub struct LayoutSelector<'a> {
    /// The layout's directory.
    pub path: &'a Path,
    /// The image's name or tag in the layout's index.
    pub tag: Option<&'a str>,
    /// The digest of the image's manifest or index; goes before the tag.
    pub digest: Option<&'a Digest>,
}

/// What is copied at a time.
const BUFFER: usize = 256 << 10;

impl Images {
    /// What `selector` means for `platform`. `name` is what the image is called in messages and in the graph; the
    /// store keeps no image of that name.
    pub fn resolve_layout(
        &self,
        name: &str,
        selector: LayoutSelector<'_>,
        platform: &Platform,
    ) -> Result<Resolved, PullError> {
        let failed = |source| PullError::Layout {
            path: selector.path.to_owned(),
            source,
        };
        let reader = LayoutReader::open(selector.path).map_err(failed)?;
        let descriptor = select(&reader, selector)?;
        let (digest, manifest) = manifest(&reader, name, selector, descriptor, platform)?;
        let bytes = reader.read_blob(&manifest.config).map_err(failed)?;
        let config = ImageConfig::parse(&bytes)
            .map_err(|source| malformed(name, "configuration", manifest.config.digest, source))?;
        let layers = source_layers(name, &manifest, &config)?;
        self.layouts().insert(digest, selector.path.to_owned());
        let reference = shown_reference(name, digest);
        Ok(Resolved {
            source: ImageSource {
                reference,
                digest,
                layers,
            },
            platform: config.platform(),
            config,
            record: None,
            offered: Vec::new(),
        })
    }

    /// Copies the blob of a layer out of the layout at `path` into the store.
    pub(crate) fn copy_blob(
        &self,
        path: &Path,
        layer: &SourceLayer,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        self.copy_followed(path, layer, &Growth::new().feed(), task, cancel)
    }

    /// [`Images::copy_blob`], for who reads the blob as it comes.
    pub(super) fn copy_followed(
        &self,
        path: &Path,
        layer: &SourceLayer,
        feed: &Feed,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(), PullError> {
        let Some(blob) = &layer.blob else {
            return Err(PullError::LayerLost(layer.diff_id));
        };
        let Some(mut writer) = self.store.blobs().writer(&blob.digest, Some(blob.size))? else {
            return Ok(());
        };
        if writer.offset() > 0 {
            writer.restart()?;
        }
        feed.begin(&writer)?;
        let part = blob.digest.to_string();
        let progress = |bytes, done| task.progress(&part, bytes, Some(blob.size), done);
        let copied = copy(path, blob, &mut writer, |bytes| {
            feed.grown(bytes);
            progress(bytes, false);
            !cancel.is_raised() && !feed.is_refused()
        });
        if let Err(error) = copied {
            // A copy always begins anew.
            writer.discard()?;
            return Err(error);
        }
        writer.commit()?;
        feed.whole();
        progress(blob.size, true);
        Ok(())
    }
}

/// Copies a blob of the layout at `path` to `writer`, as long as `go_on` with the bytes that are there wants more.
fn copy(
    path: &Path,
    blob: &Descriptor,
    writer: &mut BlobWriter,
    go_on: impl Fn(u64) -> bool,
) -> Result<(), PullError> {
    let failed = |source| PullError::Layout {
        path: path.to_owned(),
        source,
    };
    let unreadable = |source| {
        failed(LayoutError::Read {
            name: blob.digest.to_string(),
            source,
        })
    };
    let reader = LayoutReader::open(path).map_err(failed)?;
    // One byte more than there should be: the writer then notices that the size is wrong.
    let mut file = reader
        .open_blob(&blob.digest)
        .map_err(failed)?
        .take(blob.size.saturating_add(1));
    let mut buffer = vec![0; BUFFER];
    while go_on(writer.offset()) {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        std::io::Write::write_all(writer, buffer.get(..read).unwrap_or_default()).map_err(unreadable)?;
    }
    Err(PullError::Canceled)
}

/// The manifest or index that `selector` means.
fn select(reader: &LayoutReader, selector: LayoutSelector<'_>) -> Result<Descriptor, PullError> {
    let manifests = &reader.index().manifests;
    if let Some(digest) = selector.digest {
        if let Some(listed) = manifests.iter().find(|listed| listed.digest == *digest) {
            return Ok(listed.clone());
        }
        // It may be one of those that an index in the layout lists.
        let failed = |source| PullError::Layout {
            path: selector.path.to_owned(),
            source,
        };
        let file = reader.open_blob(digest).map_err(failed)?;
        let size = file.metadata().map_err(|source| {
            failed(LayoutError::Read {
                name: digest.to_string(),
                source,
            })
        })?;
        return Ok(Descriptor::new("", *digest, size.len()));
    }
    let annotated = |key: &str, tag: &str| {
        manifests
            .iter()
            .find(|listed| listed.annotations.get(key).is_some_and(|value| value == tag))
    };
    let tagged = selector
        .tag
        .and_then(|tag| annotated(layout::IMAGE_NAME, tag).or_else(|| annotated(layout::REF_NAME, tag)));
    match (tagged, manifests.as_slice()) {
        // Docker takes the only image, whatever it is called.
        (Some(found), _) | (None, [found]) => Ok(found.clone()),
        _ => Err(PullError::LayoutTag {
            path: selector.path.to_owned(),
            tag: selector.tag.unwrap_or_default().to_owned(),
            available: names(manifests),
        }),
    }
}

/// The tags of a layout's images.
fn names(manifests: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<String> = manifests
        .iter()
        .filter_map(|listed| listed.annotations.get(layout::REF_NAME).cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The image's manifest for `platform`, and its digest.
fn manifest(
    reader: &LayoutReader,
    name: &str,
    selector: LayoutSelector<'_>,
    mut descriptor: Descriptor,
    platform: &Platform,
) -> Result<(Digest, Manifest), PullError> {
    for _ in 0..=kiln_image::limits::INDEX_DEPTH {
        let bytes = reader
            .read_blob(&descriptor)
            .map_err(|source| PullError::Layout {
                path: selector.path.to_owned(),
                source,
            })?;
        let media_type = Some(descriptor.media_type.as_str()).filter(|media_type| !media_type.is_empty());
        let parsed = parse_manifest(&bytes, media_type)
            .map_err(|source| malformed(name, "manifest", descriptor.digest, source))?;
        match parsed {
            ManifestOrIndex::Manifest(manifest) => return Ok((descriptor.digest, manifest)),
            ManifestOrIndex::Index(index) => {
                descriptor = index
                    .select(platform)
                    .map_err(|source| PullError::NoPlatform {
                        reference: name.to_owned(),
                        source: Box::new(source),
                    })?
                    .clone();
            }
        }
    }
    Err(PullError::TooDeep(name.to_owned()))
}

fn malformed(
    name: &str,
    what: &'static str,
    digest: Digest,
    source: impl std::error::Error + Send + Sync + 'static,
) -> PullError {
    PullError::Malformed {
        reference: name.to_owned(),
        what,
        digest,
        source: Box::new(source),
    }
}

/// `docker.io/library/base@sha256:…`: names the content, and no place of this machine.
fn shown_reference(name: &str, digest: Digest) -> String {
    let name = name.split("::").next().unwrap_or(name);
    match Reference::parse_untagged(name) {
        Ok(reference) => {
            let untagged = Reference {
                tag: None,
                ..reference
            };
            untagged.with_digest(digest).to_string()
        }
        Err(_) => format!("{name}@{digest}"),
    }
}
