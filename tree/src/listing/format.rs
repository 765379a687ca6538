//! The form of a listing on disk.

use std::io::{self, Read, Write};

use crate::{Listing, Result};

/// Why some bytes are no listing.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading failed.
    #[error("read")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a listing")]
    Magic,
    /// It was written by another version of the format.
    #[error("format version {found} is not supported")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error("checksum does not match")]
    Checksum,
    /// The bytes end too early or go on too long.
    #[error("truncated or overlong")]
    Length,
    /// The checksum is right but what it covers is no valid listing.
    #[error("entry {index}: {reason}")]
    Entry {
        /// Which entry.
        index: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Listing {
    /// Writes the binary form: versioned, with a checksum.
    pub fn write_to(&self, _out: impl Write) -> io::Result<()> {
        todo!()
    }

    /// Reads what [`Self::write_to`] wrote; refuses anything else.
    pub fn read_from(_input: impl Read) -> Result<Self, FormatError> {
        todo!()
    }

    /// As [`Self::read_from`], of bytes in memory.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, FormatError> {
        todo!()
    }

    /// Parses the part that the checksum covers, without the checksum: what a fuzzer should feed.
    pub fn from_payload(_payload: &[u8]) -> Result<Self, FormatError> {
        todo!()
    }
}
