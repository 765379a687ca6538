//! The form of a listing on disk.
//!
//! ```text
//! 8 bytes   "kilnlist"
//! u32 LE    version (1)
//! u64 LE    length of the payload
//! 32 bytes  blake3 of the payload
//! payload   number of entries, entries
//! entry     path, kind, mode, uid, gid, xattrs, seconds (zigzag), nanoseconds
//! ```
//! Numbers are little-endian base 128; byte strings have their length in front.

use std::io::{self, Read, Write};

use super::content::{encode_kind, encode_number, encode_owner_and_xattrs, tag};
use crate::{ContentHash, Entry, EntryKind, Listing, Timestamp, TreePath};

const MAGIC: &[u8; 8] = b"kilnlist";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8 + 32;
/// No entry takes fewer bytes: path (2), kind, mode, uid, gid, xattr count, seconds, nanoseconds.
const SMALLEST_ENTRY: u64 = 9;

/// What an allocation of its own takes beside its bytes.
const ALLOCATION: usize = 16;
/// What a map of attributes takes as soon as it has any, and what each of them takes in it.
const XATTR_MAP: usize = 560;
const XATTR: usize = 2 * (size_of::<Vec<u8>>() + ALLOCATION);

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
    /// What they say takes more memory than may be spent on it.
    #[error("it takes more memory than there is for it")]
    Memory,
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
    pub fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        let mut bytes = vec![0; HEADER];
        encode_number(self.entries.len() as u64, &mut bytes);
        for entry in &self.entries {
            encode_kind(entry, &mut bytes);
            encode_number(entry.mode.into(), &mut bytes);
            encode_owner_and_xattrs(entry, &mut bytes);
            let Timestamp { secs, nanos } = entry.mtime;
            encode_number(((secs << 1) ^ (secs >> 63)) as u64, &mut bytes);
            encode_number(nanos.into(), &mut bytes);
        }
        let (header, payload) = bytes.split_at_mut(HEADER);
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..20].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        header[20..].copy_from_slice(ContentHash::of(payload).as_bytes());
        out.write_all(&bytes)
    }

    /// Reads what [`Self::write_to`] wrote; refuses anything else.
    pub fn read_from(mut input: impl Read) -> Result<Self, FormatError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        Self::from_bytes(&bytes)
    }

    /// As [`Self::read_from`], of bytes in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::from_payload(checked_payload(bytes)?)
    }

    /// As [`Self::from_bytes`], of foreign bytes: what the listing takes is about what its entries take, up to fifty times
    /// its bytes. It is taken off `room`, and more than that it may not be.
    pub fn from_foreign_bytes(bytes: &[u8], room: &mut usize) -> Result<Self, FormatError> {
        let (listing, left) = decode(checked_payload(bytes)?, *room)?;
        *room = left;
        Ok(listing)
    }

    /// Parses the part that the checksum covers, without the checksum: what a fuzzer should feed.
    pub fn from_payload(payload: &[u8]) -> Result<Self, FormatError> {
        decode(payload, usize::MAX).map(|(listing, _)| listing)
    }
}

/// The part that the checksum covers, if that is right.
fn checked_payload(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(FormatError::Magic)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(FormatError::Length)?;
    let found = u32::from_le_bytes(*version);
    if found != VERSION {
        return Err(FormatError::Version { found });
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(FormatError::Length)?;
    let (checksum, payload) = rest.split_first_chunk::<32>().ok_or(FormatError::Length)?;
    if u64::from_le_bytes(*length) != payload.len() as u64 {
        return Err(FormatError::Length);
    }
    if ContentHash::of(payload).as_bytes() != checksum {
        return Err(FormatError::Checksum);
    }
    Ok(payload)
}

/// The listing, and what it left of `room`.
fn decode(payload: &[u8], room: usize) -> Result<(Listing, usize), FormatError> {
    let mut decoder = Decoder { rest: payload, room };
    let refuse = |index| {
        move |reason| match reason {
            NO_ROOM => FormatError::Memory,
            reason => FormatError::Entry { index, reason },
        }
    };
    let count = decoder.number().map_err(refuse(0))?;
    if count > decoder.rest.len() as u64 / SMALLEST_ENTRY {
        return Err(FormatError::Length);
    }
    decoder
        .spend(count as usize * size_of::<Entry>())
        .map_err(refuse(0))?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count as usize);
    for index in 0..count {
        let entry = decoder.entry(&entries).map_err(refuse(index))?;
        entries.push(entry);
    }
    if decoder.rest.is_empty() {
        Ok((Listing { entries }, decoder.room))
    } else {
        Err(FormatError::Length)
    }
}

/// Stands for [`FormatError::Memory`].
const NO_ROOM: &str = "no room";

type Decoded<T> = Result<T, &'static str>;

