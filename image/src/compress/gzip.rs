//! gzip in parallel: each block of the input becomes members of its own, which together are one gzip stream (RFC 1952,
//! section 2.2: "a gzip file consists of a series of members").
//!
//! What a member gives up by not seeing the block before it, the library wins back several times over in speed and
//! ratio. Pieces that look like random bytes (what is in a layer is often compressed already) are stored as they are:
//! trying would take the longest and gain nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};

use libdeflater::{CompressionLvl, Compressor};

/// Input of one block. Part of the format: another size makes other bytes. Larger ones gain 0.2 % at twice the memory.
pub(super) const BLOCK: usize = 512 << 10;
/// What is looked at as a whole when it is told whether bytes are random. Part of the format, too.
const PIECE: usize = 16 << 10;

/// A block that is done: its members, and the room that its input took, for another one.
struct Done {
    members: io::Result<Vec<u8>>,
    room: Vec<u8>,
}

/// Writes gzip members to `out`.
pub(super) struct Gzip<W: Write> {
    out: W,
    level: i32,
    /// The input of the block so far.
    input: Vec<u8>,
    /// Blocks under way on other threads, in their order.
    pending: VecDeque<Receiver<Done>>,
    /// Room for a block: it goes round, since fresh memory costs the kernel as much as hashing it.
    spare: Vec<Vec<u8>>,
    /// Whether there is a member: a stream has at least one.
    begun: bool,
}

impl<W: Write> Gzip<W> {
    /// `level` is 0 to 9.
    pub(super) fn new(level: i32, out: W) -> io::Result<Self> {
        if !(0..=9).contains(&level) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "gzip levels are 0 to 9",
            ));
        }
        Ok(Self {
            out,
            level,
            input: Vec::with_capacity(BLOCK),
            pending: VecDeque::new(),
            spare: Vec::new(),
            begun: false,
        })
    }

    /// Takes as much as the block has room for.
    pub(super) fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = buffer.len().min(BLOCK - self.input.len());
        self.input.extend_from_slice(&buffer[..n]);
        if self.input.len() == BLOCK {
            self.end_block()?;
        }
        Ok(n)
    }

    /// Flushes what is compressed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the rest and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.input.is_empty() || !self.begun {
            self.end_block()?;
        }
        while self.take_first()? {}
        self.out.flush()?;
        Ok(self.out)
    }

    /// Has the block compressed, and begins another one.
    fn end_block(&mut self) -> io::Result<()> {
        self.begun = true;
        // In a worker of the pool itself, waiting for another one could wait for ever.
        if rayon::current_thread_index().is_some() {
            let members = members(&self.input, self.level)?;
            self.input.clear();
            return self.out.write_all(&members);
        }
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let mut room = std::mem::replace(&mut self.input, next);
        let level = self.level;
        let (sender, receiver) = sync_channel(1);
        rayon::spawn(move || {
            let members = members(&room, level);
            room.clear();
            // Nobody is there to receive when the writer was dropped.
            let _ = sender.send(Done { members, room });
        });
        self.pending.push_back(receiver);
        // One block more than there are threads: none waits for work, and memory stays bounded.
        while self.pending.len() > rayon::current_num_threads() + 1 {
            self.take_first()?;
        }
        Ok(())
    }

    /// Waits for the first block that is under way and writes it; false when there is none.
    fn take_first(&mut self) -> io::Result<bool> {
        let Some(first) = self.pending.pop_front() else {
            return Ok(false);
        };
        let done = first
            .recv()
            .map_err(|_| io::Error::other("a compression thread panicked"))?;
        self.spare.push(done.room);
        self.out.write_all(&done.members?)?;
        Ok(true)
    }
}

/// The members of a block: one for each run of pieces that look random, and of pieces that do not.
fn members(block: &[u8], level: i32) -> io::Result<Vec<u8>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut rest = block;
        let mut length = 0;
        loop {
            let random = looks_random(rest);
            let run = rest
                .chunks(PIECE)
                .take_while(|piece| looks_random(piece) == random)
                .map(<[u8]>::len)
                .sum();
            let (run, after) = rest.split_at(run);
            length += scratch.member(run, if random { 0 } else { level }, length)?;
            rest = after;
            if rest.is_empty() {
                return Ok(scratch.members[..length].to_vec());
            }
        }
    })
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a thread keeps from block to block: tables of the library, and room for members.
#[derive(Default)]
struct Scratch {
    compressors: HashMap<i32, Compressor>,
    members: Vec<u8>,
}

