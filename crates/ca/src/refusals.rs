//! What is refused to whom: all of it is counted, and as much of it is told as a log can bear.

use crate::incoming::Connection;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Refusals of one kind that are told within [`WINDOW`]. Whoever knocks without end fills no log, and
/// hides nothing of what nodes are refused.
const TOLD: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);

/// Counts connections and calls that were refused. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    connections: Count,
    calls_of_strangers: Count,
    calls_of_nodes: Count,
}

#[derive(Debug, Default)]
struct Count {
    all: u64,
    /// When telling them began, and how many were told since.
    told: Option<(Instant, u32)>,
    untold: u64,
}

impl Refusals {
    /// Connections that were not taken, or not kept.
    pub fn connections(&self) -> u64 {
        self.counts().connections.all
    }

    /// Calls of strangers and of nodes that they may not make.
    pub fn calls(&self) -> u64 {
        let counts = self.counts();
        counts.calls_of_strangers.all + counts.calls_of_nodes.all
    }

    pub(crate) fn connection(&self, remote: SocketAddr, why: &dyn fmt::Display) {
        let untold = self.counts().connections.one(now());
        if let Some(untold) = untold {
            tracing::warn!(target: "audit", %remote, %why, untold, "a connection is refused");
        }
    }

    /// A call is refused to whoever has this connection.
    pub fn call(&self, connection: &Connection, call: &str, why: &str) {
        let Connection { peer, remote } = connection;
        let which = |counts: &mut Counts| match peer {
            Some(_) => counts.calls_of_nodes.one(now()),
            None => counts.calls_of_strangers.one(now()),
        };
        let untold = which(&mut self.counts());
        if let Some(untold) = untold {
            let node = peer.as_ref().map(|peer| peer.node.as_str());
            tracing::warn!(target: "audit", %remote, node, call, why, untold, "a call is refused");
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Counts one more. Says whether it may be told, and how many before it were not.
    fn one(&mut self, now: Instant) -> Option<u64> {
        self.all += 1;
        let (since, told) = self.told.get_or_insert((now, 0));
        if now.duration_since(*since) > WINDOW {
            (*since, *told) = (now, 0);
        }
        if *told == TOLD {
            self.untold += 1;
            return None;
        }
        *told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[expect(clippy::disallowed_methods, reason = "the log's pace is nobody's decision")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn who_knocks_without_end_fills_no_log() {
        let (mut count, start) = (Count::default(), Instant::now());
        let told: Vec<_> = (0..100).filter_map(|_| count.one(start)).collect();
        assert_eq!(told, vec![0; 60]);
        let later = start + WINDOW + Duration::from_secs(1);
        assert_eq!(count.one(later), Some(40), "it says how many were not told");
        assert_eq!(count.one(later), Some(0));
        assert_eq!(count.all, 102);
    }
}
