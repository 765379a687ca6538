//! Compression of layers: the same bytes for the same input, on any number of processors.
//!
//! gzip is done block by block: each block of fixed size becomes a run of raw deflate data with the 32 KiB before it as
//! dictionary, ended by a sync flush, so that the runs together are one ordinary gzip member. Neither the number of
//! threads nor the sizes of the writes change a byte. Blocks that look like random bytes (what is in a layer is often
//! compressed already) are stored as they are: trying would take the longest and gain nothing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::{Compress, Crc, FlushCompress, Status};
use zstd::zstd_safe::CParameter;

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

/// Level of gzip unless another one is asked for: the lowest whose output is not larger than what Docker pushes.
const GZIP_LEVEL: i32 = 5;
/// Level of zstd unless another one is asked for.
const ZSTD_LEVEL: i32 = 3;
/// Input of one zstd job. Part of the format, as with gzip.
const ZSTD_JOB: u32 = 4 << 20;
/// Each worker holds its job's input, output and tables: more of them would need more memory than a build may take.
const ZSTD_WORKERS: usize = 4;
/// Input of one gzip block. Part of the format: another size makes other bytes.
const BLOCK: usize = 256 << 10;
/// As far as deflate looks back.
const WINDOW: usize = 32 << 10;

/// Compresses what is written to it. [`Self::finish`] must be called, or the end is missing.
pub struct Compressor<W: Write>(Kind<W>);

enum Kind<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
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
    /// Compresses into `out`; `level` defaults to 5 for gzip and 3 for zstd.
    pub fn new(compression: Compression, level: Option<i32>, out: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Kind::None(out),
            Compression::Gzip => Kind::Gzip(Gzip::new(level.unwrap_or(GZIP_LEVEL), out)?),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(ZSTD_LEVEL))?;
                encoder.include_checksum(true)?;
                // With workers, the input is cut into jobs of one size, however many workers there are; without, it
                // is not: so there always are some.
                let workers = std::thread::available_parallelism().map_or(1, usize::from);
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                encoder.multithread(workers.clamp(1, ZSTD_WORKERS) as u32)?;
                Kind::Zstd(encoder)
            }
        }))
    }

    /// Writes what is left and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::None(out) => Ok(out),
            Kind::Gzip(gzip) => gzip.finish(),
            Kind::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(out) => out.write(buffer),
            Kind::Gzip(gzip) => gzip.write(buffer),
            Kind::Zstd(encoder) => encoder.write(buffer),
        }
    }

    /// Only what compression has let through so far is flushed: cutting blocks short would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::None(out) => out.flush(),
            Kind::Gzip(gzip) => gzip.out.flush(),
            Kind::Zstd(encoder) => encoder.get_mut().flush(),
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

/// A compressed block.
struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// A block that may still be under way on another thread.
enum Pending {
    Ready(io::Result<Deflated>),
    Under(Receiver<io::Result<Deflated>>),
}

