//! Places that have caches: a registry, or a folder.

use kiln_image::{Descriptor, Digest, Reference, media_type};
use kiln_registry::{BlobSource, Client, ErrorKind};

use super::CacheError;

/// A manifest or an index, verified.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

/// Where documents are read.
pub(super) trait Place: Sync {
    /// What the place's name stands for; `None` when there is nothing.
    fn root(&self) -> Result<Option<Root>, CacheError>;

    /// A manifest that an index names.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CacheError>;

    /// A blob that fits in memory, verified.
    fn read(&self, blob: &Descriptor) -> Result<Vec<u8>, CacheError>;
}

/// Where caches are written.
pub(super) trait Target: Place {
    /// Whether the blob is there.
    fn has(&self, blob: &Descriptor) -> Result<bool, CacheError>;

    /// Makes a blob of another repository of the same registry part of this one; false if that cannot be.
    fn take_over(&self, blob: &Descriptor, from: &Reference) -> Result<bool, CacheError>;

    /// Writes a blob.
    fn put(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError>;

    /// Whether nobody else can write as long as this one exists.
    fn is_locked(&self) -> bool;

    /// Gives the manifest the place's name. Its blobs are there.
    fn publish(&self, manifest: &[u8]) -> Result<(), CacheError>;
}

/// A name in a registry.
pub(super) struct Repository<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    /// The registry itself is asked, and no mirror.
    pub(super) to_replace: bool,
}

impl Place for Repository<'_> {
    fn root(&self) -> Result<Option<Root>, CacheError> {
        let fetched = if self.to_replace {
            self.client.manifest_to_replace(self.reference)
        } else {
            self.client.manifest(self.reference)
        };
        match fetched {
            Ok(fetched) => Ok(Some(Root {
                digest: fetched.digest,
                bytes: fetched.bytes,
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CacheError> {
        let fetched = self
            .client
            .manifest_by_digest(self.reference, &descriptor.digest)?;
        Ok(fetched.bytes)
    }

    fn read(&self, blob: &Descriptor) -> Result<Vec<u8>, CacheError> {
        let mut bytes = Vec::new();
        self.client
            .fetch_blob(self.reference, blob, &mut bytes, &|_| {})?;
        Ok(bytes)
    }
}

impl Target for Repository<'_> {
    fn has(&self, blob: &Descriptor) -> Result<bool, CacheError> {
        Ok(self.client.blob_exists(self.reference, blob)?)
    }

    fn take_over(&self, blob: &Descriptor, from: &Reference) -> Result<bool, CacheError> {
        Ok(self.client.mount_blob(self.reference, &blob.digest, from)?)
    }

    fn put(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        Ok(self.client.put_blob(self.reference, blob, source, &|_| {})?)
    }

    fn is_locked(&self) -> bool {
        false
    }

    fn publish(&self, manifest: &[u8]) -> Result<(), CacheError> {
        self.client
            .put_manifest(self.reference, media_type::OCI_MANIFEST, manifest)?;
        Ok(())
    }
}
