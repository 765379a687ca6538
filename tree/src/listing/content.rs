//! The canonical form of a tree's content, which its hash is taken of.

use crate::{ContentHash, ContentHasher, Entry, EntryKind};

/// First bytes of everything that is hashed; another number is another meaning of the rest.
const DOMAIN: &[u8] = b"kiln tree content 1\n";

/// Hashes entries, given in order, to the identity of their content: everything but timestamps.
#[derive(Debug)]
pub struct TreeHasher {
    hasher: ContentHasher,
    buffer: Vec<u8>,
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeHasher {
    /// A hasher of an empty tree.
    pub fn new() -> Self {
        let mut hasher = ContentHasher::new();
        hasher.update(DOMAIN);
        Self {
            hasher,
            buffer: Vec::new(),
        }
    }

    /// Adds the next entry.
    pub fn entry(&mut self, entry: &Entry) {
        // Small pieces are gathered, because blake3 is slow on them.
        encode(entry, &mut self.buffer);
        if self.buffer.len() >= 16 * 1024 {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// The hash of all entries so far.
    pub fn finish(mut self) -> ContentHash {
        self.hasher.update(&self.buffer);
        self.hasher.finish()
    }
}

/// One byte a kind of entry; part of both the hash and the stored form.
pub(super) mod tag {
    pub(in crate::listing) const DIRECTORY: u8 = 1;
    pub(in crate::listing) const OPAQUE_DIRECTORY: u8 = 2;
    pub(in crate::listing) const FILE: u8 = 3;
    pub(in crate::listing) const HARD_LINK: u8 = 4;
    pub(in crate::listing) const SYMLINK: u8 = 5;
    pub(in crate::listing) const CHAR_DEVICE: u8 = 6;
    pub(in crate::listing) const BLOCK_DEVICE: u8 = 7;
    pub(in crate::listing) const FIFO: u8 = 8;
    pub(in crate::listing) const SOCKET: u8 = 9;
    pub(in crate::listing) const WHITEOUT: u8 = 10;
}

/// Appends the canonical form of everything but the timestamp.
fn encode(entry: &Entry, out: &mut Vec<u8>) {
    encode_kind(entry, out);
    match entry.kind {
        // Nobody can see or set the rest of a whiteout.
        EntryKind::Whiteout => return,
        // Linux ignores a symlink's mode; archives carry all sorts.
        EntryKind::Symlink { .. } => encode_number(0o777, out),
        _ => encode_number(entry.mode.into(), out),
    }
    encode_owner_and_xattrs(entry, out);
}

/// Appends path and kind.
pub(super) fn encode_kind(entry: &Entry, out: &mut Vec<u8>) {
    encode_bytes(entry.path.as_bytes(), out);
    match &entry.kind {
        EntryKind::Directory { opaque: false } => out.push(tag::DIRECTORY),
        EntryKind::Directory { opaque: true } => out.push(tag::OPAQUE_DIRECTORY),
        EntryKind::File { size, content } => {
            out.push(tag::FILE);
            encode_number(*size, out);
            out.extend_from_slice(content.as_bytes());
        }
        EntryKind::HardLink { target } => {
            out.push(tag::HARD_LINK);
            encode_bytes(target.as_bytes(), out);
        }
        EntryKind::Symlink { target } => {
            out.push(tag::SYMLINK);
            encode_bytes(target, out);
        }
        EntryKind::CharDevice { major, minor } => encode_device(tag::CHAR_DEVICE, *major, *minor, out),
        EntryKind::BlockDevice { major, minor } => encode_device(tag::BLOCK_DEVICE, *major, *minor, out),
        EntryKind::Fifo => out.push(tag::FIFO),
        EntryKind::Socket => out.push(tag::SOCKET),
        EntryKind::Whiteout => out.push(tag::WHITEOUT),
    }
}

/// Appends owner, group and extended attributes.
pub(super) fn encode_owner_and_xattrs(entry: &Entry, out: &mut Vec<u8>) {
    encode_number(entry.uid.into(), out);
    encode_number(entry.gid.into(), out);
    encode_number(entry.xattrs.len() as u64, out);
    for (name, value) in &entry.xattrs {
        encode_bytes(name, out);
        encode_bytes(value, out);
    }
}

fn encode_device(tag: u8, major: u32, minor: u32, out: &mut Vec<u8>) {
    out.push(tag);
    encode_number(major.into(), out);
    encode_number(minor.into(), out);
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
pub(super) fn encode_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use crate::listing::samples::{dir, file, link, symlink, whiteout};
    use crate::{Entry, EntryKind, Listing, Timestamp};

    type Edit = dyn Fn(&mut Entry);

    fn hash(entries: &[Entry]) -> String {
        Listing::from_entries(entries.to_vec()).content_hash().to_string()
    }

    #[test]
    fn every_part_but_the_time_counts() {
        let base = file("a/f", "text");
        let reference = hash(&[dir("a"), base.clone()]);
        let change = |edit: &dyn Fn(&mut Entry)| {
            let mut entry = base.clone();
            edit(&mut entry);
            hash(&[dir("a"), entry])
        };
        assert_eq!(
            change(&|entry| entry.mtime = Timestamp { secs: 5, nanos: 6 }),
            reference
        );
        let edits: [(&str, &Edit); 6] = [
            ("mode", &|entry| entry.mode = 0o755),
            ("uid", &|entry| entry.uid = 1),
            ("gid", &|entry| entry.gid = 1),
            ("xattr", &|entry| {
                drop(entry.xattrs.insert(b"user.x".to_vec(), b"1".to_vec()));
            }),
            ("bytes", &|entry| entry.kind = file("x", "tex").kind),
            ("type", &|entry| entry.kind = EntryKind::Fifo),
        ];
        let mut seen = vec![reference];
        for (what, edit) in edits {
            let hash = change(edit);
            assert!(!seen.contains(&hash), "{what} does not count");
            seen.push(hash);
        }
    }

    #[test]
    fn structure_counts() {
        let variants = [
            hash(&[]),
            hash(&[dir("a")]),
            hash(&[Entry {
                kind: EntryKind::Directory { opaque: true },
                ..dir("a")
            }]),
            hash(&[whiteout("a")]),
            hash(&[symlink("a", "b")]),
            hash(&[symlink("a", "c")]),
            hash(&[file("a", "1"), file("b", "1")]),
            hash(&[file("a", "1"), link("b", "a")]),
            hash(&[Entry {
                kind: EntryKind::CharDevice { major: 1, minor: 2 },
                ..file("a", "")
            }]),
            hash(&[Entry {
                kind: EntryKind::CharDevice { major: 2, minor: 1 },
                ..file("a", "")
            }]),
            hash(&[Entry {
                kind: EntryKind::BlockDevice { major: 1, minor: 2 },
                ..file("a", "")
            }]),
        ];
        for (at, one) in variants.iter().enumerate() {
            assert!(!variants[..at].contains(one), "variant {at}");
        }
        assert_eq!(
            hash(&[Entry {
                mode: 0o644,
                ..symlink("a", "b")
            }]),
            hash(&[symlink("a", "b")])
        );
    }

    #[test]
    fn the_hash_of_today_stays_the_hash_of_tomorrow() {
        // Stored layers are named by it. A change of the encoding needs another DOMAIN.
        let listing = [
            dir("a"),
            file("a/f", "text"),
            link("a/g", "a/f"),
            symlink("b", "a"),
            whiteout("c"),
        ];
        assert_eq!(
            hash(&listing),
            "37655df054c8ace19c846dcc21fae08cce340e74ab88c7838ec95cb4374997cb"
        );
    }
}
