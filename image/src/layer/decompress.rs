//! Decompression by the first bytes of the stream.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use zstd::stream::read::Decoder;

use super::frames::Frames;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all, or in no way known here.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames.
    Zstd,
    /// bzip2, any number of streams.
    Bzip2,
    /// xz, any number of streams.
    Xz,
}

/// As many bytes as the longest magic number has.
const MAGIC: usize = 6;
/// Memory that an xz stream may ask for: its strongest preset needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// Log of the window that a zstd stream may ask for: 128 MiB, what the format's own tool takes by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The memory that a decoder takes at most, to some buffers.
pub const LARGEST_WINDOW: u64 = 1 << ZSTD_WINDOW_LOG;
/// What each decoder may have: the window that the format asks every decoder to support, and that of the tools' usual
/// levels.
const USUAL_WINDOW: u64 = 8 << 20;
/// Compressed bytes are read in pieces of this size.
const BUFFER: usize = 64 << 10;

impl Encoding {
    /// How a stream that begins with `start` is compressed.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }

    /// How `reader` is compressed; its first bytes are read for that.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut start = [0; MAGIC];
        let filled = fill(&mut reader, &mut start)?;
        Ok(Self::of(&start[..filled]))
    }
}

/// Reads until the buffer is full or the stream at its end.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Memory for decoders that want more than is usual: whoever unpacks several streams at the same time can let them wait
/// for each other.
pub trait Windows: Sync {
    /// Waits until a decoder may have so many bytes, at most [`LARGEST_WINDOW`], and gives what stands for them: dropped, it
    /// gives them back. A stream asks when it holds nothing.
    fn reserve(&self, bytes: u64) -> io::Result<Box<dyn Send>>;
}

/// For a stream that is alone.
struct Unbounded;

impl Windows for Unbounded {
    fn reserve(&self, _: u64) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }
}

/// The plain bytes of `reader`, which may be compressed with gzip, zstd, bzip2 or xz, known by their first bytes. How
/// much comes out is for the caller to limit ([`super::unpack`] does); the memory that it takes is limited here.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    decompress_within(reader, &Unbounded)
}

/// The same, where `windows` is asked for memory beyond the usual.
pub fn decompress_within<'a>(
    mut reader: impl Read + Send + 'a,
    windows: &'a dyn Windows,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = [0; MAGIC];
    let filled = fill(&mut reader, &mut start)?;
    let encoding = Encoding::of(&start[..filled]);
    let whole = Cursor::new(start).take(filled as u64).chain(reader);
    let whole = BufReader::with_capacity(BUFFER, whole);
    Ok(match encoding {
        Encoding::Plain => Box::new(whole),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Encoding::Zstd => Box::new(Zstd::new(whole, windows)),
        Encoding::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Encoding::Xz => {
            // What it wants is known only to its decoder. No tool makes such layers.
            let held = windows.reserve(XZ_MEMORY)?;
            let flags = liblzma::stream::CONCATENATED;
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags).map_err(io::Error::from)?;
            Box::new(Holding {
                reader: liblzma::bufread::XzDecoder::new_stream(whole, stream),
                _held: held,
            })
        }
    })
}

/// A decoder and its memory.
struct Holding<R> {
    // Before what stands for it: dropped first.
    reader: R,
    _held: Box<dyn Send>,
}

impl<R: Read> Read for Holding<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// A zstd stream. Before a frame that wants more memory than its decoder may have, the decoder goes, and another one
/// comes that may have it: so nobody waits who holds what others wait for.
struct Zstd<'a, R: BufRead> {
    state: State<R>,
    windows: &'a dyn Windows,
    /// The memory beyond the usual.
    held: Option<Box<dyn Send>>,
}

enum State<R: BufRead> {
    /// Before a frame.
    Between(Frames<R>),
    Within(Decoder<'static, Frames<R>>),
    /// After an error.
    Failed,
}

impl<'a, R: BufRead> Zstd<'a, R> {
    fn new(reader: R, windows: &'a dyn Windows) -> Self {
        let mut frames = Frames::new(reader);
        frames.allow(USUAL_WINDOW);
        Self {
            state: State::Between(frames),
            windows,
            held: None,
        }
    }

    fn begin(&mut self, mut frames: Frames<R>) -> io::Result<Decoder<'static, Frames<R>>> {
        if let Some(window) = frames.refused()? {
            self.held = None;
            self.held = Some(self.windows.reserve(window)?);
            frames.allow(window);
        }
        let mut decoder = Decoder::with_buffer(frames)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(decoder)
    }
}

