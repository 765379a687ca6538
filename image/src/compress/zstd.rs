//! zstd in parallel, on a thread of its own that nobody has to wait for.
//!
//! The library compresses several jobs side by side, and at high levels each takes seconds, which nothing ends early:
//! whoever writes to it, or frees it, waits for them. So a thread of its own does that. Who waits for that thread lets the
//! writer that the bytes go to have a say now and then ([`Write::flush`]), and if that fails, leaves the thread alone: it
//! ends by itself when its jobs are done.

use std::io::{self, Write};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

/// Input of one job. Part of the format, as with gzip.
pub(super) const JOB: u32 = 4 << 20;
/// Each worker holds its job's input, output and tables: more of them would need more memory than a build may take.
const WORKERS: usize = 4;
/// Size of the pieces that go to the thread. Smaller than jobs, and no part of the format.
const PIECE: usize = 256 << 10;
/// How many pieces may wait for it.
const QUEUE: usize = 4;
/// How long the writer has no say at most.
const TURN: Duration = Duration::from_millis(100);

/// What goes to the thread.
enum Given {
    Piece(Vec<u8>),
    End,
}

/// What comes from the thread.
enum Made {
    Bytes(Vec<u8>),
    /// Room for another piece: fresh memory costs the kernel as much as compressing it at low levels.
    Room(Vec<u8>),
    /// All bytes came.
    Whole,
    Failed(io::Error),
}

/// Writes a zstd frame to `out`.
pub(super) struct Zstd<W: Write> {
    out: W,
    /// The next piece so far.
    piece: Vec<u8>,
    spare: Vec<Vec<u8>>,
    give: SyncSender<Given>,
    made: Receiver<Made>,
}

impl<W: Write> Zstd<W> {
    pub(super) fn new(level: i32, out: W) -> io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_workers(level, workers.clamp(1, WORKERS), out)
    }

    /// With workers, the input is cut into jobs of one size, however many workers there are; without, it is not: so there
    /// always are some.
    pub(super) fn with_workers(level: i32, workers: usize, out: W) -> io::Result<Self> {
        let (give, given) = sync_channel(QUEUE);
        let (tell, made) = channel();
        let mut encoder = Encoder::new(Passed(tell.clone()), level)?;
        encoder.include_checksum(true)?;
        encoder.set_parameter(CParameter::JobSize(JOB))?;
        encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
        std::thread::Builder::new()
            .name("zstd".to_owned())
            .spawn(move || compress(encoder, &given, &tell))?;
        Ok(Self {
            out,
            piece: Vec::new(),
            spare: Vec::new(),
            give,
            made,
        })
    }

    /// Writes what is left and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let piece = std::mem::take(&mut self.piece);
        self.give(Given::Piece(piece))?;
        self.give(Given::End)?;
        while !self.wait()? {}
        Ok(self.out)
    }

    /// Gives something to the thread as soon as it takes it, and writes what comes from there meanwhile.
    fn give(&mut self, mut given: Given) -> io::Result<()> {
        loop {
            self.take_all()?;
            given = match self.give.try_send(given) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(given)) => given,
                Err(TrySendError::Disconnected(_)) => return Err(self.failure()),
            };
            self.wait()?;
        }
    }

    /// Writes what has come by now.
    fn take_all(&mut self) -> io::Result<()> {
        loop {
            match self.made.try_recv() {
                Ok(made) => drop(self.take(made)?),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(panicked()),
            }
        }
    }

    /// Waits for something to come, but not for long. Gives whether all came.
    fn wait(&mut self) -> io::Result<bool> {
        match self.made.recv_timeout(TURN) {
            Ok(made) => self.take(made),
            Err(RecvTimeoutError::Timeout) => self.out.flush().map(|()| false),
            Err(RecvTimeoutError::Disconnected) => Err(panicked()),
        }
    }

    fn take(&mut self, made: Made) -> io::Result<bool> {
        match made {
            Made::Bytes(bytes) => self.out.write_all(&bytes)?,
            Made::Room(room) => self.spare.push(room),
            Made::Whole => return Ok(true),
            Made::Failed(error) => return Err(error),
        }
        Ok(false)
    }

    /// Why the thread takes nothing any more.
    fn failure(&mut self) -> io::Error {
        loop {
            match self.made.recv() {
                Ok(Made::Failed(error)) => return error,
                Ok(_) => {}
                Err(_) => return panicked(),
            }
        }
    }
}

