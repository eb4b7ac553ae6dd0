//! Where time gets into an agent.

use std::time::{SystemTime, UNIX_EPOCH};
use types::Timestamp;

/// The time of day.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loops of an agent read the clock here")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