impl<R: BufRead> Read for Zstd<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut decoder = match std::mem::replace(&mut self.state, State::Failed) {
                State::Between(frames) => self.begin(frames)?,
                State::Within(decoder) => decoder,
                State::Failed => return Err(io::Error::other("the stream failed before")),
            };
            let count = decoder.read(buffer)?;
            let is_over = count == 0 && !buffer.is_empty();
            if is_over && decoder.get_mut().refused()?.is_some() {
                self.state = State::Between(decoder.finish());
                continue;
            }
            self.state = State::Within(decoder);
            return Ok(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    type Encode<'a> = (Encoding, &'a dyn Fn(&[u8]) -> Vec<u8>);

    #[test]
    fn each_encoding_in_one_and_several_pieces() {
        let (one, two) = (b"the first part, ".repeat(1000), b"and the second".repeat(1000));
        let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        let encodings: [Encode<'_>; 5] = [
            (Encoding::Plain, &<[u8]>::to_vec),
            (Encoding::Gzip, &gzip),
            (Encoding::Zstd, &zstd),
            (Encoding::Bzip2, &bzip2),
            (Encoding::Xz, &xz),
        ];
        for (encoding, encode) in encodings {
            let mut stream = encode(&one);
            assert_eq!(Encoding::of(&stream), encoding);
            assert_eq!(all(&stream).unwrap(), one, "{encoding:?}");
            stream.extend(encode(&two));
            assert_eq!(
                all(&stream).unwrap(),
                [one.clone(), two.clone()].concat(),
                "{encoding:?}"
            );
            if encoding != Encoding::Plain {
                let cut = &encode(&one)[..30];
                assert!(all(cut).is_err(), "{encoding:?} cut short");
            }
        }
    }

    /// Counts what is held, and lets nobody wait.
    #[derive(Default)]
    struct Counted {
        asked: Mutex<Vec<u64>>,
        held: Arc<AtomicU64>,
    }

    struct Share(u64, Arc<AtomicU64>);

    impl Drop for Share {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0, Ordering::Relaxed);
        }
    }

    impl Windows for Counted {
        fn reserve(&self, bytes: u64) -> io::Result<Box<dyn Send>> {
            assert_eq!(self.held.fetch_add(bytes, Ordering::Relaxed), 0);
            self.asked.lock().unwrap().push(bytes);
            Ok(Box::new(Share(bytes, Arc::clone(&self.held))))
        }
    }

    fn windowed(data: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Each memory is asked for before it is there, once, and when nothing is held.
    #[test]
    fn windows_beyond_the_usual_are_asked_for() {
        let data: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n ^ n << 7).to_le_bytes())
            .collect();
        let logs = [20, 23, 25, 23, 24, 27, 26, 27, 10];
        let stream: Vec<u8> = logs.iter().flat_map(|log| windowed(&data, *log)).collect();
        let counted = Counted::default();
        let mut plain = Vec::new();
        {
            let mut reader = decompress_within(&stream[..], &counted).unwrap();
            reader.read_to_end(&mut plain).unwrap();
            assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
            assert_eq!(counted.held.load(Ordering::Relaxed), 1 << 27);
        }
        assert!(plain == data.repeat(logs.len()));
        assert_eq!(*counted.asked.lock().unwrap(), [1 << 25, 1 << 27]);
        assert_eq!(counted.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_large_windows_are_asked_for() {
        let data = b"x".repeat(100_000);
        for (stream, asked) in [
            (windowed(&data, 23), vec![]),
            (gzip(&data), vec![]),
            (bzip2(&data), vec![]),
            (windowed(&data, 24), vec![1 << 24]),
            (xz(&data), vec![XZ_MEMORY]),
        ] {
            let counted = Counted::default();
            let mut plain = Vec::new();
            let mut reader = decompress_within(&stream[..], &counted).unwrap();
            reader.read_to_end(&mut plain).unwrap();
            drop(reader);
            assert_eq!(
                (plain, counted.asked.into_inner().unwrap()),
                (data.clone(), asked)
            );
        }
    }

    proptest! {
        /// Damaged streams give what a decoder alone makes of them: nothing that it takes is kept from it, and the other
        /// way round.
        #[test]
        fn damage_is_what_it_is_to_the_decoder(at in 0..900_usize, mask in 1..=255_u8, cut in 0..900_usize) {
            let parts = [20, 23, 10].map(|log| windowed(&noise(log as usize * 10), log)).concat();
            let skipped = [&[0x51, 0x2a, 0x4d, 0x18, 9, 0, 0, 0][..], b"skip this"].concat();
            let mut stream = [&parts[..], &skipped, &parts].concat();
            let length = stream.len();
            stream[at % length] ^= mask;
            if cut % 3 == 0 {
                stream.truncate(cut % length);
            }
            // Who damages the first bytes makes something else of it.
            if Encoding::of(&stream) == Encoding::Zstd {
                let alone = || {
                    let mut decoder = Decoder::new(&stream[..])?;
                    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                    let mut plain = Vec::new();
                    decoder.read_to_end(&mut plain).map(|_| plain)
                };
                prop_assert_eq!(all(&stream).map_err(|error| error.to_string()), alone().map_err(|error: io::Error| error.to_string()));
            }
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 9_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    /// Who does not get the memory gets no bytes either, and no end that looks like one.
    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        struct Never;
        impl Windows for Never {
            fn reserve(&self, _: u64) -> io::Result<Box<dyn Send>> {
                Err(io::Error::other("canceled"))
            }
        }
        let stream = [windowed(b"first", 20), windowed(b"second", 27)].concat();
        let mut plain = Vec::new();
        let mut reader = decompress_within(&stream[..], &Never).unwrap();
        assert_eq!(
            reader.read_to_end(&mut plain).unwrap_err().to_string(),
            "canceled"
        );
        assert_eq!(plain, b"first");
        assert!(reader.read(&mut [0; 9]).is_err());
    }

    #[test]
    fn short_streams_are_plain() {
        for bytes in [&b""[..], b"a", b"\x1f", b"BZh"] {
            assert_eq!(all(bytes).unwrap(), bytes);
        }
    }
}
