//! Ordinary tar archives, as `ADD` takes them.

use std::io::{self, Read};

use kiln_tree::Root;

use crate::layer::{LayerError, Refused};

/// The plain tar in `reader`, if it is one, compressed or not; told by content, never by name.
pub fn open<'a>(_reader: impl Read + Send + 'a) -> io::Result<Option<Box<dyn Read + Send + 'a>>> {
    todo!()
}

/// What [`extract`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What the file system or the kernel refused.
    pub refused: Refused,
}

/// Extracts the tar `reader` (plain, from [`open`]) into the directory `dest_path` of `dest`, which is made if missing.
/// Names are never whiteouts. All entries get `owner` where one is given.
pub fn extract(
    _reader: impl Read,
    _dest: &Root,
    _dest_path: impl AsRef<[u8]>,
    _owner: Option<(u32, u32)>,
) -> Result<Extracted, LayerError> {
    todo!()
}
