//! Reading, hashing and unpacking a tar stream at the same time: each is bound to one processor.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::LayerError;
use super::decompress::fill;
use crate::{Digest, Sha256, limits};

/// Size of the pieces that go from thread to thread.
const PIECE: usize = 256 << 10;
/// How many pieces may wait in each queue: 4 MiB in all keep both sides busy.
const QUEUE: usize = 8;

type Piece = Arc<Vec<u8>>;

/// Lets `consume` read the stream `reader`, while other threads read it ahead and hash it. `consume` must read to the
/// end. Gives what `consume` gave, the stream's digest and its length.
pub(super) fn hashed<T>(
    reader: impl Read + Send,
    progress: Option<&(dyn Fn(u64) + Sync)>,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, LayerError>,
) -> Result<(T, Digest, u64), LayerError> {
    let (pieces, to_read) = sync_channel::<Piece>(QUEUE);
    let (copies, to_hash) = sync_channel::<Piece>(QUEUE);
    thread::scope(|scope| {
        let source = scope.spawn(move || read_ahead(reader, &pieces, &copies, progress));
        let hasher = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for piece in to_hash {
                hasher.update(&piece);
            }
            hasher.finish()
        });
        let mut queue = Queue::new(to_read);
        let consumed = consume(&mut queue);
        // Ends the source where the consumer stopped early.
        drop(queue);
        let size = source.join().map_err(|_| panicked())?;
        let digest = hasher.join().map_err(|_| panicked())?;
        match (consumed, size) {
            // The consumer sees a broken stream only as one that ends early.
            (_, Err(error)) => Err(LayerError::Read(error)),
            (Err(error), _) => Err(error),
            (Ok(value), Ok(size)) if size > limits::LAYER_SIZE => {
                drop(value);
                let limit = limits::LAYER_SIZE;
                Err(LayerError::TooMuch { what: "bytes", limit })
            }
            (Ok(value), Ok(size)) => Ok((value, digest, size)),
        }
    })
}

fn panicked() -> LayerError {
    LayerError::Read(io::Error::other("a thread of the unpacking pipeline panicked"))
}

/// Gives the number of bytes read; more than the limit when it stopped for that.
fn read_ahead(
    mut reader: impl Read,
    pieces: &SyncSender<Piece>,
    copies: &SyncSender<Piece>,
    progress: Option<&(dyn Fn(u64) + Sync)>,
) -> io::Result<u64> {
    let mut size = 0;
    loop {
        let mut piece = vec![0; PIECE];
        let filled = fill(&mut reader, &mut piece)?;
        if filled == 0 {
            return Ok(size);
        }
        piece.truncate(filled);
        size += filled as u64;
        let piece = Arc::new(piece);
        let gone = copies.send(Arc::clone(&piece)).is_err() || pieces.send(piece).is_err();
        if let Some(progress) = progress {
            progress(size);
        }
        if gone || size > limits::LAYER_SIZE {
            return Ok(size);
        }
    }
}

/// The reading end.
struct Queue {
    pieces: Receiver<Piece>,
    current: Option<Piece>,
    at: usize,
}

impl Queue {
    fn new(pieces: Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: None,
            at: 0,
        }
    }
}

impl Read for Queue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.current
                && self.at < piece.len()
            {
                let n = buffer.len().min(piece.len() - self.at);
                buffer[..n].copy_from_slice(&piece[self.at..self.at + n]);
                self.at += n;
                return Ok(n);
            }
            let Ok(piece) = self.pieces.recv() else {
                return Ok(0);
            };
            self.current = Some(piece);
            self.at = 0;
        }
    }
}
