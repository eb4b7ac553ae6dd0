//! What is refused to whom: all of it is counted, and as much of it is told as a log can bear.

use crate::incoming::Connection;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Refusals that are told within [`WINDOW`]. Whoever knocks without end fills no log.
const TOLD: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);

/// Counts connections and calls that were refused. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    connections: u64,
    calls: u64,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// Connections that were not taken, or not kept.
    pub fn connections(&self) -> u64 {
        self.counts().connections
    }

    /// Calls of strangers and of nodes that they may not make.
    pub fn calls(&self) -> u64 {
        self.counts().calls
    }

    pub(crate) fn connection(&self, remote: SocketAddr, why: &dyn fmt::Display) {
        if let Some(untold) = self.count(|counts| &mut counts.connections) {
            tracing::warn!(target: "audit", %remote, %why, untold, "a connection is refused");
        }
    }

    /// A call is refused to whoever has this connection.
    pub fn call(&self, connection: &Connection, call: &str, why: &str) {
        if let Some(untold) = self.count(|counts| &mut counts.calls) {
            let Connection { peer, remote } = connection;
            let node = peer.as_ref().map(|peer| peer.node.as_str());
            tracing::warn!(target: "audit", %remote, node, call, why, untold, "a call is refused");
        }
    }

    /// Counts one more. Says whether it may be told, and how many before it were not.
    fn count(&self, which: impl FnOnce(&mut Counts) -> &mut u64) -> Option<u64> {
        #[expect(clippy::disallowed_methods, reason = "the log's pace is nobody's decision")]
        let now = Instant::now();
        let mut counts = self.counts();
        *which(&mut counts) += 1;
        counts.tell(now)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn tell(&mut self, now: Instant) -> Option<u64> {
        let window = self.window.get_or_insert(Window { since: now, told: 0, untold: 0 });
        if now.duration_since(window.since) > WINDOW {
            (window.since, window.told) = (now, 0);
        }
        if window.told == TOLD {
            window.untold += 1;
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn who_knocks_without_end_fills_no_log() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        let told: Vec<_> = (0..100).filter_map(|_| counts.tell(start)).collect();
        assert_eq!(told, vec![0; 60]);
        let later = start + WINDOW + Duration::from_secs(1);
        assert_eq!(counts.tell(later), Some(40), "it says how many were not told");
        assert_eq!(counts.tell(later), Some(0));
    }
}
