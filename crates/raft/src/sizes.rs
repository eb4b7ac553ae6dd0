//! How large the log and its snapshot are: when the next snapshot is due, and how much room it takes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of entries after which a snapshot is worth its while, however few they are.
const WORTH_BYTES: u64 = 16 << 20;

/// Bytes of entries for which no room is asked: the reserve has it. A state is measured anew only
/// when more than this was written.
const SMALL_BYTES: u64 = 1 << 20;

/// Counted as it is written; all in bytes.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// Of all entries since the process began, and those that it found without a snapshot.
    written: AtomicU64,
    /// What the state took when it was encoded last, as a snapshot or to measure it.
    state: AtomicU64,
    /// What was written by then.
    measured: AtomicU64,
}

impl Sizes {
    /// What was found on the disk.
    pub(crate) fn new(snapshot: u64, uncovered: u64) -> Self {
        Self {
            written: AtomicU64::new(uncovered),
            state: AtomicU64::new(snapshot),
            measured: AtomicU64::default(),
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

    /// Notes that the state took so many bytes when so much was written.
    pub(crate) fn measure(&self, state: u64, written: u64) {
        self.state.store(state, Ordering::Relaxed);
        self.measured.store(written, Ordering::Relaxed);
    }

    /// What was written since the state was measured.
    pub(crate) fn unmeasured(&self) -> u64 {
        self.written().saturating_sub(self.measured.load(Ordering::Relaxed))
    }

    /// Says whether a snapshot is due by bytes: the log has outgrown the last one. `asked` is what
    /// was written when one was asked for last.
    pub(crate) fn is_due(&self, asked: u64) -> bool {
        let since = self.written().saturating_sub(asked);
        since >= WORTH_BYTES.max(self.state.load(Ordering::Relaxed))
    }

    /// Free space that the next snapshot may take: it is at most as large as the state was and what came
    /// since, it lies beside the last one until it is whole, and the file grows in large steps.
    pub(crate) fn next_snapshot(&self) -> u64 {
        let since = self.unmeasured().saturating_sub(SMALL_BYTES);
        self.state.load(Ordering::Relaxed).saturating_add(since).saturating_mul(3)
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
        assert_eq!(sizes.next_snapshot(), 327 * MIB);
        sizes.append(20 * MIB);
        assert_eq!(sizes.next_snapshot(), 387 * MIB);
        sizes.measure(120 * MIB, sizes.written());
        assert_eq!(sizes.next_snapshot(), 360 * MIB);
        sizes.append(MIB);
        assert_eq!(sizes.next_snapshot(), 360 * MIB, "the reserve has room for a little");
    }
}
