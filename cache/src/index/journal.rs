//! The journal: what a process tells the index without opening it.
//!
//! `index/journal/<pid>-<random>`, integers little-endian:
//!
//! ```text
//! header  "KILNJRNL"  version u32 = 2
//! frame   length u32, first 8 bytes of blake3 of the payload, payload
//! ```
//!
//! The payload is one [`Entry`]: a tag byte, then 1 *record*: key 32 bytes, number of layers u16, each a length byte
//! and its id as text, number of lists u16, each 32 bytes; 2 *layer gone*: its id as text; 3 *list gone*: 32 bytes. A
//! reader takes frames up to the first that is not right: what a killed writer tore off is its end. Its process keeps
//! the file locked, and who merges leaves locked ones alone. A file of another version is deleted unread: the
//! database of that version is built anew, too.

use kiln_image::Digest;

use crate::{Key, LayerId, Record};

const MAGIC: &[u8; 8] = b"KILNJRNL";
const VERSION: u32 = 2;
const FRAME: usize = 12;
const MAX_PAYLOAD: usize = 1 << 20;

/// One thing to tell the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record is about to be there.
    Record {
        /// Its key.
        key: Key,
        /// The layers of its result, the lowest first.
        output: Vec<LayerId>,
        /// The lists of files that it refers to.
        lists: Vec<Digest>,
    },
    /// A layer was deleted.
    LayerGone(LayerId),
    /// A list of files was deleted.
    ListGone(Digest),
}

impl Entry {
    /// What the index wants to know of a record.
    pub fn of(record: &Record) -> Self {
        Self::Record {
            key: record.key,
            output: record.output.clone(),
            lists: record.lists().collect(),
        }
    }
}

/// The first bytes of a journal file.
pub fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Appends the frame of an entry. One that is too long to be of a real record is left out, and so unknown.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(256);
    match entry {
        Entry::Record { key, output, lists } => {
            let (Ok(layers), Ok(count)) = (u16::try_from(output.len()), u16::try_from(lists.len())) else {
                return;
            };
            payload.push(1);
            payload.extend_from_slice(key.as_bytes());
            payload.extend_from_slice(&layers.to_le_bytes());
            for layer in output {
                let text = layer.as_str().as_bytes();
                // An id is 67 or 71 bytes.
                payload.push(text.len() as u8);
                payload.extend_from_slice(text);
            }
            payload.extend_from_slice(&count.to_le_bytes());
            for list in lists {
                payload.extend_from_slice(list.as_bytes());
            }
        }
        Entry::LayerGone(layer) => {
            payload.push(2);
            payload.extend_from_slice(layer.as_str().as_bytes());
        }
        Entry::ListGone(list) => {
            payload.push(3);
            payload.extend_from_slice(list.as_bytes());
        }
    }
    if payload.len() > MAX_PAYLOAD {
        return;
    }
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&blake3::hash(&payload).as_bytes()[..8]);
    out.extend_from_slice(&payload);
}

fn decode(payload: &[u8]) -> Option<Entry> {
    let (&tag, rest) = payload.split_first()?;
    match tag {
        1 => decode_record(rest),
        2 => Some(Entry::LayerGone(layer(rest)?)),
        3 => Some(Entry::ListGone(Digest::from_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

fn decode_record(bytes: &[u8]) -> Option<Entry> {
    let (key, mut rest) = bytes.split_first_chunk::<32>()?;
    let mut output = Vec::new();
    for _ in 0..count(&mut rest)? {
        let (length, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(*length))?;
        output.push(layer(text)?);
        rest = after;
    }
    let mut lists = Vec::new();
    for _ in 0..count(&mut rest)? {
        let (list, after) = rest.split_first_chunk::<32>()?;
        lists.push(Digest::from_bytes(*list));
        rest = after;
    }
    rest.is_empty().then_some(Entry::Record {
        key: Key(*key),
        output,
        lists,
    })
}

fn count(bytes: &mut &[u8]) -> Option<u16> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(u16::from_le_bytes(*number))
}

fn layer(text: &[u8]) -> Option<LayerId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The entries of a journal file up to the first byte that is not right. Never panics, whatever the bytes are.
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(header().as_slice()) else {
        return entries;
    };
    while let Some((frame, after)) = rest.split_first_chunk::<FRAME>() {
        let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        if length > MAX_PAYLOAD || length > after.len() {
            break;
        }
        let (payload, next) = after.split_at(length);
        if blake3::hash(payload).as_bytes()[..8] != frame[4..] {
            break;
        }
        // A right checksum on an unknown entry: of a later writer of this version. Skipped.
        entries.extend(decode(payload));
        rest = next;
    }
    entries
}

#[cfg(test)]
mod tests {
    use kiln_tree::ContentHash;
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vec<Entry> {
        let layers = [
            LayerId::from_diff_id(&Digest::from_bytes([1; 32])),
            LayerId::from_content(&ContentHash::of(b"x")),
        ];
        let lists = vec![Digest::from_bytes([2; 32]), Digest::from_bytes([3; 32])];
        vec![
            Entry::Record {
                key: Key([1; 32]),
                output: layers.to_vec(),
                lists: lists.clone(),
            },
            Entry::Record {
                key: Key([2; 32]),
                output: vec![],
                lists: vec![],
            },
            Entry::LayerGone(layers[1].clone()),
            Entry::ListGone(lists[0]),
        ]
    }

    fn bytes(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = header();
        for entry in entries {
            encode(entry, &mut bytes);
        }
        bytes
    }

    #[test]
    fn round_trip_and_torn_ends() {
        let all = some();
        let whole = bytes(&all);
        assert_eq!(parse(&whole), all);
        for end in 0..whole.len() {
            let read = parse(&whole[..end]);
            assert!(read.len() < all.len());
            assert_eq!(read, all[..read.len()], "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            let read = parse(&bad);
            assert!(read.len() < all.len(), "byte {at}");
            assert_eq!(read, all[..read.len()], "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&body);
            let mut bytes = header();
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&blake3::hash(&body).as_bytes()[..8]);
            bytes.extend_from_slice(&body);
            parse(&bytes);
        }
    }
}
