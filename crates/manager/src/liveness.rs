//! Which nodes are there.
//!
//! Pure. A node that was not heard of for three heartbeats is down; a lost connection alone says
//! nothing. Time is monotonic here (it starts anywhere).

use std::collections::BTreeMap;
use std::time::Duration;
use store::View;
use types::{NodeId, NodeState, Timestamp};

/// Heartbeats that may be missed.
const GRACE: u32 = 3;
/// After this time tasks of a node that is down are given up.
const ORPHANED_AFTER: Duration = Duration::from_hours(24);

/// When nodes were last heard of.
#[derive(Clone, Debug)]
pub struct Liveness {
    period: Duration,
    heard: BTreeMap<NodeId, Timestamp>,
    /// Nodes that are down, since when, as far as this manager knows.
    down: BTreeMap<NodeId, Timestamp>,
    checked: Timestamp,
}

/// What has changed of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Nodes that count as down from now on.
    pub down: Vec<NodeId>,
    /// Nodes whose tasks are given up.
    pub given_up: Vec<NodeId>,
}

impl Liveness {
    /// Starts to watch. Every node has its full time from now on.
    pub fn new(period: Duration, now: Timestamp) -> Self {
        Self { period, heard: BTreeMap::new(), down: BTreeMap::new(), checked: now }
    }

    /// The cluster's heartbeat period has changed.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// The time between two checks.
    pub fn interval(&self) -> Duration {
        (self.period / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// Notes a sign of life.
    pub fn hear(&mut self, node: &NodeId, now: Timestamp) {
        self.heard.insert(node.clone(), now);
    }

    /// Says which nodes are lost. To be asked every [`Self::interval`].
    pub fn check(&mut self, view: &View, now: Timestamp) -> Lost {
        let grace = self.period * GRACE;
        // Where this manager itself slept, its nodes are not to blame.
        let slept = now.since(self.checked);
        if slept > self.period {
            for heard in self.heard.values_mut() {
                *heard = heard.after(slept);
            }
        }
        self.checked = now;
        self.heard.retain(|id, _| view.node(id).is_some());
        self.down
            .retain(|id, _| view.node(id).is_some_and(|node| node.status.state == NodeState::Down));
        let mut lost = Lost::default();
        for node in view.nodes() {
            match node.status.state {
                NodeState::Ready | NodeState::Disconnected => {
                    let heard = *self.heard.entry(node.id.clone()).or_insert(now);
                    if now.since(heard) > grace {
                        lost.down.push(node.id.clone());
                    }
                }
                NodeState::Down => {
                    // When it comes back it has its full time.
                    self.heard.remove(&node.id);
                    let since = *self.down.entry(node.id.clone()).or_insert(now);
                    if now.since(since) > ORPHANED_AFTER {
                        lost.given_up.push(node.id.clone());
                    }
                }
                // It has joined and never opened a session.
                NodeState::Unknown => {}
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Node, NodeStatus, Version};

    const SECOND: i64 = 1_000_000_000;

    fn view(state: NodeState) -> View {
        let mut tx = Tx::new(&View::default());
        let status = NodeStatus { state, ..NodeStatus::default() };
        tx.put_node(Node { id: "n".into(), status, ..Node::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    /// Checks every second from `from` to `to`; says when the node was lost.
    fn lost_at(liveness: &mut Liveness, view: &View, (from, to): (i64, i64)) -> Option<i64> {
        (from..=to).find(|second| {
            let lost = liveness.check(view, Timestamp(second * SECOND));
            !lost.down.is_empty() || !lost.given_up.is_empty()
        })
    }

    #[test]
    fn a_node_is_down_after_three_missed_heartbeats_and_not_before() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(0));
        liveness.hear(&"n".into(), Timestamp(2 * SECOND));
        assert_eq!(lost_at(&mut liveness, &view(NodeState::Ready), (0, 60)), Some(18));
    }

    #[test]
    fn a_new_leader_gives_every_node_its_full_time() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(100 * SECOND));
        assert_eq!(lost_at(&mut liveness, &view(NodeState::Ready), (100, 160)), Some(116));
    }

    #[test]
    fn nobody_is_lost_because_the_manager_slept() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(0));
        let view = view(NodeState::Ready);
        liveness.hear(&"n".into(), Timestamp(0));
        assert_eq!(lost_at(&mut liveness, &view, (0, 4)), None);
        assert_eq!(lost_at(&mut liveness, &view, (100, 110)), None);
    }

    #[test]
    fn tasks_of_a_lost_node_are_given_up_after_a_day() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(0));
        let view = view(NodeState::Down);
        let day = 24 * 60 * 60;
        let at = (0..=day + 4)
            .step_by(4)
            .find(|second| !liveness.check(&view, Timestamp(second * SECOND)).given_up.is_empty());
        assert_eq!(at, Some(day + 4));
    }
}
