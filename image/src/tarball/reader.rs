//! `TarReader`: the entries of a tar stream, one after the other, in bounded memory.

use std::collections::BTreeMap;
use std::io::{self, Read};

use kiln_tree::Timestamp;

use super::header::{checksum_holds, number};
use super::pax::{self, Records};
use super::sparse::{self, Region};
use super::{BLOCK, TarError, shown};
use crate::limits;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryType {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// An entry's metadata. Its data is read from the [`TarReader`].
#[derive(Debug)]
pub(crate) struct TarEntry {
    /// The name as it stands in the archive.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Text of a symbolic link or name of a hard link's target.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// Length of the file, holes included.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    regions: Option<Vec<Region>>,
}

impl TarEntry {
    /// How many bytes of the file are holes.
    pub(crate) fn holes(&self) -> u64 {
        self.regions.as_ref().map_or(0, |regions| {
            let stored: u64 = regions.iter().map(|region| region.length).sum();
            self.size.saturating_sub(stored)
        })
    }
}

/// A piece of a file's content.
#[derive(Debug)]
pub(crate) enum Chunk<'a> {
    Data(&'a [u8]),
    /// So many zero bytes that the archive does not hold.
    Hole(u64),
}

/// Reads a tar stream.
pub(crate) struct TarReader<R> {
    inner: R,
    position: u64,
    /// Bytes of the current entry's data that were not read yet.
    remaining: u64,
    /// Bytes after the data up to the next block.
    padding: u64,
    buffer: Vec<u8>,
}

/// A file's data is passed on in pieces of this size: few system calls, and it stays in the processor's cache.
const BUFFER: usize = 128 << 10;
/// The id that means "unchanged" to the kernel and belongs to nobody.
const NOBODY: u32 = u32::MAX;
/// The largest device numbers that the kernel has. Of larger ones it would take some bits only.
const MAJOR: u32 = 0xfff;
const MINOR: u32 = 0xf_ffff;

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            remaining: 0,
            padding: 0,
            buffer: vec![0; BUFFER],
        }
    }

    /// The next entry; `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut records = Records::default();
        let (mut long_path, mut long_link) = (None, None);
        for extensions in 0.. {
            self.skip_rest()?;
            let position = self.position;
            let Some(header) = self.header()? else {
                if extensions > 0 {
                    return Err(TarError::Truncated { inside: "an entry" });
                }
                return Ok(None);
            };
            if extensions > limits::TAR_EXTENSIONS {
                let limit = limits::TAR_EXTENSION_SIZE;
                return Err(TarError::ExtensionSize { position, limit });
            }
            self.set_data(&header, size_field(&header)?)?;
            match header.as_bytes()[156] {
                b'L' => long_path = Some(self.long_name(position)?),
                b'K' => long_link = Some(self.long_name(position)?),
                b'x' | b'X' => {
                    let bytes = self.extension(position)?;
                    pax::parse(&bytes, &mut records).ok_or(TarError::Extension { position })?;
                }
                // Defaults for all entries: nothing that makes layers writes any but comments, and no engine heeds them.
                // A volume label is no file.
                b'g' | b'V' => {}
                _ => return self.entry(&header, records, long_path, long_link).map(Some),
            }
        }
        Ok(None)
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        mut records: Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<TarEntry, TarError> {
        let sparse_name = records.sparse.name.take();
        let path = sparse_name
            .or(records.path.take())
            .or(long_path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records
            .link
            .take()
            .or(long_link)
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = entry_type(header, &path)?;
        let stored = match (kind, header.as_bytes()[156]) {
            // A directory by its slash alone has what a file of its header has, or other readers would see other entries.
            (EntryType::File, _) | (EntryType::Directory, b'0' | 0) => {
                records.size.map_or_else(|| size_field(header), Ok)?
            }
            // All others have no data, whatever they state.
            _ => 0,
        };
        self.set_data(header, stored)?;
        let (size, regions) = match kind {
            EntryType::Directory => (0, None),
            _ => self.sparse_map(header, &path, &records, stored)?,
        };
        let field = |range: std::ops::Range<usize>, field: &'static str| {
            let value = number(&header.as_bytes()[range]).and_then(|value| u32::try_from(value).ok());
            value.ok_or_else(|| TarError::Field {
                path: shown(&path),
                field,
            })
        };
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => Timestamp {
                secs: number(&header.as_bytes()[136..148]).ok_or_else(|| TarError::Field {
                    path: shown(&path),
                    field: "mtime",
                })?,
                nanos: 0,
            },
        };
        let device = match kind {
            EntryType::CharDevice | EntryType::BlockDevice => {
                let device = (
                    field(329..337, "device number")?,
                    field(337..345, "device number")?,
                );
                if device.0 > MAJOR || device.1 > MINOR {
                    return Err(TarError::Field {
                        path: shown(&path),
                        field: "device number",
                    });
                }
                device
            }
            _ => (0, 0),
        };
        let owner =
            |recorded: Option<u32>, range, name| match recorded.map_or_else(|| field(range, name), Ok)? {
                NOBODY => Err(TarError::Field {
                    path: shown(&path),
                    field: name,
                }),
                id => Ok(id),
            };
        let uid = owner(records.uid, 108..116, "uid")?;
        let gid = owner(records.gid, 116..124, "gid")?;
        Ok(TarEntry {
            kind,
            mode: field(100..108, "mode")? & 0o7777,
            uid,
            gid,
            mtime,
            size,
            device,
            xattrs: records.xattrs,
            regions,
            path,
            link,
        })
    }

    fn sparse_map(
        &mut self,
        header: &tar::Header,
        path: &[u8],
        records: &Records,
        stored: u64,
    ) -> Result<(u64, Option<Vec<Region>>), TarError> {
        let error = || TarError::Sparse { path: shown(path) };
        let (regions, real_size, stored) = if header.as_bytes()[156] == b'S' {
            let (regions, real_size) = self.gnu_sparse(header, path)?;
            (regions, real_size, stored)
        } else if let (Some(map), Some(real_size)) = (&records.sparse.map, records.sparse.real_size) {
            (sparse::pairs(path, map)?, real_size, stored)
        } else if let (true, Some(real_size)) = (records.sparse.map_in_data, records.sparse.real_size) {
            let (regions, used) = sparse::map_in_data(path, &mut self.inner, stored)?;
            self.position += used;
            self.remaining = self.remaining.checked_sub(used).ok_or_else(error)?;
            (regions, real_size, stored - used)
        } else {
            return Ok((stored, None));
        };
        sparse::check(path, &regions, real_size, stored)?;
        Ok((real_size, Some(regions)))
    }

    /// The old GNU form: four regions in the header, 21 in each extra block after it.
    fn gnu_sparse(&mut self, header: &tar::Header, path: &[u8]) -> Result<(Vec<Region>, u64), TarError> {
        let error = || TarError::Sparse { path: shown(path) };
        let block = header.as_bytes();
        let real_size = number(&block[483..495])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(error)?;
        let mut regions = Vec::new();
        let mut take = |list: &[u8]| -> Result<(), TarError> {
            for pair in list.chunks_exact(24).filter(|pair| pair[0] != 0) {
                let value = |field| {
                    number(field)
                        .and_then(|n| u64::try_from(n).ok())
                        .ok_or_else(error)
                };
                let (offset, length) = (value(&pair[..12])?, value(&pair[12..])?);
                regions.push(Region { offset, length });
            }
            if regions.len() > limits::SPARSE_REGIONS {
                return Err(error());
            }
            Ok(())
        };
        take(&block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            read_exact(&mut self.inner, &mut block, "a sparse map")?;
            self.position += BLOCK as u64;
            take(&block[..504])?;
            more = block[504] != 0;
        }
        Ok((regions, real_size))
    }

    /// Passes the content of `entry`, the one that [`Self::next`] just gave, to `sink` piece by piece.
    pub(crate) fn content<E: From<TarError>>(
        &mut self,
        entry: &TarEntry,
        mut sink: impl FnMut(Chunk<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let whole = [Region {
            offset: 0,
            length: entry.size,
        }];
        let mut end = 0;
        for region in entry.regions.as_deref().unwrap_or(&whole) {
            if region.offset > end {
                sink(Chunk::Hole(region.offset - end))?;
            }
            let mut left = region.length;
            while left > 0 {
                let want = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
                read_exact(&mut self.inner, &mut self.buffer[..want], "an entry's data")?;
                self.position += want as u64;
                self.remaining -= want as u64;
                left -= want as u64;
                sink(Chunk::Data(&self.buffer[..want]))?;
            }
            end = region.offset + region.length;
        }
        if entry.size > end {
            sink(Chunk::Hole(entry.size - end))?;
        }
        Ok(())
    }

    /// Reads whatever follows the archive, so that all of the stream was seen.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        loop {
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                // Some writers leave the closing zero blocks out.
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated { inside: "a header" }),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let position = self.position;
        self.position += BLOCK as u64;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !checksum_holds(block) {
            return Err(TarError::Checksum { position });
        }
        Ok(Some(header))
    }

    fn set_data(&mut self, header: &tar::Header, size: u64) -> Result<(), TarError> {
        if size > limits::LAYER_SIZE {
            return Err(TarError::Field {
                path: shown(&header.path_bytes()),
                field: "size",
            });
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining + self.padding;
        while left > 0 {
            let want = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            read_exact(&mut self.inner, &mut self.buffer[..want], "an entry's data")?;
            left -= want as u64;
            self.position += want as u64;
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn extension(&mut self, position: u64) -> Result<Vec<u8>, TarError> {
        let limit = limits::TAR_EXTENSION_SIZE;
        if self.remaining > limit {
            return Err(TarError::ExtensionSize { position, limit });
        }
        let mut bytes = vec![0; self.remaining as usize];
        read_exact(&mut self.inner, &mut bytes, "an extension header")?;
        self.position += self.remaining;
        self.remaining = 0;
        Ok(bytes)
    }

    fn long_name(&mut self, position: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(position)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

fn read_exact(reader: &mut impl Read, buffer: &mut [u8], inside: &'static str) -> Result<(), TarError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TarError::Truncated { inside },
        _ => TarError::Read(error),
    })
}

fn size_field(header: &tar::Header) -> Result<u64, TarError> {
    let size = number(&header.as_bytes()[124..136]).and_then(|size| u64::try_from(size).ok());
    size.ok_or_else(|| TarError::Field {
        path: shown(&header.path_bytes()),
        field: "size",
    })
}

fn entry_type(header: &tar::Header, path: &[u8]) -> Result<EntryType, TarError> {
    Ok(match header.as_bytes()[156] {
        // The oldest tars know directories by the slash at the end.
        b'0' | 0 if path.ends_with(b"/") => EntryType::Directory,
        b'0' | 0 | b'7' | b'S' => EntryType::File,
        b'1' => EntryType::HardLink,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::CharDevice,
        b'4' => EntryType::BlockDevice,
        b'5' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => {
            return Err(TarError::Type {
                path: shown(path),
                kind: char::from(other),
            });
        }
    })
}
