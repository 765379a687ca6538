//! What names a layer: its content.

use std::{fmt, str::FromStr, sync::Arc};

use kiln_image::Digest;
use kiln_tree::ContentHash;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The identity of a layer: of its content, and so what counts in cache keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(Arc<str>);

impl LayerId {
    /// A layer that came as a tar (pulled, imported), by its DiffID: `sha256-<hex>`.
    pub fn from_diff_id(diff_id: &Digest) -> Self {
        Self(format!("sha256-{}", diff_id.hex()).into())
    }

    /// A layer that was built here, by the content hash of its listing: `b3-<hex>`.
    pub fn from_content(hash: &ContentHash) -> Self {
        Self(format!("b3-{hash}").into())
    }

    /// The text of the id; safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The DiffID, if the id is made of one.
    pub fn diff_id(&self) -> Option<Digest> {
        self.0
            .strip_prefix("sha256-")
            .and_then(|hex| format!("sha256:{hex}").parse().ok())
    }
}

impl FromStr for LayerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix("sha256-").or_else(|| text.strip_prefix("b3-"));
        if hex.is_some_and(|hex| hex.parse::<ContentHash>().is_ok()) {
            return Ok(Self(text.into()));
        }
        let reason = "expected sha256- or b3- and 64 lower-case hexadecimal digits";
        Err(Error::Invalid {
            what: "layer id",
            text: text.chars().take(100).collect(),
            reason,
        })
    }
}

impl TryFrom<String> for LayerId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}
