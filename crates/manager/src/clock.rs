//! Where time and randomness get into a manager.

use rand::RngExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use types::{IdSource, Timestamp};

/// The time of day.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loops of a manager read the clock here")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Time that only goes on, since it was first asked. What a manager measures by itself goes by it;
/// it says nothing to others, and the time of day and the cluster's are [`Timestamp`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    pub(crate) fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "the loops of a manager read the clock here")]
        let now = Instant::now();
        Self(now.duration_since(*START.get_or_init(|| now)))
    }

    /// The time `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// How long ago `earlier` was; zero if it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Draws ids at random.
#[derive(Debug)]
pub(crate) struct RandomIds;

impl IdSource for RandomIds {
    fn next_bits(&mut self) -> u128 {
        rand::rng().random()
    }
}
