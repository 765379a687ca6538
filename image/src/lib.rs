//! Image formats: everything that is fixed by the OCI image specification and by Docker's practice, without network
//! and without the store.
//!
//! Names: a [`Reference`] says which image is meant, a [`Platform`] for which machine, a [`Digest`] names bytes.
//! Documents: [`parse_manifest`] turns the bytes of a manifest or index into a [`Manifest`] or an [`Index`], from which
//! [`Index::select`] picks one platform; [`ImageConfig`] is the configuration that a manifest points at.
//! Layers: a compressed blob goes through [`layer::decompress`] and [`layer::unpack`] into a directory in overlayfs form
//! and a [`kiln_tree::Listing`]; [`layer::pack`] makes the (always same) tar of a layer again, and [`compress`] its blob.
//! Archives: [`layout`] writes and reads image layouts and `docker save` archives, [`load`] finds the images in any such
//! stream, [`import`] makes an image of a root file system tar, [`archive`] is the ordinary extraction that `ADD` does.

pub mod archive;
pub mod compress;
mod config;
mod digest;
pub mod import;
pub mod json;
pub mod layer;
pub mod layout;
pub mod limits;
pub mod load;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod tarball;
#[cfg(test)]
mod testing;

pub use config::{Config, ConfigError, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestWriter, ParseDigestError, Sha256};
pub use manifest::{
    Descriptor, Index, Manifest, ManifestError, ManifestOrIndex, SelectError, parse_manifest,
};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
pub use tarball::TarError;
