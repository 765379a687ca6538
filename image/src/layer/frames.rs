//! The frames of a zstd stream (RFC 8878): how much memory each wants, known before a decoder sees it.
//!
//! A stream is any number of frames, and each has a window of its own: how far back it may refer, which is what a decoder
//! keeps in memory. So all frames are followed from one to the next, by the lengths that stand before their blocks.

use std::io::{self, BufRead, Read};

use super::decompress::LARGEST_WINDOW;

/// Bytes of a magic number.
const MAGIC: usize = 4;
/// That of a frame.
const FRAME: u64 = 0xfd2f_b528;
/// The first of the sixteen of frames that are to be skipped.
const SKIPPABLE: u64 = 0x184d_2a50;
/// What stands before each block.
const BLOCK: usize = 3;
/// Bytes of the longest header: magic number, descriptor, window, dictionary, size of the content.
const LONGEST: usize = 4 + 1 + 1 + 4 + 8;

/// A stream, as far as its frames are [allowed](Frames::allow): it ends before the first one that wants more.
pub(super) struct Frames<R> {
    reader: R,
    /// A header that was read: of these bytes, those from `at` on are not handed out yet.
    header: [u8; LONGEST],
    at: usize,
    filled: usize,
    /// Bytes behind it that may pass unseen.
    pass: u64,
    next: Next,
    /// Whether the frame ends with a checksum.
    checksum: bool,
    allowed: u64,
    /// What the frame wants whose header was read last.
    wanted: Option<u64>,
}

