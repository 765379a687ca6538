//! Bringing layers to a place: their compressed tars and their listings, as far as they are not there.

use std::io;

use kiln_cache::portable::LISTING_MEDIA_TYPE;
use kiln_cache::{LayerId, PortableLayer};
use kiln_image::compress::{Compression, compress};
use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::BlobSource;
use kiln_tree::{EntryKind, Listing};

use super::import::with_place;
use super::place::Target;
use super::{CacheError, CacheLocation};
use crate::cancel::Cancel;
use crate::compressed::LayerCompression;
use crate::engine::Engine;
use crate::graph::SourceLayer;
use crate::task::Task;

/// What brings layers to one place.
pub(super) struct Uploads<'a> {
    pub(super) engine: &'a Engine,
    pub(super) target: &'a dyn Target,
    /// The place's name, when it is a registry's.
    pub(super) location: &'a CacheLocation,
    pub(super) compression: LayerCompression,
    pub(super) task: &'a Task,
    pub(super) cancel: &'a Cancel,
}

/// The repository of a place as the store remembers it of blobs.
pub(super) fn repository(location: &CacheLocation) -> Option<String> {
    match location {
        CacheLocation::Registry(reference) => Some(reference.name()),
        CacheLocation::Folder { .. } => None,
    }
}

impl Uploads<'_> {
    /// Brings a layer of the store there. `None` when it cannot travel: a tar knows no socket files, and without
    /// them the layer would be another one.
    pub(super) fn own(&self, id: &LayerId) -> Result<Option<PortableLayer>, CacheError> {
        let layer = self.engine.store.layers().require(id)?;
        let listing = layer.listing()?;
        if listing
            .entries()
            .iter()
            .any(|entry| entry.kind == EntryKind::Socket)
        {
            let message = format!("layer {id} has socket files and is not exported");
            self.task.warn(message, None);
            return Ok(None);
        }
        let blob = self.engine.layer_blob(id, self.compression, self.cancel)?;
        let Some(diff_id) = layer.diff_id() else {
            return Err(CacheError::LayerLost(id.clone()));
        };
        if !self.target.has(&blob)? {
            self.bring(&blob, &diff_id)?;
        }
        // Tars have whole seconds: wherever the layer was unpacked, its listing is to be the same.
        let mut entries = listing.entries().to_vec();
        for entry in &mut entries {
            entry.mtime.nanos = 0;
        }
        let mut plain = Vec::new();
        let packed = Listing::from_entries(entries)
            .write_to(&mut plain)
            .and_then(|()| compress(&plain[..], Compression::Zstd, None, Vec::new()))
            .map_err(|source| CacheError::Io {
                path: layer.path(),
                source,
            })?;
        let listing = Descriptor::of(LISTING_MEDIA_TYPE, &packed);
        if !self.target.has(&listing)? {
            self.put(&listing, &packed)?;
        }
        Ok(Some(PortableLayer {
            diff_id,
            blob: Descriptor::new(&blob.media_type, blob.digest, blob.size),
            listing: Some(listing),
            created_ms: layer.created_ms(),
            size: layer.size(),
        }))
    }

    /// Brings a blob of the store there; from another repository of the same registry without a transfer.
    fn bring(&self, blob: &Descriptor, diff_id: &Digest) -> Result<(), CacheError> {
        let variants = self.engine.store.variants();
        let own = repository(self.location);
        let registry = match self.location {
            CacheLocation::Registry(reference) => Some(format!("{}/", reference.registry)),
            CacheLocation::Folder { .. } => None,
        };
        for form in [kiln_cache::variants::ORIGINAL.to_owned(), self.compression.form()] {
            let variant = variants.get(diff_id, &form)?;
            let variant = variant.filter(|variant| variant.blob.digest == blob.digest);
            let known = variant.iter().flat_map(|variant| &variant.repositories);
            let near = known.filter(|name| {
                registry
                    .as_ref()
                    .is_some_and(|registry| name.starts_with(registry))
            });
            for from in near.filter(|name| Some(*name) != own.as_ref()) {
                let Ok(from) = from.parse::<Reference>() else {
                    continue;
                };
                if self.target.take_over(blob, &from)? {
                    return Ok(());
                }
            }
        }
        self.send(blob)
    }

    /// Writes a blob of the store, and tells how far that is.
    fn send(&self, blob: &Descriptor) -> Result<(), CacheError> {
        let part = blob.digest.to_string();
        let told = |bytes| self.task.progress(&part, bytes, Some(blob.size), false);
        self.put_told(blob, &self.engine.store.blobs().path(&blob.digest), &told)?;
        self.task.progress(&part, blob.size, Some(blob.size), true);
        Ok(())
    }

    fn put(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        self.put_told(blob, source, &|_| {})
    }

    fn put_told(
        &self,
        blob: &Descriptor,
        source: &dyn BlobSource,
        told: &dyn Fn(u64),
    ) -> Result<(), CacheError> {
        let cancel = self.cancel;
        let watched = Watched { source, cancel, told };
        let result = self.target.put(blob, &watched);
        if cancel.is_raised() {
            return Err(CacheError::Canceled);
        }
        result
    }

    /// Hands on a layer that was imported and is not in the store. `None` when it is not to be had any more.
    pub(super) fn imported(
        &self,
        id: &LayerId,
        from: &CacheLocation,
        layer: &PortableLayer,
    ) -> Result<Option<PortableLayer>, CacheError> {
        let mut layer = layer.clone();
        if !self.hand_on(&layer.blob, from)? {
            let source = SourceLayer {
                layer: id.clone(),
                diff_id: layer.diff_id,
                blob: Some(layer.blob.clone()),
            };
            let images = &self.engine.images;
            let fetched = match from {
                CacheLocation::Registry(reference) => {
                    images.fetch_blob(reference, &source, self.task, self.cancel)
                }
                CacheLocation::Folder { path, .. } => images.copy_blob(path, &source, self.task, self.cancel),
            };
            if self.cancel.is_raised() {
                return Err(CacheError::Canceled);
            }
            if let Err(error) = fetched {
                let message = format!("layer {id} of the cache at {from} is not exported: {error}");
                self.task.warn(message, None);
                return Ok(None);
            }
            self.send(&layer.blob)?;
        }
        if let Some(listing) = layer.listing.clone()
            && !self.hand_on(&listing, from)?
        {
            let read = with_place(self.engine, from, |place| place.read(&listing));
            match read {
                Ok(bytes) => self.put(&listing, &bytes)?,
                // It can do without.
                Err(_) => layer.listing = None,
            }
        }
        Ok(Some(layer))
    }

    /// Whether the blob is there already, or could be taken over where it is.
    fn hand_on(&self, blob: &Descriptor, from: &CacheLocation) -> Result<bool, CacheError> {
        if self.target.has(blob)? {
            return Ok(true);
        }
        match from {
            CacheLocation::Registry(from) => self.target.take_over(blob, from),
            CacheLocation::Folder { .. } => Ok(false),
        }
    }
}

/// A source that ends when the export is cancelled, and tells how far it was read.
struct Watched<'a> {
    source: &'a dyn BlobSource,
    cancel: &'a Cancel,
    told: &'a dyn Fn(u64),
}

impl BlobSource for Watched<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn io::Read + '_>> {
        Ok(Box::new(WatchedReader {
            inner: self.source.open(offset)?,
            at: offset,
            watched: self,
        }))
    }
}

struct WatchedReader<'a> {
    inner: Box<dyn io::Read + 'a>,
    at: u64,
    watched: &'a Watched<'a>,
}

impl io::Read for WatchedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watched.cancel.check()?;
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        (self.watched.told)(self.at);
        Ok(count)
    }
}
