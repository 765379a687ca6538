//! The blobs that a layer's tar is known as: compressed in some way, or as it came from a registry.
//!
//! `variants/<hex of the DiffID>/<form>` (kind `variant`, version 1) is a [`Variant`]. `form` says how the tar became
//! the blob (`gzip-6`, `zstd-3`), or that the blob was pulled ([`ORIGINAL`]). So a layer is compressed once, however
//! often it is pushed, and a pulled one goes out as it came in.
//!
//! Such a file may be lost at any time: then the layer is compressed once more. It is believed only as far as its
//! blob is in the store and in order, so it has no stamp and is never synced, and the folders are made when they are
//! needed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, error, files, lease,
    sealed::{self, Flaw},
    store::Shared,
};

pub(crate) const KIND: &str = "variant";
pub(crate) const VERSION: u32 = 1;

/// The form of a blob that was pulled or loaded.
pub const ORIGINAL: &str = "original";

/// Repositories remembered of one blob. More would not help: one on the right registry is enough.
const REPOSITORIES: usize = 32;

/// One blob of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The sha256 of the uncompressed tar.
    pub diff_id: Digest,
    /// How the blob was made.
    pub form: String,
    /// The blob.
    pub blob: Descriptor,
    /// Repositories (`registry/path`) that have the blob: it came from there, or was brought there.
    #[serde(default)]
    pub repositories: BTreeSet<String>,
}

/// Parses the bytes of such a file. Never panics, whatever the bytes are; for fuzzing and for tools.
pub fn parse(bytes: &[u8]) -> Result<Variant, Flaw> {
    sealed::open(KIND, VERSION, bytes)
}

/// The bytes of such a file; what [`parse`] reads back.
pub fn encode(variant: &Variant) -> Result<Vec<u8>> {
    sealed::seal(KIND, VERSION, variant)
}

/// The blobs of layers, by DiffID.
#[derive(Debug, Clone, Copy)]
pub struct Variants<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Variants<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The blob of this form, if one is known. Whether the store has its bytes is another question.
    pub fn get(&self, diff_id: &Digest, form: &str) -> Result<Option<Variant>> {
        let path = self.path(diff_id, form)?;
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(None);
        };
        let reason = match parse(&bytes) {
            Ok(variant) if variant.diff_id == *diff_id && variant.form == form => return Ok(Some(variant)),
            Ok(variant) => format!("is of layer {} as {}", variant.diff_id, variant.form),
            Err(Flaw::Newer(_)) => return Ok(None),
            Err(Flaw::Damaged(reason)) => reason,
        };
        self.shared.warn(self.shared.set_aside(&path, reason));
        Ok(None)
    }

    /// All that is known of a layer.
    pub fn of(&self, diff_id: &Digest) -> Result<Vec<Variant>> {
        let mut found = Vec::new();
        for form in files::names(&self.folder(diff_id))? {
            if is_form(&form) {
                found.extend(self.get(diff_id, &form)?);
            }
        }
        Ok(found)
    }

    /// Remembers a blob, in addition to the repositories that are known to have it.
    pub fn put(&self, variant: &Variant) -> Result<()> {
        let path = self.path(&variant.diff_id, &variant.form)?;
        // Two that add a repository at once must not lose each other's.
        let _turn = lease::short(&self.shared.root, "variants")?;
        let known = self.get(&variant.diff_id, &variant.form)?;
        let mut merged = variant.clone();
        if let Some(known) = &known
            && known.blob.digest == variant.blob.digest
        {
            merged.repositories.extend(known.repositories.iter().cloned());
        }
        while merged.repositories.len() > REPOSITORIES {
            let dropped = merged
                .repositories
                .iter()
                .find(|name| !variant.repositories.contains(*name))
                .or_else(|| merged.repositories.first())
                .cloned();
            let Some(dropped) = dropped else { break };
            merged.repositories.remove(&dropped);
        }
        if known.as_ref() == Some(&merged) {
            return Ok(());
        }
        let folder = self.folder(&variant.diff_id);
        std::fs::create_dir_all(&folder).map_err(error::io("create", folder))?;
        self.shared.temp.publish(&encode(&merged)?, &path, false)
    }

    /// Remembers that `repository` has the blob `digest` of the layer, whichever form it is.
    pub fn add_repository(&self, diff_id: &Digest, digest: &Digest, repository: &str) -> Result<()> {
        for mut variant in self.of(diff_id)? {
            if variant.blob.digest == *digest && variant.repositories.insert(repository.to_owned()) {
                self.put(&variant)?;
            }
        }
        Ok(())
    }

    /// The DiffIDs of all layers with a blob, as far as the folders' names go.
    pub fn list(&self) -> Result<Vec<Digest>> {
        files::digests(&self.shared.root.join("variants"))
    }

    /// Forgets one blob of a layer.
    pub(crate) fn forget(self, diff_id: &Digest, form: &str) -> Result<()> {
        files::remove_if_there(&self.path(diff_id, form)?)?;
        // Others keep the folder, and it may come back.
        let _ = std::fs::remove_dir(self.folder(diff_id));
        Ok(())
    }

    /// Where all of one layer is.
    pub(crate) fn folder(self, diff_id: &Digest) -> PathBuf {
        self.shared.root.join("variants").join(diff_id.hex())
    }

    fn path(self, diff_id: &Digest, form: &str) -> Result<PathBuf> {
        if is_form(form) {
            return Ok(self.folder(diff_id).join(form));
        }
        Err(Error::Invalid {
            what: "form of a blob",
            text: form.chars().take(100).collect(),
            reason: "expected lower-case letters, digits and hyphens",
        })
    }
}

