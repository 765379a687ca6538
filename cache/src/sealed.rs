//! The envelope of every small readable file of the store:
//!
//! ```text
//! kiln-record 1 c0ffee…\n       kind, format version, 128 bits of blake3 in hex
//! {"key": …}                   the body, JSON
//! ```
//!
//! The checksum covers kind, version and body, so a flipped bit anywhere is found before anything is believed.
//! The first line stays the same in all versions: an older reader can tell "newer than I know" (left alone, a
//! miss) from "damaged" (set aside).

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Why a sealed file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Intact, but written by a newer program.
    #[error("format {0} is newer than this program knows")]
    Newer(u32),
    /// Truncated, overwritten, or never a file of this kind.
    #[error("{0}")]
    Damaged(String),
}

fn checksum(kind: &str, version: u32, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(kind.as_bytes())
        .update(b"\0")
        .update(&version.to_le_bytes())
        .update(body);
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Puts `body` into the envelope.
pub(crate) fn seal_bytes(kind: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut out = format!("kiln-{kind} {version} {}\n", checksum(kind, version, body)).into_bytes();
    out.extend_from_slice(body);
    out
}

/// The envelope around any body, right or wrong; so that fuzzers and tools get past the checksum.
pub fn seal_for_tests(kind: &str, version: u32, body: &[u8]) -> Vec<u8> {
    seal_bytes(kind, version, body)
}

/// Takes the body out of the envelope.
pub(crate) fn open_bytes<'a>(kind: &str, known: u32, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
    let damaged = |reason: &str| Flaw::Damaged(reason.to_owned());
    let end = bytes
        .iter()
        .take(128)
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| damaged("no first line"))?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("first line is no text"))?;
    let mut words = line.split(' ');
    let (Some(name), Some(version), Some(sum), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(damaged("first line has not three words"));
    };
    if name.strip_prefix("kiln-") != Some(kind) {
        return Err(damaged("another kind of file"));
    }
    let version: u32 = version.parse().map_err(|_| damaged("no format version"))?;
    let body = &bytes[end + 1..];
    if checksum(kind, version, body) != sum {
        return Err(damaged("checksum does not match"));
    }
    match version {
        0 => Err(damaged("format version 0")),
        _ if version > known => Err(Flaw::Newer(version)),
        _ => Ok(body),
    }
}

/// Encodes a value as a sealed file.
pub(crate) fn seal<T: Serialize>(kind: &'static str, version: u32, value: &T) -> Result<Vec<u8>> {
    let mut body = serde_json::to_vec(value).map_err(|source| Error::Encode { what: kind, source })?;
    body.push(b'\n');
    Ok(seal_bytes(kind, version, &body))
}

/// Decodes a sealed file.
pub(crate) fn open<T: DeserializeOwned>(kind: &str, known: u32, bytes: &[u8]) -> Result<T, Flaw> {
    let body = open_bytes(kind, known, bytes)?;
    serde_json::from_slice(body).map_err(|error| Flaw::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_newer() {
        let bytes = seal("thing", 1, &vec![1, 2, 3]).unwrap();
        assert_eq!(open::<Vec<u32>>("thing", 1, &bytes).unwrap(), vec![1, 2, 3]);
        let newer = seal("thing", 2, &vec![1]).unwrap();
        assert_eq!(open::<Vec<u32>>("thing", 1, &newer), Err(Flaw::Newer(2)));
        assert!(matches!(
            open::<Vec<u32>>("other", 1, &bytes),
            Err(Flaw::Damaged(_))
        ));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = seal("thing", 1, &"some text").unwrap();
        for at in 0..bytes.len() {
            assert!(
                matches!(open::<String>("thing", 1, &bytes[..at]), Err(Flaw::Damaged(_))),
                "cut {at}"
            );
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    matches!(open::<String>("thing", 1, &bad), Err(Flaw::Damaged(_))),
                    "bit {at}.{bit}"
                );
            }
        }
    }
}
