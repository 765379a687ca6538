//! The identity of the running boot of the kernel: what was written since it began is in the page cache or on
//! disk, and can be trusted without a sync.

use std::{fmt, io, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The id of one boot: 1 to 64 characters of `[0-9a-f-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

impl BootId {
    /// The text of the id; safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BootId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let good = !text.is_empty()
            && text.len() <= 64
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        if !good {
            let reason = "expected 1 to 64 characters of 0-9, a-f and '-'";
            return Err(Error::Invalid {
                what: "boot id",
                text: text.to_owned(),
                reason,
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for BootId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> Self {
        id.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of the boot that is running now.
pub fn id() -> Result<BootId, Error> {
    let text = std::fs::read_to_string(BOOT_ID).map_err(crate::error::io("read", BOOT_ID))?;
    text.parse().map_err(|_| Error::Io {
        action: "understand",
        path: BOOT_ID.into(),
        source: io::Error::from(io::ErrorKind::InvalidData),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_boot() {
        let id = id().unwrap();
        assert_eq!(id.as_str().len(), 36);
        assert_eq!(super::id().unwrap(), id);
    }

    #[test]
    fn refuses_what_is_no_file_name() {
        for text in ["", "../x", "a/b", "ABC", &"a".repeat(65)] {
            assert!(text.parse::<BootId>().is_err(), "{text:?}");
        }
    }
}
