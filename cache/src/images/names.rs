//! Files of images' names.

use kiln_image::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    sealed::{self, Flaw},
};

pub(super) const NAME: &str = "name";
pub(super) const NAME_VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct NameFile {
    name: String,
    image: Digest,
}

/// Parses the bytes of a name's file called `file`: the name and its image. Never panics, whatever the bytes are.
pub fn parse_name(bytes: &[u8], file: &str) -> Result<(String, Digest), Flaw> {
    let read: NameFile = sealed::open(NAME, NAME_VERSION, bytes)?;
    if escape(&read.name) == file {
        return Ok((read.name, read.image));
    }
    Err(Flaw::Damaged(format!("is the file of the name {:?}", read.name)))
}

pub(crate) fn encode_name(name: &str, image: &Digest) -> Result<Vec<u8>> {
    sealed::seal(
        NAME,
        NAME_VERSION,
        &NameFile {
            name: name.to_owned(),
            image: *image,
        },
    )
}

/// The canonical form of a name that a user gives; none of one with a digest.
pub(super) fn canonical(text: &str) -> Option<String> {
    let reference = Reference::parse(text).ok()?;
    reference.digest.is_none().then(|| reference.to_string())
}

/// A name as a file name: all but `[A-Za-z0-9._-]` as `%XX`; of a very long one, a hash.
pub(super) fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || (matches!(byte, b'.' | b'_' | b'-') && !out.is_empty()) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    if out.len() > 240 {
        format!("%%{}", blake3::hash(name.as_bytes()).to_hex())
    } else {
        out
    }
}
