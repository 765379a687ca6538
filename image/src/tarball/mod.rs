//! Reading and writing of tar streams. Headers are the `tar` crate's; the stream around them is read here, because a
//! foreign archive must neither take unbounded memory for a name nor lose an attribute that holds a newline.

mod header;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use header::is_tar_header;
pub(crate) use reader::{Chunk, EntryType, TarEntry, TarReader};
pub(crate) use write::{Member, MemberType, TarWriter};

/// Size of a tar block.
pub(crate) const BLOCK: usize = 512;

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ends inside an entry.
    #[error("tar stream ends early, inside {inside}")]
    Truncated {
        /// Which part: `a header`, `an entry's data`.
        inside: &'static str,
    },
    /// A header's checksum is wrong.
    #[error("tar header at byte {position} has a wrong checksum")]
    Checksum {
        /// Where the header is.
        position: u64,
    },
    /// A numeric field or record has no sensible value.
    #[error("tar entry {path:?} has an invalid {field}")]
    Field {
        /// The entry.
        path: String,
        /// Which field.
        field: &'static str,
    },
    /// An extension header is malformed.
    #[error("tar extension header at byte {position} is malformed")]
    Extension {
        /// Where it is.
        position: u64,
    },
    /// An extension header is too long, or there are too many.
    #[error("tar extension headers at byte {position} are larger than the {limit} bytes allowed")]
    ExtensionSize {
        /// Where it is.
        position: u64,
        /// The limit.
        limit: u64,
    },
    /// The map of a sparse file contradicts itself.
    #[error("tar entry {path:?} has an invalid sparse map")]
    Sparse {
        /// The entry.
        path: String,
    },
    /// A type of entry that cannot be unpacked.
    #[error("tar entry {path:?} has the unsupported type {kind:?}")]
    Type {
        /// The entry.
        path: String,
        /// The type's character.
        kind: char,
    },
    /// The source of the stream failed.
    #[error("read tar stream")]
    Read(#[from] std::io::Error),
}

/// A name as it is shown in errors: printable and not endless.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned()
}
