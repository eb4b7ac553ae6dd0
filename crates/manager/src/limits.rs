//! How often, and how much at a time, somebody may ask for what costs.

use crate::clock::Uptime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::{Fault, NodeId};

/// Writes of one node that wait for the log at a time. An honest one has one, and another while it
/// opens a new session.
const WRITES: u32 = 2;
/// Callers that are remembered; the one that began first is forgotten for a new one.
const CALLERS: usize = 4096;

/// Counts what each caller asks for within a time.
#[derive(Debug)]
pub(crate) struct Callers<K>(Mutex<BTreeMap<K, Attempts>>);

#[derive(Clone, Copy, Debug)]
struct Attempts {
    since: Uptime,
    count: u32,
}

impl<K> Default for Callers<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Callers<K> {
    /// Says whether one more is fine: `max` within `window`.
    pub(crate) fn admit(&self, caller: &K, max: u32, window: Duration) -> bool {
        self.admit_at(caller, (max, window), Uptime::now())
    }

    fn admit_at(&self, caller: &K, (max, window): (u32, Duration), now: Uptime) -> bool {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS && !callers.contains_key(caller) {
            callers.retain(|_, attempts| now.since(attempts.since) <= window);
            let first = callers.iter().min_by_key(|(_, attempts)| attempts.since);
            if let Some(first) = first.map(|(caller, _)| caller.clone())
                && callers.len() >= CALLERS
            {
                callers.remove(&first);
            }
        }
        let fresh = Attempts { since: now, count: 0 };
        let attempts = callers.entry(caller.clone()).or_insert(fresh);
        if now.since(attempts.since) > window {
            *attempts = fresh;
        }
        attempts.count = attempts.count.saturating_add(1);
        attempts.count <= max
    }
}

/// Nodes whose writes are under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeMap<NodeId, u32>>>);

/// A write of a node; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Write {
    busy: Busy,
    node: NodeId,
}

impl Busy {
    /// Begins a write, so that no node fills the queue of the log.
    pub(crate) fn enter(&self, node: &NodeId) -> Result<Write, Fault> {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = busy.entry(node.clone()).or_default();
        if *writes >= WRITES {
            let fault = format!("node {node} has {WRITES} writes under way: one after the other");
            return Err(Fault::unavailable(fault));
        }
        *writes += 1;
        Ok(Write { busy: self.clone(), node: node.clone() })
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let mut busy = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writes) = busy.get_mut(&self.node) {
            *writes -= 1;
            if *writes == 0 {
                busy.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_admitted_so_often_within_a_time() {
        let (callers, limit) = (Callers::default(), (2, Duration::from_mins(1)));
        let admit = |caller: u32, second: u64| {
            callers.admit_at(&caller, limit, Uptime(Duration::from_secs(second)))
        };
        assert_eq!([admit(1, 0), admit(1, 1), admit(1, 2)], [true, true, false]);
        assert!(admit(2, 2), "another one is not to blame");
        assert!(admit(1, 61));
    }

    #[test]
    fn many_callers_keep_no_new_one_out() {
        let (callers, limit) = (Callers::default(), (1, Duration::from_mins(1)));
        for caller in 0..10_000_u64 {
            assert!(callers.admit_at(&caller, limit, Uptime(Duration::from_nanos(caller))));
        }
        assert_eq!(callers.0.lock().unwrap().len(), CALLERS);
        assert!(!callers.admit_at(&9_999, limit, Uptime(Duration::from_micros(10))));
    }

    #[test]
    fn a_node_writes_one_after_the_other() {
        let (busy, node) = (Busy::default(), NodeId::from("n"));
        let writes = [busy.enter(&node).unwrap(), busy.enter(&node).unwrap()];
        assert!(busy.enter(&node).is_err());
        assert!(busy.enter(&"other".into()).is_ok());
        drop(writes);
        assert!(busy.enter(&node).is_ok());
        assert!(busy.0.lock().unwrap().is_empty());
    }
}
