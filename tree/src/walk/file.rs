//! Reading a file for its hash.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::HashMemory;
use super::overlay::{self, Marks};
use crate::error::io_error;
use crate::root::{FileType, Metadata, Subject};
use crate::{ContentHash, ContentHasher, Error, Result, TreePath, Xattrs};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: u32 = 3;

const BUFFER: usize = 128 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` this thread's buffer.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken out for the time of use, so that nested use (a rayon task inside another) is no conflict.
    let mut buffer = BUFFERS.take();
    buffer.resize(BUFFER, 0);
    let result = work(&mut buffer);
    BUFFERS.set(buffer);
    result
}

/// How regular files are looked at.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub memory: &'a dyn HashMemory,
    pub xattrs: bool,
    pub overlay: bool,
}

/// What was read of a file.
#[derive(Debug)]
pub(super) struct FileState {
    pub metadata: Metadata,
    pub content: ContentHash,
    pub xattrs: Xattrs,
    pub marks: Marks,
}

impl Reader<'_> {
    /// Finds the hash and the attributes of the file `name` in `dir`, which looked like `seen`.
    pub(super) fn file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        seen: Metadata,
    ) -> Result<FileState> {
        let known = if seen.size == 0 {
            Some(ContentHash::of(b""))
        } else {
            self.memory.recall(path, &seen.key())
        };
        if let Some(content) = known {
            if seen.size > 0 && self.memory.implies_no_xattrs() {
                return Ok(FileState {
                    metadata: seen,
                    content,
                    xattrs: Xattrs::new(),
                    marks: Marks::default(),
                });
            }
            let (xattrs, marks) = self.attributes(&Subject::at(dir, name), path)?;
            return Ok(FileState {
                metadata: seen,
                content,
                xattrs,
                marks,
            });
        }
        let mut before = seen;
        for _ in 0..ATTEMPTS {
            let fd = open_file(dir, name).map_err(io_error("open", path.as_bytes()))?;
            let content = hash(&fd, before.size).map_err(io_error("read", path.as_bytes()))?;
            let (xattrs, marks) = self.attributes(&Subject::Open(fd.as_fd()), path)?;
            let after = Metadata::at_unchecked(fd.as_fd(), c"").map_err(io_error("stat", path.as_bytes()))?;
            if after.file_type != FileType::File {
                break;
            }
            if after.key() == before.key() {
                if xattrs.is_empty() || !self.memory.implies_no_xattrs() {
                    self.memory.remember(path, &after.key(), content);
                }
                return Ok(FileState {
                    metadata: after,
                    content,
                    xattrs,
                    marks,
                });
            }
            before = after;
        }
        Err(Error::Unstable { path: path.clone() })
    }

    fn attributes(&self, subject: &Subject<'_>, path: &TreePath) -> Result<(Xattrs, Marks)> {
        if !self.xattrs {
            return Ok((Xattrs::new(), Marks::default()));
        }
        overlay::read_xattrs(subject, path, self.overlay)
    }
}

/// The raw call on one component. Neither waits for a pipe nor follows a symlink that took the file's place.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Hashes what is in `fd`. Stops after `size` bytes: the caller compares the size afterwards anyhow.
fn hash(fd: &OwnedFd, size: u64) -> rustix::io::Result<ContentHash> {
    with_buffer(|buffer| {
        let mut hasher = ContentHasher::new();
        let mut total = 0;
        while total < size {
            match rustix::io::read(fd, &mut *buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    total += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(hasher.finish())
    })
}
