//! Reads OCI layouts in directories.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{LayoutError, blob_name, malformed, verify};
use crate::{Descriptor, Digest, Index, json, limits};

/// An OCI layout in a directory.
#[derive(Debug)]
pub struct LayoutReader {
    path: PathBuf,
    index: Index,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl LayoutReader {
    /// Opens the layout in the directory `path`.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let name = "oci-layout";
        let marker: Marker = serde_json::from_slice(&read(path, name)?).map_err(malformed(name))?;
        if marker.image_layout_version != "1.0.0" {
            let version = marker.image_layout_version.chars().take(40).collect();
            return Err(LayoutError::Version { version });
        }
        let name = "index.json";
        let index = json::from_slice(&read(path, name)?).map_err(malformed(name))?;
        Ok(Self {
            path: path.to_owned(),
            index,
        })
    }

    /// The images of the layout, with their names as annotations.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Opens a blob. Its digest is not verified yet.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, LayoutError> {
        let name = blob_name(digest);
        File::open(self.path.join(&name)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LayoutError::Missing { digest: *digest },
            _ => LayoutError::Read { name, source },
        })
    }

    /// The bytes of a small blob (a manifest or configuration), verified.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let limit = limits::CONFIG_SIZE as u64;
        let mut bytes = Vec::new();
        self.open_blob(&descriptor.digest)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| LayoutError::Read {
                name: blob_name(&descriptor.digest),
                source,
            })?;
        verify(descriptor, Digest::sha256_of(&bytes), bytes.len() as u64)?;
        Ok(bytes)
    }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, LayoutError> {
    let error = |source| LayoutError::Read {
        name: name.to_owned(),
        source,
    };
    let path = path.join(name);
    if fs::metadata(&path).map_err(error)?.len() > limits::MANIFEST_SIZE as u64 {
        return Err(error(io::Error::other("it is too long")));
    }
    fs::read(path).map_err(error)
}
