//! How large the log and its snapshot are: when the next snapshot is due, and how much room it takes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of entries after which a snapshot is worth its while, however few they are.
const WORTH_BYTES: u64 = 16 << 20;

/// Counted as it is written; all in bytes.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// Of all entries since the process began, and those that it found without a snapshot.
    written: AtomicU64,
    /// Of those, which are in the snapshot.
    covered: AtomicU64,
    /// Of the snapshot.
    snapshot: AtomicU64,
}

impl Sizes {
    /// What was found on the disk.
    pub(crate) fn new(snapshot: u64, uncovered: u64) -> Self {
        Self {
            written: AtomicU64::new(uncovered),
            covered: AtomicU64::default(),
            snapshot: AtomicU64::new(snapshot),
        }
    }

    /// Notes entries of so many bytes.
    pub(crate) fn append(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Everything that was written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Notes a snapshot of so many bytes, begun when so much was written.
    pub(crate) fn cover(&self, snapshot: u64, written: u64) {
        self.snapshot.store(snapshot, Ordering::Relaxed);
        self.covered.store(written, Ordering::Relaxed);
    }

    /// Says whether a snapshot is due by bytes: the log has outgrown the last one. `asked` is what
    /// was written when one was asked for last.
    pub(crate) fn is_due(&self, asked: u64) -> bool {
        let since = self.written().saturating_sub(asked);
        since >= WORTH_BYTES.max(self.snapshot.load(Ordering::Relaxed))
    }

    /// Room that the next snapshot may take: it is at most as large as the last one and what came
    /// since, it lies beside the last one until it is whole, and the file grows in large steps.
    pub(crate) fn next_snapshot(&self) -> u64 {
        let since = self.written().saturating_sub(self.covered.load(Ordering::Relaxed));
        let snapshot = self.snapshot.load(Ordering::Relaxed).saturating_add(since);
        snapshot.saturating_mul(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_snapshot_is_due_when_the_log_has_outgrown_the_last_one() {
        let sizes = Sizes::new(40 * MIB, 0);
        sizes.append(39 * MIB);
        assert!(!sizes.is_due(0));
        sizes.append(MIB);
        assert!(sizes.is_due(0));
        assert!(!sizes.is_due(sizes.written()), "it was asked for");
        let small = Sizes::new(1, 15 * MIB);
        assert!(!small.is_due(0), "small ones are not worth their while");
        small.append(MIB);
        assert!(small.is_due(0));
    }

    #[test]
    fn the_room_for_the_next_snapshot_grows_with_what_it_has_to_hold() {
        let sizes = Sizes::new(100 * MIB, 10 * MIB);
        assert_eq!(sizes.next_snapshot(), 330 * MIB);
        sizes.append(20 * MIB);
        assert_eq!(sizes.next_snapshot(), 390 * MIB);
        sizes.cover(120 * MIB, sizes.written());
        assert_eq!(sizes.next_snapshot(), 360 * MIB);
    }
}
