//! A build context that comes as an archive: unpacked into the store's temporary area, for one build.

use std::io::{self, Read};
use std::path::Path;

use kiln_cache::TempDir;
use kiln_image::archive;
use kiln_image::layer::LayerError;
use kiln_solver::task::{Reporter, Task};
use kiln_solver::{Cancel, Engine, chain};
use kiln_tree::Root;

/// As many bytes as [`is_archive`] may want to see.
pub const ARCHIVE_START: usize = archive::START;

/// A context unpacked from an archive. It goes with this value; what a killed process leaves, the next command sweeps.
#[derive(Debug)]
pub struct UnpackedContext {
    directory: TempDir,
    root: Root,
}

/// Why an archive is no build context.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be decompressed, or what is inside is no tar.
    #[error("the build context is neither a tar archive nor a compressed one")]
    NoArchive,
    /// It cannot be read to its end, or not be put on disk.
    #[error("failed to unpack the build context")]
    Unpack(#[source] LayerError),
    /// It cannot be read.
    #[error("failed to read the build context")]
    Read(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] kiln_cache::Error),
    /// The directory could not be opened.
    #[error(transparent)]
    Files(#[from] kiln_tree::Error),
    /// The build was cancelled.
    #[error("canceled")]
    Canceled,
}

/// Whether what begins with `start` is to be taken for an archive and not for a Dockerfile.
pub fn is_archive(start: &[u8]) -> bool {
    archive::looks_like_one(start)
}

/// Unpacks the archive `reader`, a tar, compressed or not, as a task of the build. Nothing in it can lead out of the
/// directory. Owners are kept, as Docker's builder does with archives.
pub fn unpack_context(
    engine: &Engine,
    reader: impl Read + Send,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<UnpackedContext, UnpackError> {
    let mut task = reporter.announce("[internal] load remote build context", Vec::new(), None);
    task.start();
    match unpack(engine, reader, cancel, &task) {
        Ok(context) => {
            task.done();
            Ok(context)
        }
        Err(_) if cancel.is_raised() => {
            task.canceled();
            Err(UnpackError::Canceled)
        }
        Err(error) => {
            task.failed(chain(&error));
            Err(error)
        }
    }
}

/// The same within a task.
pub(crate) fn unpack(
    engine: &Engine,
    reader: impl Read + Send,
    cancel: &Cancel,
    task: &Task,
) -> Result<UnpackedContext, UnpackError> {
    let context = UnpackedContext::empty(engine)?;
    let mut size = 0;
    let counted = Counted {
        reader,
        size: &mut size,
        cancel,
    };
    let tar = archive::open(counted)
        .map_err(UnpackError::Read)?
        .ok_or(UnpackError::NoArchive)?;
    let extracted = archive::extract(tar, &context.root, "/", None).map_err(UnpackError::Unpack)?;
    let refused = extracted.refused.owners;
    if refused > 0 {
        let warning = format!("{refused} files of the build context keep the owner of this user");
        task.warn(warning, None);
    }
    task.progress("transferring context", size, Some(size), true);
    Ok(context)
}

impl UnpackedContext {
    /// A context without files: that of a Dockerfile which comes alone.
    pub fn empty(engine: &Engine) -> Result<Self, UnpackError> {
        let directory = engine.store().temp().dir()?;
        let root = Root::open(directory.path())?;
        Ok(Self { directory, root })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The files. Symbolic links never lead out.
    pub fn root(&self) -> &Root {
        &self.root
    }
}

/// Counts what is read, and reads no more once the build is cancelled.
struct Counted<'a, R> {
    reader: R,
    size: &'a mut u64,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let read = self.reader.read(buffer)?;
        *self.size += read as u64;
        Ok(read)
    }
}