struct Decoder<'a> {
    rest: &'a [u8],
    /// Bytes of memory that may still be taken.
    room: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, count: u64) -> Decoded<&'a [u8]> {
        let count = usize::try_from(count).map_err(|_| "truncated")?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("truncated")?;
        self.rest = rest;
        Ok(taken)
    }

    fn spend(&mut self, memory: usize) -> Decoded<()> {
        self.room = self.room.checked_sub(memory).ok_or(NO_ROOM)?;
        Ok(())
    }

    fn byte(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Decoded<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("number too large");
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                // One form a number, so that equal listings have equal bytes.
                return if byte == 0 && shift > 0 {
                    Err("overlong number")
                } else {
                    Ok(number)
                };
            }
        }
        Err("number too large")
    }

    fn small(&mut self) -> Decoded<u32> {
        u32::try_from(self.number()?).map_err(|_| "number too large")
    }

    fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let count = self.number()?;
        self.take(count)
    }

    fn path(&mut self) -> Decoded<TreePath> {
        let bytes = self.bytes()?;
        self.spend(bytes.len() + ALLOCATION)?;
        let path = TreePath::new(bytes).map_err(|_| "path is not canonical")?;
        if path.is_root() {
            Err("path is empty")
        } else {
            Ok(path)
        }
    }

    fn entry(&mut self, earlier: &[Entry]) -> Decoded<Entry> {
        let path = self.path()?;
        if earlier.last().is_some_and(|last| last.path >= path) {
            return Err("not in order");
        }
        let kind = self.kind(earlier)?;
        let mode = self.small()?;
        if mode > 0o7777 {
            return Err("mode too large");
        }
        let (uid, gid) = (self.small()?, self.small()?);
        let mut entry = Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime: Timestamp::default(),
            xattrs: [].into(),
        };
        for _ in 0..self.number()? {
            let (name, value) = (self.bytes()?, self.bytes()?);
            if name.is_empty() || name.contains(&0) {
                return Err("attribute name is not valid");
            }
            if entry
                .xattrs
                .last_key_value()
                .is_some_and(|(last, _)| &last[..] >= name)
            {
                return Err("attributes not in order");
            }
            let map = if entry.xattrs.is_empty() { XATTR_MAP } else { 0 };
            self.spend(map + XATTR + name.len() + value.len())?;
            entry.xattrs.insert(name.into(), value.into());
        }
        let secs = self.number()?;
        entry.mtime.secs = (secs >> 1) as i64 ^ -((secs & 1) as i64);
        entry.mtime.nanos = self.small()?;
        if entry.mtime.nanos >= 1_000_000_000 {
            return Err("nanoseconds too large");
        }
        Ok(entry)
    }

    fn kind(&mut self, earlier: &[Entry]) -> Decoded<EntryKind> {
        Ok(match self.byte()? {
            tag::DIRECTORY => EntryKind::Directory { opaque: false },
            tag::OPAQUE_DIRECTORY => EntryKind::Directory { opaque: true },
            tag::FILE => {
                let size = self.number()?;
                let content = self.take(32)?.try_into().map_err(|_| "truncated")?;
                EntryKind::File {
                    size,
                    content: ContentHash(content),
                }
            }
            tag::HARD_LINK => {
                let target = self.path()?;
                let named = earlier.binary_search_by(|entry| entry.path.cmp(&target));
                match named.ok().map(|at| &earlier[at].kind) {
                    Some(EntryKind::File { .. }) => EntryKind::HardLink { target },
                    _ => return Err("hard link to what is no earlier file"),
                }
            }
            tag::SYMLINK => match self.bytes()? {
                target if target.is_empty() || target.contains(&0) => return Err("link target is not valid"),
                target => {
                    self.spend(target.len() + ALLOCATION)?;
                    EntryKind::Symlink {
                        target: target.into(),
                    }
                }
            },
            tag::CHAR_DEVICE => EntryKind::CharDevice {
                major: self.small()?,
                minor: self.small()?,
            },
            tag::BLOCK_DEVICE => EntryKind::BlockDevice {
                major: self.small()?,
                minor: self.small()?,
            },
            tag::FIFO => EntryKind::Fifo,
            tag::SOCKET => EntryKind::Socket,
            tag::WHITEOUT => EntryKind::Whiteout,
            _ => return Err("unknown kind"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::listing::samples::{dir, file, link, opaque, symlink, whiteout};

    fn sample() -> Listing {
        let mut special = file("a/f", "text");
        special.mode = 0o6755;
        special
            .xattrs
            .insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
        special.xattrs.insert(b"user.empty".to_vec(), vec![]);
        let old = Entry {
            mtime: Timestamp {
                secs: -1,
                nanos: 999_999_999,
            },
            uid: u32::MAX,
            ..dir("a")
        };
        let kinds = [
            EntryKind::CharDevice { major: 1, minor: 300 },
            EntryKind::BlockDevice { major: 8, minor: 1 },
            EntryKind::Fifo,
            EntryKind::Socket,
        ];
        let mut entries = vec![
            old,
            special,
            link("a/g", "a/f"),
            symlink("b", "../x"),
            whiteout("c"),
            opaque("d"),
        ];
        entries.extend(
            kinds
                .into_iter()
                .zip(["e", "f", "g", "h"])
                .map(|(kind, at)| Entry { kind, ..dir(at) }),
        );
        Listing::from_entries(entries)
    }

    fn bytes_of(listing: &Listing) -> Vec<u8> {
        let mut bytes = Vec::new();
        listing.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_kind_round_trips() {
        for listing in [sample(), Listing::default()] {
            assert_eq!(Listing::read_from(&bytes_of(&listing)[..]).unwrap(), listing);
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let good = bytes_of(&sample());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(Listing::from_bytes(&bad).is_err(), "flip at {at}");
            assert!(Listing::from_bytes(&good[..at]).is_err(), "cut at {at}");
        }
        assert!(matches!(
            Listing::from_bytes(&[&good[..], b"x"].concat()),
            Err(FormatError::Length)
        ));
        assert!(matches!(
            Listing::from_bytes(b"something else"),
            Err(FormatError::Magic)
        ));
        let mut other = good;
        other[8] = 9;
        assert!(matches!(
            Listing::from_bytes(&other),
            Err(FormatError::Version { found: 9 })
        ));
    }

    #[test]
    fn right_checksum_with_wrong_content_is_refused() {
        let cases: &[(&str, Vec<Entry>)] = &[
            ("not in order", vec![dir("b"), dir("a")]),
            ("not in order", vec![dir("a"), dir("a")]),
            (
                "hard link to what is no earlier file",
                vec![dir("a"), link("b", "a")],
            ),
            (
                "hard link to what is no earlier file",
                vec![file("a", ""), link("b", "a"), link("c", "b")],
            ),
            (
                "hard link to what is no earlier file",
                vec![link("a", "b"), file("b", "")],
            ),
            ("link target is not valid", vec![symlink("a", "")]),
            (
                "mode too large",
                vec![Entry {
                    mode: 0o10000,
                    ..dir("a")
                }],
            ),
            (
                "nanoseconds too large",
                vec![Entry {
                    mtime: Timestamp {
                        secs: 0,
                        nanos: 1_000_000_000,
                    },
                    ..dir("a")
                }],
            ),
        ];
        for (reason, entries) in cases {
            let bytes = bytes_of(&Listing {
                entries: entries.clone(),
            });
            match Listing::from_bytes(&bytes) {
                Err(FormatError::Entry { reason: found, .. }) => assert_eq!(found, *reason),
                other => panic!("{reason}: {other:?}"),
            }
        }
    }

    #[test]
    fn foreign_listings_take_no_more_than_there_is() {
        let bytes = bytes_of(&sample());
        let mut room = 1 << 20;
        assert_eq!(Listing::from_foreign_bytes(&bytes, &mut room).unwrap(), sample());
        let taken = (1 << 20) - room;
        let entries = size_of_val(sample().entries());
        assert!(taken > entries + XATTR_MAP, "{taken} bytes");
        let mut room = taken;
        Listing::from_foreign_bytes(&bytes, &mut room).unwrap();
        assert_eq!(room, 0);
        for mut room in [0, 100, entries, taken - 1] {
            let before = room;
            assert!(matches!(
                Listing::from_foreign_bytes(&bytes, &mut room),
                Err(FormatError::Memory)
            ));
            assert_eq!(room, before);
        }
    }

    #[test]
    fn hostile_counts_do_not_allocate() {
        let mut payload = Vec::new();
        encode_number(u64::MAX, &mut payload);
        assert!(matches!(
            Listing::from_payload(&payload),
            Err(FormatError::Length)
        ));
        let mut path = vec![1];
        encode_number(u64::MAX, &mut path);
        path.extend([0; 16]);
        assert!(matches!(
            Listing::from_payload(&path),
            Err(FormatError::Entry {
                reason: "truncated",
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(listing) = Listing::from_payload(&payload) {
                // What was accepted has one form only.
                prop_assert_eq!(&bytes_of(&listing)[HEADER..], &payload[..]);
            }
        }

        #[test]
        fn mutated_listings_never_panic(at in 0usize..400, value in any::<u8>()) {
            let mut payload = bytes_of(&sample())[HEADER..].to_vec();
            let at = at % payload.len();
            payload[at] = value;
            if let Ok(listing) = Listing::from_payload(&payload) {
                prop_assert_eq!(&bytes_of(&listing)[HEADER..], &payload[..]);
            }
        }

        #[test]
        fn numbers_round_trip(number in any::<u64>()) {
            let mut bytes = Vec::new();
            encode_number(number, &mut bytes);
            prop_assert_eq!(Decoder { rest: &bytes, room: 0 }.number(), Ok(number));
        }
    }
}
