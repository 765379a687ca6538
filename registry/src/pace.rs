//! A body that comes drop by drop is as good as none: how slow a transfer may be.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// A transfer that brings less than this in a second, over the whole patience, has stalled. The slowest links that
/// images are pulled over are some times faster.
const BYTES_PER_SECOND: u64 = 1024;

/// What one body brought so far, in stretches of the patience.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Duration,
    /// Spent on reading, in this stretch. What the reader of the body does between its reads does not count.
    waited: Duration,
    brought: u64,
}

/// A body that is too slow.
#[derive(Debug, thiserror::Error)]
#[error("less than {BYTES_PER_SECOND} bytes a second for {} s", .0.as_secs_f64())]
pub(crate) struct TooSlow(Duration);

impl Pace {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            waited: Duration::ZERO,
            brought: 0,
        }
    }

    /// `waited` for `count` bytes.
    fn note(&mut self, waited: Duration, count: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.brought += count as u64;
        if self.waited < self.patience {
            return Ok(());
        }
        let least = self.patience.as_millis() * u128::from(BYTES_PER_SECOND) / 1000;
        if u128::from(self.brought) < least {
            return Err(TooSlow(self.patience));
        }
        (self.waited, self.brought) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// A body whose pace is watched.
pub(crate) struct Paced<'a, R> {
    pub(crate) inner: R,
    pub(crate) pace: &'a mut Pace,
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let count = self.inner.read(buffer)?;
        // The end is the end, however long it took.
        if count > 0 {
            self.pace
                .note(began.elapsed(), count)
                .map_err(|slow| io::Error::new(io::ErrorKind::TimedOut, slow))?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::Duration;

    /// Whether so many stretches of (milliseconds, bytes) pass, of a patience of 10 s.
    fn passes(reads: &[(u64, usize)]) -> bool {
        let mut pace = Pace::new(Duration::from_secs(10));
        reads
            .iter()
            .all(|&(waited, count)| pace.note(Duration::from_millis(waited), count).is_ok())
    }

    #[test]
    fn drops_are_no_stream() {
        assert!(passes(&[(9_999, 1)]), "there is patience");
        assert!(!passes(&[(9_999, 1), (1, 1)]));
        assert!(!passes(&[(100, 1); 100]));
        assert!(passes(&[(100, 103); 1000]), "slow, but a stream");
        assert!(!passes(&[(100, 101); 1000]));
        assert!(
            !passes(&[(1, 1 << 20), (9_999, 1), (10_000, 1)]),
            "a good beginning does not last for ever"
        );
        assert!(passes(&[(0, 1); 1000]), "fast ones may be short");
    }
}
