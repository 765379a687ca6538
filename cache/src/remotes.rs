//! What servers said of files that were downloaded, so that they can be asked whether a file is still the same.
//!
//! `remotes/<blake3 of the URL in hex>` (kind `remote`, version 1) is a [`RemoteFile`]. It says which content an URL
//! had when it was last asked, and nothing about where that content is: that is a record's business. The URL itself
//! is not in the file, since it may hold a password.
//!
//! Such a file may be lost or stale at any time; then the URL is downloaded once more. So nothing is synced, and the
//! folder is made when the first file is written.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_image::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    Result, error, files,
    sealed::{self, Flaw},
    store::Shared,
};

pub(crate) const KIND: &str = "remote";
pub(crate) const VERSION: u32 = 1;

/// What is known of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// The URL without what may be secret in it, for people.
    pub shown: String,
    /// The content that it had.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// The `ETag` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The `Last-Modified` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// The file was not new then, so that its time and size tell it from other versions.
    #[serde(default)]
    pub settled: bool,
}

/// Parses the bytes of such a file. Never panics, whatever the bytes are; for fuzzing and for tools.
pub fn parse(bytes: &[u8]) -> Result<RemoteFile, Flaw> {
    sealed::open(KIND, VERSION, bytes)
}

pub(crate) fn encode(file: &RemoteFile) -> Result<Vec<u8>> {
    sealed::seal(KIND, VERSION, file)
}

/// The files that were downloaded, by URL.
#[derive(Debug, Clone, Copy)]
pub struct Remotes<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Remotes<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What is known of `url`. What is found damaged goes to [`crate::Store::take_warnings`] and counts as nothing.
    pub fn get(&self, url: &str) -> Result<Option<RemoteFile>> {
        let path = self.path(url);
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        match parse(&bytes) {
            Ok(file) => {
                files::touch(&path);
                Ok(Some(file))
            }
            Err(Flaw::Newer(_)) => Ok(None),
            Err(Flaw::Damaged(reason)) => {
                self.shared.warn(self.shared.set_aside(&path, reason));
                Ok(None)
            }
        }
    }

    /// Remembers what is known of `url`.
    pub fn put(&self, url: &str, file: &RemoteFile) -> Result<()> {
        let folder = self.shared.root.join("remotes");
        std::fs::create_dir_all(&folder).map_err(error::io("create", folder))?;
        self.shared.temp.publish(&encode(file)?, &self.path(url), false)
    }

    fn path(self, url: &str) -> PathBuf {
        let name = blake3::hash(url.as_bytes()).to_hex();
        self.shared.root.join("remotes").join(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::RemoteFile;
    use crate::testing;
    use kiln_image::Digest;

    fn known() -> RemoteFile {
        RemoteFile {
            shown: "https://h/f".to_owned(),
            digest: Digest::from_bytes([7; 32]),
            size: 9,
            etag: Some("\"a\"".to_owned()),
            last_modified: None,
            settled: false,
        }
    }

    #[test]
    fn what_was_put_is_found_under_its_whole_url() {
        let (_scratch, store) = testing::store();
        let url = "https://user:secret@h/f?a=1";
        assert_eq!(store.remotes().get(url).unwrap(), None);
        store.remotes().put(url, &known()).unwrap();
        assert_eq!(store.remotes().get(url).unwrap(), Some(known()));
        assert_eq!(store.remotes().get("https://h/f?a=1").unwrap(), None);
        let changed = RemoteFile { size: 10, ..known() };
        store.remotes().put(url, &changed).unwrap();
        assert_eq!(store.remotes().get(url).unwrap(), Some(changed));
    }

    #[test]
    fn damage_is_a_miss_that_is_told() {
        let (_scratch, store) = testing::store();
        let url = "https://h/f";
        store.remotes().put(url, &known()).unwrap();
        let path = store.remotes().path(url);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.remotes().get(url).unwrap(), None, "{length} bytes");
            assert_eq!(store.take_warnings().len(), 1, "{length} bytes");
        }
    }
}
