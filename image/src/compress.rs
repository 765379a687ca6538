//! Compression of layers: the same bytes for the same input, on any number of processors.
//!
//! Both gzip and zstd cut the input into blocks of fixed size, which are compressed side by side.

mod gzip;
mod zstd;

use std::io::{self, Write};

use self::zstd::Zstd;
use gzip::Gzip;

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

impl Compression {
    /// The level that is used unless another one is asked for; `None` where there are none.
    pub fn default_level(self) -> Option<i32> {
        match self {
            Self::None => None,
            Self::Gzip => Some(GZIP_LEVEL),
            Self::Zstd => Some(ZSTD_LEVEL),
        }
    }

    /// The levels that there are.
    pub fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::None => 0..=0,
            Self::Gzip => 0..=9,
            Self::Zstd => 0..=22,
        }
    }
}

/// Level of gzip unless another one is asked for: the lowest whose output is smaller than what Docker pushes, whether
/// a layer holds text or programs.
const GZIP_LEVEL: i32 = 3;
/// Level of zstd unless another one is asked for.
const ZSTD_LEVEL: i32 = 3;

/// Compresses what is written to it. [`Self::finish`] must be called, or the end is missing. While compression takes its time,
/// the writer below is flushed several times a second: one that fails then ends the work at once.
pub struct Compressor<W: Write>(Kind<W>);

enum Kind<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(Zstd<W>),
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::None(_) => "Compressor(none)",
            Kind::Gzip(_) => "Compressor(gzip)",
            Kind::Zstd(_) => "Compressor(zstd)",
        })
    }
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out`; `level` defaults to 3.
    pub fn new(compression: Compression, level: Option<i32>, out: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Kind::None(out),
            Compression::Gzip => Kind::Gzip(Gzip::new(level.unwrap_or(GZIP_LEVEL), out)?),
            Compression::Zstd => Kind::Zstd(Zstd::new(level.unwrap_or(ZSTD_LEVEL), out)?),
        }))
    }

    /// Writes what is left and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::None(out) => Ok(out),
            Kind::Gzip(gzip) => gzip.finish(),
            Kind::Zstd(zstd) => zstd.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(out) => out.write(buffer),
            Kind::Gzip(gzip) => gzip.write(buffer),
            Kind::Zstd(zstd) => zstd.write(buffer),
        }
    }

    /// Only what compression has let through so far is flushed: cutting blocks short would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::None(out) => out.flush(),
            Kind::Gzip(gzip) => gzip.flush(),
            Kind::Zstd(zstd) => zstd.flush(),
        }
    }
}

/// Compresses all of `reader` into `out`; gives the writer back.
pub fn compress<W: Write>(
    mut reader: impl io::Read,
    compression: Compression,
    level: Option<i32>,
    out: W,
) -> io::Result<W> {
    let mut compressor = Compressor::new(compression, level, out)?;
    io::copy(&mut reader, &mut compressor)?;
    compressor.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::gzip::BLOCK;
    use super::zstd::JOB;
    use super::*;

    /// Bytes that compress somewhat, always the same.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        (0..length).map(|_| (next() & next()) as u8).collect()
    }

    fn run(data: &[u8], compression: Compression, piece: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(compression, None, Vec::new()).unwrap();
        data.chunks(piece)
            .for_each(|piece| compressor.write_all(piece).unwrap());
        compressor.finish().unwrap()
    }

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        io::Read::read_to_end(&mut crate::layer::decompress(bytes).unwrap(), &mut out).unwrap();
        out
    }

    #[test]
    fn every_length_around_the_block_round_trips() {
        for length in [
            0,
            1,
            1000,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            3 * BLOCK,
            7 * BLOCK + 12_345,
        ] {
            let data = sample(length);
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                assert_eq!(
                    plain(&run(&data, compression, usize::MAX)),
                    data,
                    "{compression:?} {length}"
                );
            }
        }
    }

    #[test]
    fn bytes_depend_on_neither_threads_nor_pieces() {
        let data = sample(5 * BLOCK + 99);
        let expected = run(&data, Compression::Gzip, usize::MAX);
        assert!(expected.len() < data.len());
        for piece in [1000, BLOCK, 3 * BLOCK] {
            assert_eq!(run(&data, Compression::Gzip, piece), expected, "{piece}");
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            assert_eq!(pool.install(|| run(&data, Compression::Gzip, BLOCK)), expected);
        }
    }

    #[test]
    fn zstd_depends_on_neither_workers_nor_pieces() {
        let data = sample(2 * JOB as usize + 4321);
        let expected = run(&data, Compression::Zstd, usize::MAX);
        assert_eq!(plain(&expected), data);
        // Whatever threads there are around it: these are the library's bytes for jobs of this size.
        let mut library = ::zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
        library.include_checksum(true).unwrap();
        let job = ::zstd::zstd_safe::CParameter::JobSize(JOB);
        library.set_parameter(job).unwrap();
        library.multithread(2).unwrap();
        library.write_all(&data).unwrap();
        assert_eq!(library.finish().unwrap(), expected);
        for piece in [100_000, 3 << 20] {
            assert_eq!(run(&data, Compression::Zstd, piece), expected, "{piece}");
        }
        for workers in [1, 3] {
            let mut compressor = Zstd::with_workers(ZSTD_LEVEL, workers, Vec::new()).unwrap();
            compressor.write_all(&data).unwrap();
            assert_eq!(compressor.finish().unwrap(), expected, "{workers}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_round_trip(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(plain(&run(&data, Compression::Gzip, 100)), data);
        }
    }
}