pub(crate) fn is_form(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{seal_for_tests, testing};

    proptest! {
        #[test]
        fn a_variant_survives_writing_and_reading(
            form in "[a-z0-9-]{1,64}", size in any::<u64>(), media_type in ".{0,30}",
            repositories in proptest::collection::btree_set(".{0,20}", 0..5),
        ) {
            let written = Variant {
                form,
                blob: Descriptor::new(&media_type, Digest::from_bytes([8; 32]), size),
                repositories,
                ..variant("none", &[])
            };
            prop_assert_eq!(parse(&encode(&written).unwrap()).unwrap(), written);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            let _ = parse(&bytes);
            let _ = parse(&seal_for_tests(KIND, VERSION, &bytes));
            let json = format!("{{\"diff_id\":\"{text}\",\"form\":\"{text}\",\"blob\":{text}}}");
            let _ = parse(&seal_for_tests(KIND, VERSION, json.as_bytes()));
        }

        /// Whatever becomes of a byte of the file: it is told, or nothing is changed by it.
        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let whole = encode(&variant("gzip-6", &["r/a"])).unwrap();
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes).is_err(), "byte {at}");
        }
    }

    fn variant(form: &str, repositories: &[&str]) -> Variant {
        Variant {
            diff_id: Digest::from_bytes([7; 32]),
            form: form.to_owned(),
            blob: Descriptor::new("m/t", Digest::from_bytes([8; 32]), 9),
            repositories: repositories.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn repositories_add_up_until_the_blob_changes() {
        let (_scratch, store) = testing::store();
        let variants = store.variants();
        let diff_id = Digest::from_bytes([7; 32]);
        assert_eq!(variants.get(&diff_id, "gzip-6").unwrap(), None);
        assert_eq!(variants.of(&diff_id).unwrap(), []);
        variants.put(&variant("gzip-6", &["r/a"])).unwrap();
        variants.put(&variant("gzip-6", &["r/b"])).unwrap();
        variants.put(&variant(ORIGINAL, &[])).unwrap();
        let known = variants.get(&diff_id, "gzip-6").unwrap();
        assert_eq!(known, Some(variant("gzip-6", &["r/a", "r/b"])));
        variants
            .add_repository(&diff_id, &Digest::from_bytes([8; 32]), "r/c")
            .unwrap();
        let all = variants.of(&diff_id).unwrap();
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|variant| variant.repositories.contains("r/c")));
        let other = Variant {
            blob: Descriptor::new("m/t", Digest::from_bytes([9; 32]), 9),
            ..variant("gzip-6", &["r/d"])
        };
        variants.put(&other).unwrap();
        assert_eq!(variants.get(&diff_id, "gzip-6").unwrap(), Some(other));
        assert_eq!(variants.list().unwrap(), [diff_id]);
    }

    #[test]
    fn the_list_of_repositories_is_bounded_and_keeps_the_newest() {
        let (_scratch, store) = testing::store();
        for at in 0..2 * REPOSITORIES {
            let name = format!("r/{at}");
            store.variants().put(&variant("none", &[&name])).unwrap();
            let known = store
                .variants()
                .get(&Digest::from_bytes([7; 32]), "none")
                .unwrap()
                .unwrap();
            assert!(known.repositories.contains(&name));
            assert!(known.repositories.len() <= REPOSITORIES);
        }
    }

    #[test]
    fn a_form_is_no_path() {
        let (_scratch, store) = testing::store();
        for form in ["", "../x", "a/b", "A", "."] {
            assert!(store.variants().put(&variant(form, &[])).is_err(), "{form:?}");
        }
    }

    #[test]
    fn damage_is_a_miss_that_is_told() {
        let (_scratch, store) = testing::store();
        let diff_id = Digest::from_bytes([7; 32]);
        store.variants().put(&variant("none", &["r/a"])).unwrap();
        let path = store.variants().path(&diff_id, "none").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.variants().get(&diff_id, "none").unwrap(), None);
            assert_eq!(store.take_warnings().len(), 1, "{length} bytes");
        }
    }
}
