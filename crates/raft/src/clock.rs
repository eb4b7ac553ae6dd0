//! The cluster's clock: the time that entries of the log carry, and that closures decide by.
//!
//! Invariants: it never goes back, also not over a restart or when another manager leads, as it is
//! never behind the newest entry; it never stands still, as it follows the steady clock while the
//! time of day is behind it. So a clock that is set back neither undoes nor stops a delay.
//!
//! It does leap forward with the time of day. Whoever judges by how long something took does not
//! count what was before the last leap: nobody had that time.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use store::View;
use tokio::sync::watch;
use types::Timestamp;

/// By more than this the time of day runs ahead of the steady clock at once only where it was set,
/// or where the machine slept.
const LEAP: Duration = Duration::from_secs(10);

pub(crate) struct Clock {
    /// Reads the time of day.
    wall: fn() -> Timestamp,
    /// Knows the time of the newest entry, whoever wrote it.
    views: watch::Receiver<View>,
    /// What was read last, and when by the steady clock.
    last: Mutex<(Time, Instant)>,
}

/// What the cluster's clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    pub now: Timestamp,
    /// Since when the clock has gone on evenly, in its own time: since it began, or leapt last.
    pub fair_from: Timestamp,
}

impl Time {
    /// A clock begins, with what the log says last and the time of day.
    pub fn begin(last: Timestamp, wall: Timestamp) -> Self {
        let now = wall.max(last);
        Self { now, fair_from: now }
    }

    /// What it says when `passed` has passed by the steady clock.
    #[must_use]
    pub fn after(self, passed: Duration, wall: Timestamp) -> Self {
        let evenly = self.now.after(passed);
        let now = wall.max(evenly);
        let leaps = LEAP < now.since(evenly);
        Self { now, fair_from: if leaps { now } else { self.fair_from } }
    }
}

impl Clock {
    /// A clock that goes on from the newest entry.
    pub(crate) fn new(wall: fn() -> Timestamp, views: watch::Receiver<View>) -> Self {
        let time = Time::begin(views.borrow().time(), wall());
        Self { wall, views, last: Mutex::new((time, steady())) }
    }

    pub(crate) fn read(&self) -> Time {
        let (at, newest) = (steady(), self.views.borrow().time());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = at.saturating_duration_since(last.1);
        *last = (last.0.after(passed, (self.wall)().max(newest)), at);
        last.0
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    fn later(time: Time, seconds: u64, wall: i64) -> (Time, i64, i64) {
        let time = time.after(Duration::from_secs(seconds), at(wall));
        (time, time.now.0 / 1_000_000_000, time.fair_from.0 / 1_000_000_000)
    }

    #[test]
    fn the_time_of_day_is_followed_but_not_back() {
        let time = Time::begin(at(0), at(100));
        assert_eq!(time.now, at(100));
        let (time, now, _) = later(time, 0, 200);
        assert_eq!(now, 200);
        let (time, now, _) = later(time, 0, 50);
        assert_eq!(now, 200);
        let (time, now, _) = later(time, 7, 57);
        assert_eq!(now, 207, "it goes on by the steady clock");
        let (_, now, _) = later(time, 0, 300);
        assert_eq!(now, 300);
    }

    #[test]
    fn it_goes_on_from_the_newest_entry() {
        let time = Time::begin(at(9), at(0));
        assert_eq!(later(time, 1, 1).1, 10);
        let view = |seconds| {
            let mut view = View::default();
            view.apply(&store::Changes::default(), types::Version(1), at(seconds));
            view
        };
        let (views, published) = watch::channel(view(9));
        let clock = Clock::new(Timestamp::default, published);
        assert!(at(9) <= clock.read().now && clock.read().now < at(9000));
        // Another manager leads, whose clock is ahead of this one.
        views.send_replace(view(9000));
        assert!(at(9000) <= clock.read().now);
    }

    #[test]
    fn it_knows_when_it_leapt() {
        let (time, _, fair_from) = later(Time::begin(at(0), at(100)), 0, 100);
        assert_eq!(fair_from, 100);
        // However long nobody asked.
        let (time, _, fair_from) = later(time, 3600, 3700);
        assert_eq!(fair_from, 100);
        // It is set by little, and back.
        let (time, _, fair_from) = later(time, 0, 3709);
        assert_eq!(fair_from, 100);
        let (time, _, fair_from) = later(time, 1, 90);
        assert_eq!(fair_from, 100);
        let (time, _, fair_from) = later(time, 1, 7300);
        assert_eq!(fair_from, 7300);
        let (_, _, fair_from) = later(time, 98, 7398);
        assert_eq!(fair_from, 7300);
    }
}
