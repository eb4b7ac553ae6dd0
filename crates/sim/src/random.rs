//! All chance of a run: one number in, the same draws out, on every machine and for ever.

use std::time::Duration;
use types::IdSource;

/// A stream of random numbers (splitmix64). Each part of the world has its own, so that what is
/// dropped from a history changes as little else as possible.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream, which depends on `name` and not on what was drawn from this one.
    #[must_use]
    pub fn fork(&self, name: u64) -> Self {
        let mut mixed = Self(self.0 ^ name.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(mixed.bits())
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let bits = self.bits();
        bits.checked_rem(end).unwrap_or(0)
    }

    /// Says yes so often in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.below(span))
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        self.between(Duration::from_millis(low), Duration::from_millis(high))
    }

    pub fn seconds(&mut self, low: u64, high: u64) -> Duration {
        self.between(Duration::from_secs(low), Duration::from_secs(high))
    }

    /// One of `of`, which has some.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.below(u64::try_from(of.len()).unwrap_or(u64::MAX));
        of[usize::try_from(index).unwrap_or(0)]
    }
}

impl IdSource for Random {
    fn next_bits(&mut self) -> u128 {
        (u128::from(self.bits()) << 64) | u128::from(self.bits())
    }
}
