//! Where time and randomness get into a manager.

use rand::RngExt;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use types::{IdSource, Timestamp};

/// The time of day.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loops of a manager read the clock here")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Time that only goes on: since this was first asked.
pub(crate) fn uptime() -> Timestamp {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the loops of a manager read the clock here")]
    let now = Instant::now();
    let since = now.duration_since(*START.get_or_init(|| now));
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Draws ids at random.
#[derive(Debug)]
pub(crate) struct RandomIds;

impl IdSource for RandomIds {
    fn next_bits(&mut self) -> u128 {
        rand::rng().random()
    }
}
