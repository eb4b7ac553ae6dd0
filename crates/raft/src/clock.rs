//! The cluster's clock: the time that entries of the log carry, and that closures decide by.
//!
//! Invariants: it never goes back, also not over a restart, as it goes on from the newest entry; it
//! never stands still, as it follows the steady clock while the time of day is behind it. So a clock
//! that is set back neither undoes nor stops a delay.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};
use types::Timestamp;

pub(crate) struct Clock {
    /// Reads the time of day.
    wall: fn() -> Timestamp,
    /// What was read last, and when by the steady clock.
    last: Mutex<(Timestamp, Instant)>,
}

impl Clock {
    /// A clock that goes on from `last`.
    pub(crate) fn new(wall: fn() -> Timestamp, last: Timestamp) -> Self {
        Self { wall, last: Mutex::new((last, steady())) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.read(steady())
    }

    fn read(&self, at: Instant) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.wall)().max(last.0.after(at.saturating_duration_since(last.1)));
        *last = (now, at);
        now
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(…)")
    }
}

#[expect(clippy::disallowed_methods, reason = "the cluster's clock is read here")]
fn steady() -> Instant {
    Instant::now()
}

/// The time of day, as this machine has it.
#[expect(clippy::disallowed_methods, reason = "the cluster's clock is read here")]
pub(crate) fn time_of_day() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().after(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_time_of_day_is_followed_but_not_back() {
        static WALL: AtomicI64 = AtomicI64::new(100 * SECOND);
        let clock = Clock::new(|| Timestamp(WALL.load(Ordering::Relaxed)), Timestamp(0));
        let (_, start) = *clock.last.lock().unwrap();
        assert_eq!(clock.read(start), Timestamp(100 * SECOND));
        WALL.store(200 * SECOND, Ordering::Relaxed);
        assert_eq!(clock.read(start), Timestamp(200 * SECOND));
        WALL.store(50 * SECOND, Ordering::Relaxed);
        assert_eq!(clock.read(start), Timestamp(200 * SECOND));
        let later = start + Duration::from_secs(7);
        assert_eq!(clock.read(later), Timestamp(207 * SECOND), "it goes on by the steady clock");
        WALL.store(300 * SECOND, Ordering::Relaxed);
        assert_eq!(clock.read(later), Timestamp(300 * SECOND));
    }

    #[test]
    fn it_goes_on_from_the_newest_entry() {
        let clock = Clock::new(Timestamp::default, Timestamp(9 * SECOND));
        let (_, start) = *clock.last.lock().unwrap();
        assert_eq!(clock.read(start + Duration::from_secs(1)), Timestamp(10 * SECOND));
    }
}
