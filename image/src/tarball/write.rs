//! `TarWriter`: tar streams that depend on nothing but what is put in.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{BLOCK, pax};

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberType<'a> {
    File { size: u64 },
    HardLink { target: &'a [u8] },
    Symlink { target: &'a [u8] },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// A member's metadata. Names of directories end with a slash.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: MemberType<'a>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Writes ustar headers, with PAX extension headers only for what ustar cannot hold.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    out: W,
    /// Bytes of data that the current member still lacks.
    missing: u64,
    padding: usize,
    written: u64,
}

/// Longest name in a header. The prefix field for longer ones is not used: readers disagree about it.
const NAME: usize = 100;
/// Greatest numbers that fit into their fields as octal text.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            missing: 0,
            padding: 0,
            written: 0,
        }
    }

    /// Begins a member. Of a file, exactly `size` bytes of data must follow.
    pub(crate) fn member(&mut self, member: &Member<'_>) -> io::Result<()> {
        self.end_member()?;
        let records = records(member);
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            set_name(&mut header, b"PaxHeaders.0/member", 0);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(records.len() as u64);
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_cksum();
            self.put(header.as_bytes())?;
            self.put(&records)?;
            self.pad(records.len())?;
        }
        self.put(header(member).as_bytes())?;
        if let MemberType::File { size } = member.kind {
            self.missing = size;
            self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        }
        Ok(())
    }

    /// Data of the current member.
    pub(crate) fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let left = self.missing.checked_sub(data.len() as u64);
        self.missing = left.ok_or_else(|| io::Error::other("more data than the tar header states"))?;
        self.put(data)
    }

    /// Ends the archive; gives the writer and how many bytes went into it.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_member()?;
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.missing > 0 {
            return Err(io::Error::other("less data than the tar header states"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; BLOCK][..padding])
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.put(&[0; BLOCK][..length.next_multiple_of(BLOCK) - length])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn link<'a>(member: &Member<'a>) -> &'a [u8] {
    match member.kind {
        MemberType::HardLink { target } | MemberType::Symlink { target } => target,
        _ => b"",
    }
}

/// The extension records that the member needs, sorted by key.
fn records(member: &Member<'_>) -> Vec<u8> {
    let mut records = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut number = |key: &str, value: String| {
        records.insert(key.into(), value.into_bytes());
    };
    if member.uid > MAX_ID {
        number("uid", member.uid.to_string());
    }
    if member.gid > MAX_ID {
        number("gid", member.gid.to_string());
    }
    if !fits_time(member.mtime) {
        number("mtime", member.mtime.to_string());
    }
    if let MemberType::File { size } = member.kind
        && size > MAX_SIZE
    {
        number("size", size.to_string());
    }
    if member.name.len() > NAME {
        records.insert(b"path".to_vec(), member.name.to_vec());
    }
    if link(member).len() > NAME {
        records.insert(b"linkpath".to_vec(), link(member).to_vec());
    }
    for (name, value) in member.xattrs.into_iter().flatten() {
        records.insert([pax::XATTR, name].concat(), value.clone());
    }
    records
        .iter()
        .flat_map(|(key, value)| pax::record(key, value))
        .collect()
}

fn fits_time(mtime: i64) -> bool {
    u64::try_from(mtime).is_ok_and(|mtime| mtime <= MAX_SIZE)
}

fn header(member: &Member<'_>) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    set_name(&mut header, member.name, 0);
    set_name(&mut header, link(member), 157);
    header.set_mode(member.mode & 0o7777);
    header.set_uid(u64::from(if member.uid > MAX_ID { 0 } else { member.uid }));
    header.set_gid(u64::from(if member.gid > MAX_ID { 0 } else { member.gid }));
    header.set_mtime(if fits_time(member.mtime) {
        member.mtime as u64
    } else {
        0
    });
    header.set_size(match member.kind {
        MemberType::File { size } if size <= MAX_SIZE => size,
        _ => 0,
    });
    header.set_entry_type(match member.kind {
        MemberType::File { .. } => tar::EntryType::Regular,
        MemberType::HardLink { .. } => tar::EntryType::Link,
        MemberType::Symlink { .. } => tar::EntryType::Symlink,
        MemberType::CharDevice { .. } => tar::EntryType::Char,
        MemberType::BlockDevice { .. } => tar::EntryType::Block,
        MemberType::Directory => tar::EntryType::Directory,
        MemberType::Fifo => tar::EntryType::Fifo,
    });
    let (major, minor) = match member.kind {
        MemberType::CharDevice { major, minor } | MemberType::BlockDevice { major, minor } => (major, minor),
        _ => (0, 0),
    };
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    header.set_cksum();
    header
}

/// Puts as much of `name` into a name field as fits.
fn set_name(header: &mut tar::Header, name: &[u8], at: usize) {
    let length = name.len().min(NAME);
    header.as_mut_bytes()[at..at + length].copy_from_slice(&name[..length]);
}
