//! Decompression by the first bytes of the stream.

use std::io::{self, BufReader, Cursor, Read};

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

/// The plain bytes of `reader`, which may be compressed with gzip, zstd, bzip2 or xz, known by their first bytes. How
/// much comes out is for the caller to limit ([`super::unpack`] does); the memory that it takes is limited here.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = [0; MAGIC];
    let filled = fill(&mut reader, &mut start)?;
    let encoding = Encoding::of(&start[..filled]);
    let whole = Cursor::new(start).take(filled as u64).chain(reader);
    let whole = BufReader::with_capacity(BUFFER, whole);
    Ok(match encoding {
        Encoding::Plain => Box::new(whole),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Encoding::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Encoding::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags).map_err(io::Error::from)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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

    #[test]
    fn short_streams_are_plain() {
        for bytes in [&b""[..], b"a", b"\x1f", b"BZh"] {
            assert_eq!(all(bytes).unwrap(), bytes);
        }
    }
}