impl Scratch {
    /// Puts a member at `at`; gives its length. Its header has no name, time or system: they would differ from run to
    /// run.
    fn member(&mut self, input: &[u8], level: i32, at: usize) -> io::Result<usize> {
        let compressor = match self.compressors.entry(level) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let level = CompressionLvl::new(level)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such level of gzip"))?;
                entry.insert(Compressor::new(level))
            }
        };
        let end = at + compressor.gzip_compress_bound(input.len());
        if self.members.len() < end {
            self.members.resize(end, 0);
        }
        compressor
            .gzip_compress(input, &mut self.members[at..end])
            .map_err(io::Error::other)
    }
}

/// Whether the first piece of `bytes` is whole and has about as many of each byte as of any other, as random bytes
/// have. What a layer holds of such data is compressed or encrypted; the rare exception (a repetition within a piece)
/// only grows.
///
/// The measure is Pearson's chi-squared statistic against an equal distribution: 255 on average with a standard
/// deviation of 23 for random bytes, some thousands for text, programs and tables, and about nothing for counters and
/// other patterns that take each byte in turn.
fn looks_random(bytes: &[u8]) -> bool {
    let Some(piece) = bytes.get(..PIECE) else {
        return false;
    };
    // Four tables: equal bytes in a row do not wait for each other.
    let mut counts = [[0_u32; 256]; 4];
    for bytes in piece.chunks_exact(4) {
        for (counts, &byte) in counts.iter_mut().zip(bytes) {
            counts[usize::from(byte)] += 1;
        }
    }
    let squares: u64 = (0..256)
        .map(|byte| counts.iter().map(|counts| u64::from(counts[byte])).sum::<u64>())
        .map(|count| count * count)
        .sum();
    let length = PIECE as u64;
    (100..512).contains(&(squares * 256 / length - length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that compress somewhat.
    fn text(length: usize) -> Vec<u8> {
        b"what is in a layer\n"
            .iter()
            .copied()
            .cycle()
            .take(length)
            .collect()
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

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut out).unwrap();
        out
    }

    #[test]
    fn only_what_looks_random_is_stored() {
        let counter: Vec<u8> = (0..PIECE).map(|n| n as u8).collect();
        let mut mixed = noise(PIECE);
        mixed[PIECE / 2..].copy_from_slice(&text(PIECE / 2));
        let mut once = noise(PIECE);
        once[5000..6000].fill(b'x');
        for (what, piece, stored) in [
            ("noise", noise(PIECE), true),
            ("a short end", noise(9000), false),
            ("nothing", Vec::new(), false),
            ("text", text(PIECE), false),
            ("zeros", vec![0; PIECE], false),
            ("a counter", counter, false),
            ("half and half", mixed, false),
            ("a thousand equal bytes", once, false),
        ] {
            assert_eq!(looks_random(&piece), stored, "{what}");
        }
    }

    #[test]
    fn runs_become_members_of_their_own() {
        let data = [text(3 * PIECE), noise(5 * PIECE), text(PIECE + 77)].concat();
        let together = members(&data, 4).unwrap();
        assert_eq!(plain(&together), data);
        let apart = [
            members(&data[..3 * PIECE], 4).unwrap(),
            members(&data[3 * PIECE..8 * PIECE], 0).unwrap(),
            members(&data[8 * PIECE..], 4).unwrap(),
        ];
        assert_eq!(together, apart.concat());
        assert!(together.len() < 5 * PIECE + 2000, "{}", together.len());
    }

    #[test]
    fn nothing_is_one_empty_member() {
        let empty = Gzip::new(4, Vec::new()).unwrap().finish().unwrap();
        assert_eq!(empty[..2], [0x1f, 0x8b]);
        assert_eq!(plain(&empty), b"");
    }

    #[test]
    fn levels_are_those_of_gzip() {
        let data = text(100_000);
        for level in 0..=9 {
            assert_eq!(plain(&members(&data, level).unwrap()), data, "{level}");
        }
        assert!(Gzip::new(10, Vec::new()).is_err());
        assert!(Gzip::new(-1, Vec::new()).is_err());
    }
}
