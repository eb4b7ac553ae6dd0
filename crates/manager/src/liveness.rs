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
    /// Of nodes that are down: only what was heard since.
    heard: BTreeMap<NodeId, Heard>,
    /// Nodes that are down, since when, as far as this manager knows.
    down: BTreeMap<NodeId, Timestamp>,
    checked: Timestamp,
}

/// A sign of life, and how long it holds: what the node was told then is what it keeps to, though
/// the cluster's period may have become shorter since.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Timestamp,
    grace: Duration,
}

impl Heard {
    fn holds(self, now: Timestamp) -> bool {
        now.since(self.at) <= self.grace
    }
}

/// What has changed of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Nodes that count as down from now on.
    pub down: Vec<NodeId>,
    /// Nodes that were down and have been heard of since.
    pub back: Vec<NodeId>,
    /// Nodes whose tasks are given up.
    pub given_up: Vec<NodeId>,
}

impl Liveness {
    /// Starts to watch. Every node has its full time from now on.
    pub fn new(period: Duration, now: Timestamp) -> Self {
        Self { period, heard: BTreeMap::new(), down: BTreeMap::new(), checked: now }
    }

    /// The cluster's heartbeat period has changed. It holds for what is heard from now on.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// The cluster's heartbeat period.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The time between two checks.
    pub fn interval(&self) -> Duration {
        (self.period / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// Notes a sign of life.
    pub fn hear(&mut self, node: &NodeId, now: Timestamp) {
        self.heard.insert(node.clone(), self.heard_at(now));
    }

    fn heard_at(&self, at: Timestamp) -> Heard {
        Heard { at, grace: self.period * GRACE }
    }

    /// Says which nodes are lost. To be asked every [`Self::interval`].
    pub fn check(&mut self, view: &View, now: Timestamp) -> Lost {
        // Where this manager itself slept, its nodes are not to blame.
        let slept = now.since(self.checked);
        if slept > self.period.max(self.interval() * 3) {
            for heard in self.heard.values_mut() {
                heard.at = heard.at.after(slept);
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
                    let fresh = self.heard_at(now);
                    if !self.heard.entry(node.id.clone()).or_insert(fresh).holds(now) {
                        lost.down.push(node.id.clone());
                    }
                }
                NodeState::Down => self.check_down(&node.id, now, &mut lost),
                // It has joined and never opened a session.
                NodeState::Unknown => {}
            }
        }
        lost
    }

    fn check_down(&mut self, node: &NodeId, now: Timestamp, lost: &mut Lost) {
        let Some(since) = self.down.get(node) else {
            self.down.insert(node.clone(), now);
            // What was heard before says nothing any more.
            self.heard.remove(node);
            return;
        };
        if now.since(*since) > ORPHANED_AFTER {
            lost.given_up.push(node.clone());
        }
        if self.heard.get(node).is_some_and(|heard| heard.holds(now)) {
            lost.back.push(node.clone());
        }
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

    #[test]
    fn a_node_that_is_down_is_back_only_when_it_is_heard_of_again() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(0));
        let (id, down) = (NodeId::from("n"), view(NodeState::Down));
        let mut back = |second: i64, hears: bool| {
            if hears {
                liveness.hear(&id, Timestamp(second * SECOND));
            }
            liveness.check(&down, Timestamp(second * SECOND)).back
        };
        assert_eq!(back(0, true), []);
        assert_eq!(back(1, false), []);
        assert_eq!(back(2, true), [NodeId::from("n")]);
        // Nobody wrote it down, and it is silent again.
        for second in 3..=17 {
            back(second, false);
        }
        assert_eq!(back(18, false), []);
    }

    #[test]
    fn a_shorter_period_holds_from_the_next_heartbeat_on() {
        let mut liveness = Liveness::new(Duration::from_secs(5), Timestamp(0));
        let view = view(NodeState::Ready);
        let step = SECOND / 8;
        let mut lost_after = |from: i64| {
            liveness.hear(&"n".into(), Timestamp(from * step));
            liveness.set_period(Duration::from_millis(500));
            let is_lost = |now: &i64| !liveness.check(&view, Timestamp(now * step)).down.is_empty();
            (from..from + 200).find(is_lost).map(|now| now - from)
        };
        assert_eq!(lost_after(0), Some(15 * 8 + 1), "it was promised 5 s");
        assert_eq!(lost_after(15 * 8 + 1), Some(12 + 1), "it was promised 500 ms");
    }
}
