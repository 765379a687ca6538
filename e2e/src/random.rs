//! Random numbers that a failed test can have again: the seed is told, and `KILN_E2E_SEED` gives it.

use crate::Result;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of random numbers (SplitMix64): good enough to choose by, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// One that begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A duration up to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.saturating_add(1)))
    }

    /// Bytes that no compression makes smaller, and of which no piece repeats.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Another source, which goes its own way.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }
}

/// The seed to begin with: `KILN_E2E_SEED`, or one of the clock.
pub fn seed() -> Result<u64> {
    if let Ok(text) = std::env::var("KILN_E2E_SEED") {
        return text
            .parse()
            .map_err(|error| format!("KILN_E2E_SEED={text}: {error}").into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_within_bounds() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            let number = one.below(10);
            assert_eq!(number, other.below(10));
            assert!(number < 10);
        }
        assert_ne!(one.split().number(), one.split().number());
        assert_eq!(one.below(0), 0);
        assert!(!one.percent(0) && one.percent(100));
    }
}
