//! Layers of a result that are not in the store: only their blobs are, in a registry.
//!
//! A build that only pushes needs no files of what is cached elsewhere. Its image is put together from what is known
//! of such layers, and the push lets the registry take their blobs from where they are. Such an image is not kept in
//! the store, where an image is whole or not there at all: who wants it here pulls it.

use std::collections::HashMap;

use kiln_cache::{ImageRecord, LayerId};
use kiln_image::compress::Compression;
use kiln_image::{Descriptor, Digest, Platform, Reference, media_type};

use crate::compressed::LayerCompression;

/// What is needed of a build's results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Needs {
    /// Their files: all layers, in the store.
    #[default]
    Files,
    /// Their blobs, in the store or in a registry: they are pushed like this.
    Blobs(LayerCompression),
    /// Nothing but that they exist.
    Nothing,
}

/// A layer that is not in the store.
#[derive(Debug, Clone)]
pub(crate) struct LazyLayer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Descriptor,
    /// When it was made; not known of images that were not pulled.
    pub(crate) created_ms: Option<u64>,
    /// Bytes of its files, as far as known.
    pub(crate) size: u64,
    /// The repository that has its blob, if it is in one.
    pub(crate) from: Option<Reference>,
}

impl LazyLayer {
    /// The repository that its blob can be taken from as it is, when layers are wanted like `form`.
    pub(crate) fn registry(&self, form: LayerCompression) -> Option<&Reference> {
        let plain = self.blob.media_type == media_type::OCI_LAYER;
        let serves = !form.force && (!plain || form.compression == Compression::None);
        self.from.as_ref().filter(|_| serves)
    }
}

/// An image, or one for each of several platforms, that is not kept in the store since layers of it are only in
/// registries. It can be pushed.
#[derive(Debug, Clone)]
pub struct LazyImage {
    /// The images, with the platform under which an index lists each.
    pub(crate) images: Vec<(Platform, ImageRecord)>,
    pub(crate) is_index: bool,
    /// The layers that are not here.
    pub(crate) layers: HashMap<LayerId, LazyLayer>,
}

impl LazyImage {
    /// How many layers are not here.
    pub fn missing(&self) -> usize {
        self.layers.len()
    }
}

#[cfg(test)]
mod tests {
    use kiln_image::compress::Compression;
    use kiln_image::{Descriptor, Digest, media_type};

    use super::LazyLayer;
    use crate::compressed::LayerCompression;

    #[test]
    fn a_blob_goes_on_only_in_a_form_that_is_wanted() {
        let digest = Digest::from_bytes([7; 32]);
        let layer = |media_type: &str, from: Option<&str>| LazyLayer {
            diff_id: digest,
            blob: Descriptor::new(media_type, digest, 1),
            created_ms: None,
            size: 0,
            from: from.map(|from| from.parse().unwrap()),
        };
        let there = Some("registry.example/cache");
        let (gzip, plain) = (media_type::oci_layer(Compression::Gzip), media_type::OCI_LAYER);
        let zstd = LayerCompression::from(Compression::Zstd);
        let forced = LayerCompression { force: true, ..zstd };
        let none = LayerCompression::from(Compression::None);
        let cases = [
            // As with a layer that was pulled: it goes as it came, unless another form is forced.
            (layer(gzip, there), zstd, true),
            (layer(gzip, there), forced, false),
            (layer(gzip, None), zstd, false),
            (layer(plain, there), zstd, false),
            (layer(plain, there), none, true),
        ];
        for (layer, form, serves) in cases {
            assert_eq!(layer.registry(form).is_some(), serves, "{layer:?} as {form:?}");
        }
    }
}
