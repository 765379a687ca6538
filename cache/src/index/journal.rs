//! The journal: what a process tells the index without opening it.
//!
//! `index/journal/<pid>-<random>`, integers little-endian:
//!
//! ```text
//! header  "KILNJRNL"  version u32 = 1
//! frame   length u32, first 8 bytes of blake3 of the payload, payload
//! ```
//!
//! The payload is one [`Entry`]: a tag byte, milliseconds u64, then 1 *used*: item; 2 *step*: identity 32 bytes,
//! record key 32 bytes; 3 *forget*: item. An item is `l` or `r`, a length byte, and the layer id as text or the
//! key's 32 bytes. A reader takes frames up to the first that is not right: what a killed writer tore off is its
//! end. Its process keeps the file locked, and who merges leaves locked ones alone. A file of another version is
//! deleted unread: nothing in it is needed.

use crate::{Key, LayerId};

const MAGIC: &[u8; 8] = b"KILNJRNL";
const VERSION: u32 = 1;
const FRAME: usize = 12;
const MAX_PAYLOAD: usize = 256;

/// Something whose use is remembered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A layer.
    Layer(LayerId),
    /// A cache record.
    Record(Key),
}

/// One thing to tell the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The item was used.
    Used {
        /// Which one.
        item: Item,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// A step got a record.
    Step {
        /// What makes it the same step in another build.
        identity: Key,
        /// The key of its record.
        record: Key,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// The item is gone.
    Forget {
        /// Which one.
        item: Item,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// The first bytes of a journal file.
pub fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// The item as bytes, also its key in the index.
pub(crate) fn encode_item(item: &Item, out: &mut Vec<u8>) {
    let (tag, bytes) = match item {
        Item::Layer(id) => (b'l', id.as_str().as_bytes()),
        Item::Record(key) => (b'r', &key.as_bytes()[..]),
    };
    out.push(tag);
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

pub(crate) fn decode_item(bytes: &[u8]) -> Option<Item> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    if rest.len() != usize::from(length) {
        return None;
    }
    match tag {
        b'l' => Some(Item::Layer(std::str::from_utf8(rest).ok()?.parse().ok()?)),
        b'r' => Some(Item::Record(Key(rest.try_into().ok()?))),
        _ => None,
    }
}

/// Appends the frame of an entry.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(96);
    let (tag, at_ms) = match entry {
        Entry::Used { at_ms, .. } => (1, at_ms),
        Entry::Step { at_ms, .. } => (2, at_ms),
        Entry::Forget { at_ms, .. } => (3, at_ms),
    };
    payload.push(tag);
    payload.extend_from_slice(&at_ms.to_le_bytes());
    match entry {
        Entry::Used { item, .. } | Entry::Forget { item, .. } => encode_item(item, &mut payload),
        Entry::Step { identity, record, .. } => {
            payload.extend_from_slice(identity.as_bytes());
            payload.extend_from_slice(record.as_bytes());
        }
    }
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&blake3::hash(&payload).as_bytes()[..8]);
    out.extend_from_slice(&payload);
}

fn decode(payload: &[u8]) -> Option<Entry> {
    let (&tag, rest) = payload.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let at_ms = u64::from_le_bytes(*at);
    match tag {
        1 => Some(Entry::Used {
            item: decode_item(rest)?,
            at_ms,
        }),
        2 => {
            let (identity, rest) = rest.split_first_chunk::<32>()?;
            let record = <[u8; 32]>::try_from(rest).ok()?;
            Some(Entry::Step {
                identity: Key(*identity),
                record: Key(record),
                at_ms,
            })
        }
        3 => Some(Entry::Forget {
            item: decode_item(rest)?,
            at_ms,
        }),
        _ => None,
    }
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
        let layer = Item::Layer(LayerId::from_content(&ContentHash::of(b"x")));
        let (one, two) = (Key([1; 32]), Key([2; 32]));
        vec![
            Entry::Used {
                item: layer.clone(),
                at_ms: 1,
            },
            Entry::Step {
                identity: one,
                record: two,
                at_ms: 2,
            },
            Entry::Forget {
                item: Item::Record(two),
                at_ms: 3,
            },
            Entry::Forget {
                item: layer,
                at_ms: u64::MAX,
            },
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
