//! `Key`: under which name a cache record is kept, and the readable parts that it is made of.

use std::{fmt, str::FromStr};

use kiln_image::Digest;
use serde::{Deserialize, Serialize};

use kiln_tree::ContentHash;

use crate::Error;

/// A cache key: a blake3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of `parts`, in their order, within `domain` (what kind of key it is: two domains never meet).
    /// Only names and values count; every text is preceded by its length, so nothing can run together.
    pub fn of(domain: &str, parts: &[KeyPart]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text("kiln key 1");
        text(domain);
        for part in parts {
            text(&part.name);
            text(&part.value);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ContentHash(self.0).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let reason = "expected 64 lower-case hexadecimal digits";
        text.parse::<ContentHash>()
            .map(|hash| Self(hash.0))
            .map_err(|_| Error::Invalid {
                what: "key",
                text: text.chars().take(80).collect(),
                reason,
            })
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One readable part of what a key is made of: `("command", "pip install …")`, `("env PATH", "/usr/bin")`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is.
    pub name: String,
    /// Its value. For a large set of files: the content hash of their listing.
    pub value: String,
    /// The blob that holds the whole listing, for a large set of files, so that *which* file changed can be told.
    /// Not part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Digest>,
}

impl KeyPart {
    /// A part that is its value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            listing: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_together() {
        let parts =
            |list: &[(&str, &str)]| list.iter().map(|(n, v)| KeyPart::new(*n, *v)).collect::<Vec<_>>();
        let keys = [
            Key::of("a", &parts(&[("x", "y")])),
            Key::of("b", &parts(&[("x", "y")])),
            Key::of("a", &parts(&[("xy", "")])),
            Key::of("a", &parts(&[("", "xy")])),
            Key::of("ax", &parts(&[("", "y")])),
            Key::of("a", &parts(&[("x", "y"), ("", "")])),
            Key::of("a", &[]),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
            assert_eq!(key.to_string().parse::<Key>().unwrap(), *key);
        }
    }

    #[test]
    fn the_listing_blob_does_not_count() {
        let mut part = KeyPart::new("files", "abc");
        let key = Key::of("d", std::slice::from_ref(&part));
        part.listing = Some(Digest::sha256_of(b"listing"));
        assert_eq!(Key::of("d", &[part]), key);
    }
}
