//! Reading, hashing and unpacking a tar stream at the same time: each is bound to one processor.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::decompress::fill;
use super::{LayerError, UnpackOptions};
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
    options: &UnpackOptions<'_>,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, LayerError>,
) -> Result<(T, Digest, u64), LayerError> {
    let progress = options.progress;
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
        let refuse = || options.refused.iter().for_each(|refused| refused());
        if matches!(consumed, Err(LayerError::TooMuch { .. })) {
            // Now: the source may be waiting.
            refuse();
        }
        // Ends the source where the consumer stopped early.
        drop(queue);
        let size = source.join().map_err(|_| panicked())?;
        let digest = hasher.join().map_err(|_| panicked())?;
        match (consumed, size) {
            // Whatever became of the rest.
            (Err(error @ LayerError::TooMuch { .. }), _) => Err(error),
            // The consumer sees a stream that is broken, or has no end, only as one that ends early.
            (_, Err(error)) => Err(LayerError::Read(error)),
            (_, Ok(size)) if size > limits::LAYER_SIZE => {
                refuse();
                let limit = limits::LAYER_SIZE;
                Err(LayerError::TooMuch { what: "bytes", limit })
            }
            (Err(error), _) => Err(error),
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
    let mut sent: VecDeque<Piece> = VecDeque::new();
    loop {
        // New memory has to be cleared, page by page: better the oldest piece, once both sides are through with it.
        let mut piece = match sent.pop_front().map(Arc::try_unwrap) {
            Some(Ok(used)) => used,
            Some(Err(in_use)) => {
                sent.push_front(in_use);
                Vec::new()
            }
            None => Vec::new(),
        };
        piece.resize(PIECE, 0);
        let filled = fill(&mut reader, &mut piece)?;
        if filled == 0 {
            return Ok(size);
        }
        piece.truncate(filled);
        size += filled as u64;
        let piece = Arc::new(piece);
        sent.push_back(Arc::clone(&piece));
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
            // It may be filled again.
            self.current = None;
            let Ok(piece) = self.pieces.recv() else {
                return Ok(0);
            };
            self.current = Some(piece);
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const BEYOND: LayerError = LayerError::TooMuch {
        what: "entries",
        limit: 3,
    };

    /// Gives one piece, and then waits.
    struct Waiting(io::Take<io::Repeat>, Receiver<()>);

    impl Read for Waiting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => {
                    self.1.recv().map_err(io::Error::other)?;
                    Err(io::Error::other("nobody wants more"))
                }
                count => Ok(count),
            }
        }
    }

    #[test]
    fn who_waits_for_bytes_of_no_use_is_told() {
        let (tell, told) = channel();
        let refused = move || tell.send(()).unwrap();
        let options = UnpackOptions {
            refused: Some(&refused),
            ..UnpackOptions::default()
        };
        let reader = Waiting(io::repeat(7).take(PIECE as u64), told);
        let result = hashed(reader, &options, |stream| {
            stream.read_exact(&mut [0; 100]).unwrap();
            Err::<(), _>(BEYOND)
        });
        // The refusal, and not what became of the reader.
        assert!(
            matches!(result, Err(LayerError::TooMuch { limit: 3, .. })),
            "{result:?}"
        );
    }

    #[test]
    fn the_digest_is_that_of_all_pieces() {
        let bytes: Vec<u8> = (0..PIECE * 40 + 5).map(|at| (at % 251) as u8).collect();
        for length in [0, 1, PIECE, PIECE * 40 + 5] {
            let (all, digest, size) = hashed(&bytes[..length], &UnpackOptions::default(), |stream| {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).map_err(LayerError::Read)?;
                Ok(all)
            })
            .unwrap();
            assert!(all == bytes[..length]);
            assert_eq!(
                (digest, size),
                (Digest::sha256_of(&bytes[..length]), length as u64)
            );
        }
    }
}
