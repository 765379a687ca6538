//! Memory for the decoders of layers.
//!
//! A zstd stream says how far back it refers, and its decoder keeps as much: up to 128 MiB, of each layer that is unpacked at
//! the time. What is usual each may have; those that want more wait for each other.

use std::io;
use std::sync::Arc;

use kiln_image::layer::{LARGEST_WINDOW, Windows};

use super::fetch::canceled;
use super::slots::Slots;
use crate::cancel::Cancel;

/// What the memory is counted in.
const UNIT: u64 = 1 << 20;

/// Memory that all layers of a process together may have beyond what is usual: one may have all of it.
#[derive(Debug, Clone)]
pub(crate) struct DecoderMemory(Arc<Slots>);

impl DecoderMemory {
    pub(crate) fn new() -> Self {
        Self(Slots::new(units(LARGEST_WINDOW)))
    }

    /// For one stream; its waiting ends when `stop` is raised.
    pub(crate) fn until<'a>(&'a self, stop: &'a Cancel) -> Waiting<'a> {
        Waiting { memory: self, stop }
    }
}

fn units(bytes: u64) -> usize {
    // Never more than there is: that would be waited for in vain.
    let bytes = bytes.min(LARGEST_WINDOW);
    usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX)
}

/// Who asks for memory, and what ends that.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    memory: &'a DecoderMemory,
    stop: &'a Cancel,
}

impl Windows for Waiting<'_> {
    fn reserve(&self, bytes: u64) -> io::Result<Box<dyn Send>> {
        let taken = self.memory.0.take_many(units(bytes), self.stop);
        Ok(Box::new(taken.ok_or_else(canceled)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use kiln_image::layer::decompress_within;

    use super::*;

    /// A frame with a window of two to the power of `log`.
    fn frame(data: &[u8], log: u8) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
        let header = 1 | u32::try_from(data.len()).unwrap() << 3;
        frame.write_all(&header.to_le_bytes()[..3]).unwrap();
        frame.write_all(data).unwrap();
        frame
    }

    /// Streams whose windows grow and shrink, side by side: all come to their end.
    #[test]
    fn those_that_want_more_wait_for_each_other_and_nobody_for_ever() {
        let memory = DecoderMemory::new();
        let stop = Cancel::new();
        let stream: Vec<u8> = [20, 25, 26, 27, 23, 26, 27]
            .iter()
            .flat_map(|log| frame(b"some", *log))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let waiting = memory.until(&stop);
                    let mut reader = decompress_within(&stream[..], &waiting).unwrap();
                    let mut plain = Vec::new();
                    reader.read_to_end(&mut plain).unwrap();
                    assert_eq!(plain, b"some".repeat(7));
                });
            }
        });
    }

    #[test]
    fn usual_ones_do_not_wait_and_a_stop_ends_the_waiting() {
        let memory = DecoderMemory::new();
        let stop = Cancel::new();
        let all = memory.until(&stop).reserve(LARGEST_WINDOW).unwrap();
        let read = |log: u8, stop: &Cancel| {
            let stream = frame(b"some", log);
            let waiting = memory.until(stop);
            let mut reader = decompress_within(&stream[..], &waiting).unwrap();
            let mut plain = Vec::new();
            reader.read_to_end(&mut plain).map(|_| plain)
        };
        assert_eq!(read(23, &stop).unwrap(), b"some");
        let (ended, end) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| ended.send(read(24, &stop)));
            assert!(
                end.recv_timeout(Duration::from_millis(50)).is_err(),
                "it did not wait"
            );
            stop.raise();
            assert_eq!(end.recv().unwrap().unwrap_err().to_string(), "canceled");
        });
        drop(all);
        assert_eq!(read(24, &Cancel::new()).unwrap(), b"some");
    }
}