/// What comes behind the bytes that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Frame,
    Block,
    /// The end, or what is no zstd: the decoder says so.
    Anything,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            header: [0; LONGEST],
            at: 0,
            filled: 0,
            pass: 0,
            next: Next::Frame,
            checksum: false,
            allowed: 0,
            wanted: None,
        }
    }

    /// Frames with windows of so many bytes may pass from now on.
    pub(super) fn allow(&mut self, window: u64) {
        self.allowed = window;
    }

    /// The window of the frame that the stream goes on with and that is not allowed; `None` when there is none.
    pub(super) fn refused(&mut self) -> io::Result<Option<u64>> {
        self.advance()?;
        Ok(self.wanted.filter(|window| *window > self.allowed))
    }

    /// Goes on until there is something that may pass, or nothing.
    fn advance(&mut self) -> io::Result<()> {
        while self.at == self.filled && self.pass == 0 {
            match self.next {
                Next::Frame => self.frame()?,
                Next::Block => self.block()?,
                Next::Anything => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads what stands before a frame.
    fn frame(&mut self) -> io::Result<()> {
        self.begin_header();
        if !self.read_header(MAGIC)? {
            return Ok(());
        }
        let magic = self.number(0, MAGIC);
        if magic & !0xf == SKIPPABLE {
            if self.read_header(MAGIC + 4)? {
                self.pass = self.number(MAGIC, 4);
            }
            return Ok(());
        }
        if magic != FRAME {
            self.next = Next::Anything;
            return Ok(());
        }
        if !self.read_header(MAGIC + 1)? {
            return Ok(());
        }
        let flags = self.header[MAGIC];
        // A frame of a single segment is its own window, and its size is always there.
        let single = flags & 0x20 != 0;
        let window_at = MAGIC + 1;
        let size_at = window_at + usize::from(!single) + [0, 1, 2, 4][usize::from(flags & 3)];
        let size_length = [usize::from(single), 2, 4, 8][usize::from(flags >> 6)];
        if !self.read_header(size_at + size_length)? {
            return Ok(());
        }
        let size = match (size_length, self.number(size_at, size_length)) {
            (0, _) => u64::MAX,
            // These are counted from there.
            (2, size) => size + 256,
            (_, size) => size,
        };
        let window = if single {
            size
        } else {
            let (log, eighths) = (self.header[window_at] >> 3, self.header[window_at] & 7);
            let base = 1_u64 << (10 + log);
            base + base / 8 * u64::from(eighths)
        };
        // One that is too large takes nothing: the decoder refuses it. No more is kept than there is.
        self.wanted = (window <= LARGEST_WINDOW).then(|| window.min(size));
        self.checksum = flags & 4 != 0;
        self.next = Next::Block;
        Ok(())
    }

    /// Reads what stands before a block.
    fn block(&mut self) -> io::Result<()> {
        self.begin_header();
        if !self.read_header(BLOCK)? {
            return Ok(());
        }
        let number = self.number(0, BLOCK);
        let (is_last, kind, size) = (number & 1 == 1, number >> 1 & 3, number >> 3);
        // One byte, so many times.
        self.pass = if kind == 1 { 1 } else { size };
        if is_last {
            self.pass += if self.checksum { 4 } else { 0 };
            self.next = Next::Frame;
        }
        Ok(())
    }

    fn begin_header(&mut self) {
        (self.at, self.filled, self.wanted) = (0, 0, None);
    }

    /// Reads until `length` bytes of a header are there; false when the stream ends before.
    fn read_header(&mut self, length: usize) -> io::Result<bool> {
        while self.filled < length {
            match self.reader.read(&mut self.header[self.filled..length]) {
                Ok(0) => {
                    // Whatever is there goes to the decoder, which tells when the stream is cut.
                    self.next = Next::Anything;
                    return Ok(false);
                }
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// So many bytes of the header, the lowest first.
    fn number(&self, at: usize, length: usize) -> u64 {
        let bytes = self.header[at..at + length].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl<R: BufRead> BufRead for Frames<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.refused()?.is_some() {
            return Ok(&[]);
        }
        if self.at < self.filled {
            return Ok(&self.header[self.at..self.filled]);
        }
        let there = self.reader.fill_buf()?;
        let most = match self.next {
            Next::Anything => there.len(),
            _ => usize::try_from(self.pass).unwrap_or(usize::MAX).min(there.len()),
        };
        Ok(&there[..most])
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.filled {
            self.at += count;
        } else {
            self.reader.consume(count);
            self.pass = self.pass.saturating_sub(count as u64);
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zstd::zstd_safe::CParameter;

    use super::*;

    /// A frame with everything or nothing in its header.
    fn frame(data: &[u8], window_log: u32, sized: bool, checksum: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(window_log)).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.include_contentsize(sized).unwrap();
        if sized {
            encoder.set_pledged_src_size(Some(data.len() as u64)).unwrap();
        }
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn skippable(length: usize) -> Vec<u8> {
        let start = 0x184d_2a5a_u32.to_le_bytes();
        let size = u32::try_from(length).unwrap().to_le_bytes();
        [&start[..], &size, &vec![0x28; length]].concat()
    }

    /// All bytes of a stream, and the windows that were asked for, where `allowed` is what is allowed at first.
    fn passed(stream: &[u8], allowed: u64, piece: usize) -> (Vec<u8>, Vec<u64>) {
        let reader = io::BufReader::with_capacity(piece, stream);
        let mut frames = Frames::new(reader);
        frames.allow(allowed);
        let (mut all, mut windows) = (Vec::new(), Vec::new());
        loop {
            frames.read_to_end(&mut all).unwrap();
            let Some(window) = frames.refused().unwrap() else {
                return (all, windows);
            };
            windows.push(window);
            frames.allow(window);
        }
    }

    #[test]
    fn each_frame_is_known_before_its_header_passes() {
        let data: Vec<u8> = (0..700_000_u32)
            .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
            .collect();
        let zeros = vec![0; 1 << 20];
        let one = &data[..300];
        let frames = [
            (frame(&data, 20, false, true), 1 << 20),
            (skippable(0), 0),
            (frame(&zeros, 17, false, false), 1 << 17),
            // Single segments: of one, two and four bytes of size.
            (frame(&one[..5], 19, true, true), 5),
            (frame(one, 19, true, false), 300),
            (frame(&data, 23, true, true), data.len() as u64),
            (skippable(70_000), 0),
            (frame(&data, 21, true, true), 1 << 21),
            (frame(b"x", 27, false, true), 1 << 27),
            (frame(&zeros, 24, false, true), 1 << 24),
        ];
        for (bytes, window) in &frames {
            let (all, windows) = passed(bytes, 0, 100);
            assert_eq!(all, *bytes);
            let wanted: &[u64] = if *window == 0 { &[] } else { &[*window] };
            assert_eq!(windows, wanted);
            assert_eq!(passed(bytes, *window, 7), (bytes.clone(), Vec::new()));
        }
        let all = frames.map(|(bytes, _)| bytes).concat();
        let growing = [1 << 20, data.len() as u64, 1 << 27];
        assert_eq!(passed(&all, 0, 1000), (all.clone(), growing.to_vec()));
    }

    #[test]
    fn what_is_no_frame_goes_to_the_decoder() {
        let good = frame(&[b'x'; 9000], 20, false, true);
        let garbage = [&good[..], b"garbage behind it"].concat();
        // The descriptor of a window of two to the power of 41.
        let mut huge = good.clone();
        huge[5] = 0xf8;
        let streams = [Vec::new(), b"ab".to_vec(), garbage, huge];
        for stream in streams {
            assert_eq!(passed(&stream, 1 << 20, 3), (stream, Vec::new()));
        }
        for length in 0..good.len() {
            assert_eq!(passed(&good[..length], 1 << 20, 64).0, good[..length], "{length}");
        }
    }
}