impl<W: Write> Write for Zstd<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
        }
        let count = buffer.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buffer[..count]);
        if self.piece.len() == PIECE {
            let piece = std::mem::take(&mut self.piece);
            self.give(Given::Piece(piece))?;
        }
        Ok(count)
    }

    /// Only what compression has let through so far.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn panicked() -> io::Error {
    io::Error::other("the thread of a zstd compression ended early")
}

/// Hands compressed bytes to who waits for them.
struct Passed(Sender<Made>);

impl Write for Passed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.send(Made::Bytes(bytes.to_vec())) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's work. When nobody listens any more it ends, as soon as the encoder lets it.
fn compress(mut encoder: Encoder<'static, Passed>, given: &Receiver<Given>, tell: &Sender<Made>) {
    let last = loop {
        match given.recv() {
            Ok(Given::Piece(mut piece)) => {
                if let Err(error) = encoder.write_all(&piece) {
                    break Made::Failed(error);
                }
                piece.clear();
                if tell.send(Made::Room(piece)).is_err() {
                    return;
                }
            }
            Ok(Given::End) => match encoder.finish() {
                Ok(_) => break Made::Whole,
                Err(error) => break Made::Failed(error),
            },
            // Given up.
            Err(_) => return,
        }
    };
    // Nobody may be there any more.
    let _ = tell.send(last);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    /// Fails once it is stopped.
    struct Stopped(Arc<AtomicBool>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.flush().map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) {
                Err(io::Error::other("stopped"))
            } else {
                Ok(())
            }
        }
    }

    /// Bytes that take long to compress well.
    fn slow(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"acgt"[(state >> 62) as usize]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    /// How long one job takes at a high level, with nothing beside it.
    fn one_job(data: &[u8]) -> Duration {
        let begun = Instant::now();
        let mut whole = Zstd::with_workers(19, 1, Vec::new()).unwrap();
        whole.write_all(&data[..JOB as usize]).unwrap();
        whole.finish().unwrap();
        begun.elapsed()
    }

    #[test]
    fn nobody_waits_for_jobs_after_a_stop() {
        // More than an encoder takes before it waits for its first job.
        let data = slow(8 * JOB as usize);
        let job = one_job(&data);
        for in_finish in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            let mut stopped = Zstd::with_workers(19, 1, Stopped(Arc::clone(&stop))).unwrap();
            stopped.write_all(&data[..JOB as usize]).unwrap();
            stop.store(true, Ordering::Relaxed);
            let begun = Instant::now();
            let error = if in_finish {
                stopped.finish().map(drop).unwrap_err()
            } else {
                let error = stopped.write_all(&data).unwrap_err();
                drop(stopped);
                error
            };
            let taken = begun.elapsed();
            assert_eq!(error.to_string(), "stopped");
            assert!(
                taken < (TURN * 3).max(job / 2),
                "it took {taken:?} to stop; a job takes {job:?}"
            );
        }
    }

    #[test]
    fn an_error_of_the_writer_is_told() {
        let stop = Arc::new(AtomicBool::new(true));
        let mut compressor = Zstd::with_workers(1, 1, Stopped(stop)).unwrap();
        let data = slow(JOB as usize);
        let written = (0..20).find_map(|_| compressor.write_all(&data).err());
        assert_eq!(written.unwrap().to_string(), "stopped");
    }
}
