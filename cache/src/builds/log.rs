//! The logs of a build's steps: `<id>.log/<step>`, all that the step's process wrote, as zstd frames.
//!
//! They are compressed while they are written, so that a log takes its small space from the beginning. What is
//! buffered is passed on every [`FLUSH_BYTES`] and [`FLUSH_AFTER`]: that much is lost by `kill -9`, and a log without
//! an end is read up to there. Nothing is ever clipped.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zstd::stream::{raw::CParameter, read::Decoder, write::AutoFinishEncoder, write::Encoder};

use crate::{Result, error, files};

/// Low: it costs the step's output next to no time, and logs repeat themselves a lot.
const LEVEL: i32 = 1;
/// 256 KiB of history: little memory, as many steps run at a time.
const WINDOW_LOG: u32 = 18;
/// So much output at most is not in the file yet.
const FLUSH_BYTES: usize = 256 * 1024;
/// Output waits at most so long for more of it.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// The log folder of one build. It is made with the first step's log.
#[derive(Debug, Clone)]
pub struct BuildLog {
    folder: PathBuf,
}

impl BuildLog {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the logs are.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Begins the log of a step, or goes on with it. The name may be any text; what is no file name is replaced.
    pub fn step(&self, name: &str) -> Result<StepLog> {
        let path = self.file(name);
        std::fs::create_dir_all(&self.folder).map_err(error::io("create", &self.folder))?;
        let file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(error::io("create", &path))?;
        Ok(StepLog {
            path,
            out: Out::Untouched(file),
            unflushed: 0,
            flushed: Instant::now(),
        })
    }

    /// Reads the log of a step. `None` when the step wrote nothing or its log is gone.
    pub fn read(&self, name: &str) -> Result<Option<LogReader>> {
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error::io("open", path)(source)),
        };
        let decoder = Decoder::new(file).map_err(error::io("read", &path))?;
        Ok(Some(LogReader { decoder }))
    }

    /// The names of the logs, in order.
    pub fn steps(&self) -> Result<Vec<String>> {
        files::names(&self.folder)
    }

    /// The compressed bytes of all logs.
    pub fn bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for name in self.steps()? {
            // A log that another process deletes at this moment has no bytes.
            bytes += std::fs::metadata(self.folder.join(name)).map_or(0, |file| file.len());
        }
        Ok(bytes)
    }

    fn file(&self, name: &str) -> PathBuf {
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        };
        let mut file_name: String = name.chars().take(100).map(safe).collect();
        if file_name.is_empty() || file_name.starts_with('.') {
            file_name.insert(0, '_');
        }
        self.folder.join(file_name)
    }
}

/// The log of one step. What was written is in the file after [`Write::flush`] or when dropped.
pub struct StepLog {
    path: PathBuf,
    out: Out,
    unflushed: usize,
    flushed: Instant,
}

/// A step that is silent has an empty file and no encoder.
enum Out {
    Untouched(File),
    Encoding(AutoFinishEncoder<'static, File>),
    Failed,
}

impl std::fmt::Debug for StepLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepLog")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl StepLog {
    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn encoder(&mut self) -> io::Result<&mut AutoFinishEncoder<'static, File>> {
        if let Out::Untouched(_) = self.out
            && let Out::Untouched(file) = std::mem::replace(&mut self.out, Out::Failed)
        {
            let mut encoder = Encoder::new(file, LEVEL)?;
            encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
            encoder.set_parameter(CParameter::ChecksumFlag(true))?;
            self.out = Out::Encoding(encoder.auto_finish());
        }
        match &mut self.out {
            Out::Encoding(encoder) => Ok(encoder),
            Out::Untouched(_) | Out::Failed => Err(io::Error::other("the log could not be begun")),
        }
    }
}

impl Write for StepLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder()?.write(bytes)?;
        self.unflushed += written;
        if self.unflushed >= FLUSH_BYTES || self.flushed.elapsed() >= FLUSH_AFTER {
            self.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Out::Encoding(encoder) = &mut self.out {
            encoder.flush()?;
        }
        self.unflushed = 0;
        self.flushed = Instant::now();
        Ok(())
    }
}

/// Reads a log as the step wrote it, up to where it was torn off, if it was.
pub struct LogReader {
    decoder: Decoder<'static, io::BufReader<File>>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(buffer) {
            // Its process was killed, or is still at it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            result => result,
        }
    }
}
