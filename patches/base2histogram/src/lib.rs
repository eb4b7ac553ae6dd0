//! Counts how often values of each size occur, for the consensus library's statistics.
//!
//! The published crate of this name prepares tables for sixteen resolutions as soon as the first
//! histogram is made, 27 MB in all, of which the library uses one of 2 KB. On a manager that was
//! more than everything else it keeps. This one offers what the library calls, with a bucket for
//! each power of two. It can go once the published crate prepares what is used.

use std::fmt;
use std::marker::PhantomData;

/// A value has up to 64 bits; zero has a bucket of its own.
const BUCKETS: usize = 65;

/// How often values of each size have occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// By the number of bits of the values.
    counts: [u64; BUCKETS],
    kind: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// A histogram of no values.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], kind: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that occurred `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = &mut self.counts[bits(value)];
        *bucket = bucket.saturating_add(count);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What so many of a thousand values do not exceed, down to a power of two; 0 where none was
    /// counted.
    fn permille(&self, share: u128) -> u64 {
        let wanted = (u128::from(self.total()) * share).div_ceil(1000).max(1);
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += u128::from(*count);
            wanted <= seen
        };
        self.counts.iter().position(reaches).map_or(0, least)
    }

    /// The percentiles that are usually asked for.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }
}

fn bits(value: u64) -> usize {
    usize::try_from(u64::BITS - value.leading_zeros()).unwrap_or(0)
}

fn least(bits: usize) -> u64 {
    if bits == 0 { 0 } else { 1 << (bits - 1) }
}

/// How many values there are, and what so many of a thousand of them do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, P50: {p50}, P90: {p90}, P99: {p99}, P99.9: {p99_9}]"
        )
    }
}

/// Several histograms as text, one a line.
#[derive(Clone, Debug)]
pub struct AsciiChart<T = ()>(Vec<(String, Histogram<T>)>);

impl<T> AsciiChart<T> {
    /// A chart of none.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// The same with one more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, histogram)| {
            writeln!(f, "{name}: {}", histogram.percentile_stats())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (1..=1000).for_each(|value| histogram.record(value));
        histogram.record_n(0, 10);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99), (1011, 0, 256, 512));
        assert_eq!(histogram.permille(1000), 1 << 63);
    }
}
