//! Extended attributes.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Root;
use super::resolve::proc_path;
use crate::Result;
use crate::error::io_error;

/// Larger than any value on most file systems, so that one call is enough.
const FIRST_TRY: usize = 4096;

impl Root {
    /// The names of all extended attributes.
    pub fn list_xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let path = path.as_ref();
        let place = self.locate("list extended attributes", path)?;
        let subject = Subject::Path(place.proc_path());
        let names = subject
            .names()
            .map_err(io_error("list extended attributes", path))?;
        Ok(split_names(&names).map(<[u8]>::to_vec).collect())
    }

    /// The value of an extended attribute, `None` when there is none of that name.
    pub fn get_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let place = self.locate("read extended attribute", path)?;
        let subject = Subject::Path(place.proc_path());
        subject
            .value(name.as_ref())
            .map_err(io_error("read extended attribute", path))
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let place = self.locate("set extended attribute", path)?;
        rustix::fs::lsetxattr(place.proc_path(), name.as_ref(), value, XattrFlags::empty())
            .map_err(io_error("set extended attribute", path))
    }
}

/// Whose attributes are read.
pub(crate) enum Subject<'a> {
    /// Those of an open file.
    Open(BorrowedFd<'a>),
    /// Those of a path, not following a symlink.
    Path(Vec<u8>),
}

impl<'a> Subject<'a> {
    /// `name` in `dir`.
    pub(crate) fn at(dir: BorrowedFd<'a>, name: &[u8]) -> Self {
        Self::Path(proc_path(dir, name))
    }

    /// All attributes that `keep` wants.
    pub(crate) fn read(
        &self,
        keep: impl Fn(&[u8]) -> bool,
    ) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for name in split_names(&self.names()?).filter(|name| keep(name)) {
            if let Some(value) = self.value(name)? {
                found.insert(name.to_vec(), value);
            }
        }
        Ok(found)
    }

    /// All names, each ended by a NUL; nothing where attributes are not supported.
    fn names(&self) -> rustix::io::Result<Vec<u8>> {
        let answer = grow(|buffer| match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Path(path) => rustix::fs::llistxattr(&path[..], buffer),
        });
        match answer {
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            other => other,
        }
    }

    /// A value; `None` when there is none of that name (any more).
    pub(crate) fn value(&self, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
        let answer = grow(|buffer| match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Path(path) => rustix::fs::lgetxattr(&path[..], name, buffer),
        });
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Calls with a small buffer on the stack first, then with larger ones.
fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut first = [0; FIRST_TRY];
    match call(&mut first) {
        Ok(count) => return Ok(first[..count].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    // The kernel allows 64 KiB for a value and for a list of names.
    let mut large = vec![0; 64 * 1024];
    let count = call(&mut large)?;
    large.truncate(count);
    Ok(large)
}

fn split_names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == 0).filter(|name| !name.is_empty())
}
