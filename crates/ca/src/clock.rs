//! The time of day, by which certificates go.

use std::time::{SystemTime, UNIX_EPOCH};
use types::Timestamp;

#[expect(clippy::disallowed_methods, reason = "certificates go by the time of day")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(0).after(since.unwrap_or_default())
}