struct Gzip<W: Write> {
    out: W,
    level: flate2::Compression,
    /// The dictionary, followed by the input of the block so far.
    input: Vec<u8>,
    dictionary: usize,
    pending: VecDeque<Pending>,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    fn new(level: i32, mut out: W) -> io::Result<Self> {
        let level = u32::try_from(level).ok().filter(|level| *level <= 9);
        let level =
            level.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "gzip levels are 0 to 9"))?;
        // No name, time or system: they would differ from run to run.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        Ok(Self {
            out,
            level: flate2::Compression::new(level),
            input: Vec::with_capacity(WINDOW + BLOCK),
            dictionary: 0,
            pending: VecDeque::new(),
            crc: Crc::new(),
        })
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.dictionary + BLOCK - self.input.len();
        let n = room.min(buffer.len());
        self.input.extend_from_slice(&buffer[..n]);
        if n == room {
            self.end_block(false)?;
        }
        Ok(n)
    }

    fn finish(mut self) -> io::Result<W> {
        self.end_block(true)?;
        while let Some(block) = self.pending.pop_front() {
            self.take(block)?;
        }
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32.
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_block(&mut self, last: bool) -> io::Result<()> {
        let mut next = Vec::with_capacity(if last { 0 } else { WINDOW + BLOCK });
        next.extend_from_slice(&self.input[self.input.len().saturating_sub(WINDOW)..]);
        let dictionary = std::mem::replace(&mut self.dictionary, next.len());
        let input = std::mem::replace(&mut self.input, next);
        let level = self.level;
        let job = move || deflate(&input[dictionary..], &input[..dictionary], level, last);
        // In a worker of the pool itself, waiting for another one could wait for ever.
        if rayon::current_thread_index().is_some() {
            return self.take(Pending::Ready(job()));
        }
        let (sender, receiver) = sync_channel(1);
        rayon::spawn(move || {
            // Nobody is there to receive when the writer was dropped.
            let _ = sender.send(job());
        });
        self.pending.push_back(Pending::Under(receiver));
        // One block more than there are threads: none waits for work, and memory stays bounded.
        while self.pending.len() > rayon::current_num_threads() + 1 {
            if let Some(block) = self.pending.pop_front() {
                self.take(block)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, block: Pending) -> io::Result<()> {
        let block = match block {
            Pending::Ready(block) => block?,
            Pending::Under(receiver) => receiver
                .recv()
                .map_err(|_| io::Error::other("a compression thread panicked"))??,
        };
        self.crc.combine(&block.crc);
        self.out.write_all(&block.bytes)
    }
}

fn deflate(input: &[u8], dictionary: &[u8], level: flate2::Compression, last: bool) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(input);
    let level = if looks_random(input) {
        flate2::Compression::none()
    } else {
        level
    };
    let mut state = Compress::new(level, false);
    if !dictionary.is_empty() {
        state.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(input.len() / 2 + 1024);
    loop {
        let at = state.total_in() as usize;
        let status = state
            .compress_vec(&input[at..], &mut bytes, flush)
            .map_err(io::Error::other)?;
        let done = match status {
            Status::StreamEnd => true,
            // A flush is complete when it leaves room in the output.
            Status::Ok | Status::BufError => {
                !last && bytes.len() < bytes.capacity() && state.total_in() as usize == input.len()
            }
        };
        if done {
            return Ok(Deflated { bytes, crc });
        }
        bytes.reserve(input.len() / 2 + 1024);
    }
}

/// Whether each piece of `block` has about as many of each byte as of any other, as random bytes have. What a layer
/// holds of such data is compressed or encrypted; the rare exception (a repetition within 32 KiB) only grows.
fn looks_random(block: &[u8]) -> bool {
    const PIECE: usize = 16 << 10;
    block.len() >= PIECE && block.chunks_exact(PIECE).all(is_flat)
}

/// Whether the counts of a piece's bytes differ by chance. The measure is Pearson's chi-squared statistic against an
/// equal distribution: 255 on average with a standard deviation of 23 for random bytes, some thousands for text, programs
/// and tables, and about nothing for counters and other patterns that take each byte in turn.
fn is_flat(piece: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for &byte in piece {
        counts[usize::from(byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let length = piece.len() as u64;
    (100..512).contains(&(squares * 256 / length - length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            WINDOW,
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
            // One member that any reader takes whole.
            let mut single = Vec::new();
            let gzip = run(&data, Compression::Gzip, usize::MAX);
            io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut single).unwrap();
            assert_eq!(single, data);
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
        let data = sample(2 * ZSTD_JOB as usize + 4321);
        let expected = run(&data, Compression::Zstd, usize::MAX);
        assert_eq!(plain(&expected), data);
        for piece in [100_000, 3 << 20] {
            assert_eq!(run(&data, Compression::Zstd, piece), expected, "{piece}");
        }
        for workers in [1, 3] {
            let mut compressor = Compressor::new(Compression::Zstd, None, Vec::new()).unwrap();
            let Kind::Zstd(encoder) = &mut compressor.0 else {
                panic!("another compression");
            };
            encoder.multithread(workers).unwrap();
            compressor.write_all(&data).unwrap();
            assert_eq!(compressor.finish().unwrap(), expected, "{workers}");
        }
    }

    /// Bytes that nothing compresses, always the same.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn only_what_looks_random_is_stored() {
        let counter: Vec<u8> = (0..BLOCK).map(|n| n as u8).collect();
        let mut mixed = noise(BLOCK);
        mixed[BLOCK / 2..].copy_from_slice(&sample(BLOCK / 2));
        let mut once = noise(BLOCK);
        once[5000..6000].fill(b'x');
        for (what, block, stored) in [
            ("noise", noise(BLOCK), true),
            ("a short end", noise(9000), false),
            ("nothing", Vec::new(), false),
            ("text", sample(BLOCK), false),
            ("zeros", vec![0; BLOCK], false),
            ("a counter", counter, false),
            ("half and half", mixed, false),
            ("a thousand equal bytes", once, false),
        ] {
            assert_eq!(looks_random(&block), stored, "{what}");
        }
        // Stored between others, it is still one gzip member, and hardly larger.
        let data = [sample(BLOCK), noise(2 * BLOCK), sample(BLOCK)].concat();
        let mut single = Vec::new();
        let gzip = run(&data, Compression::Gzip, usize::MAX);
        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut single).unwrap();
        assert_eq!(single, data);
        let random = run(&noise(BLOCK), Compression::Gzip, usize::MAX);
        assert!(random.len() < BLOCK + 100, "{}", random.len());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_round_trip(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(plain(&run(&data, Compression::Gzip, 100)), data);
        }
    }
}
