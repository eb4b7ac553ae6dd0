//! Where time gets into an agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use types::Timestamp;

/// When something happens. Whatever waits does so by uptime; what others read is said in time of
/// day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Steady: since some moment that is one and the same for as long as the agent lives.
    pub uptime: Duration,
    /// By the node's clock, which may be set.
    pub time: Timestamp,
}

/// An agent's clock: uptime counts from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the loops of an agent count from here")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        Now { uptime: self.0.elapsed(), time: time_of_day() }
    }

    /// The moment of an uptime, to sleep until.
    pub(crate) fn at(self, uptime: Duration) -> Instant {
        self.0 + uptime
    }
}

pub(crate) fn time_of_day() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loops of an agent read the clock here")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
