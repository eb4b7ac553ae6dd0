//! What end-to-end tests stand on: a lab of real daemons, the real docker CLI, an impatient client.
//!
//! A test brings a [`Lab`] up, drives it by [`Lab::docker`], and waits for what must come to pass
//! with [`until`]. Dropping the lab takes it down. Every lab has a name of its own, so that tests and
//! people on one machine do not meet.

mod client;
pub mod history;
mod http;
mod lab;
mod managers;
mod shown;
pub mod watch;

pub use client::{Client, Seen};
pub use http::{Answer, Page, page};
pub use lab::{Lab, images, kill_containerd, program};
pub use shown::Shown;

use std::time::Duration;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Waits until `look` finds something; panics with `what` and what was seen last.
///
/// # Panics
/// After `limit`.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = std::time::Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(start.elapsed() < limit, "not within {limit:?}: {what}; seen last: {seen}");
            }
        }
        std::thread::sleep(POLL);
    }
}
