//! Which nodes are there.
//!
//! Pure. A node that was not heard of for three heartbeats is down; a lost connection alone says
//! nothing. Silence is measured by [`Uptime`]; since when a node is down is stored, in the
//! cluster's time.

use crate::clock::Uptime;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::View;
use types::{Node, NodeId, NodeState, Timestamp};

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
    /// Nodes that were down at the last check.
    down: BTreeSet<NodeId>,
    /// When the last check was, by either clock.
    checked: (Uptime, Timestamp),
    /// Before, this manager has not been there for long enough for its nodes to come
    /// back to it.
    fair_from: Uptime,
}

/// A sign of life, and how long it holds: what the node was told then is what it keeps to, though
/// the cluster's period may have become shorter since.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Uptime,
    grace: Duration,
}

impl Heard {
    fn holds(self, now: Uptime) -> bool {
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
    pub fn new(period: Duration, uptime: Uptime, now: Timestamp) -> Self {
        Self {
            period,
            heard: BTreeMap::new(),
            down: BTreeSet::new(),
            checked: (uptime, now),
            fair_from: uptime.after(period * GRACE),
        }
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
    pub fn hear(&mut self, node: &NodeId, uptime: Uptime) {
        self.heard.insert(node.clone(), self.heard_at(uptime));
    }

    fn heard_at(&self, at: Uptime) -> Heard {
        Heard { at, grace: self.period * GRACE }
    }

    /// Says which nodes are lost. To be asked every [`Self::interval`].
    pub fn check(&mut self, view: &View, uptime: Uptime, now: Timestamp) -> Lost {
        self.wake(uptime, now);
        self.heard.retain(|id, _| view.node(id).is_some());
        self.down
            .retain(|id| view.node(id).is_some_and(|node| node.status.state == NodeState::Down));
        let mut lost = Lost::default();
        for node in view.nodes() {
            match node.status.state {
                NodeState::Ready | NodeState::Disconnected => {
                    let fresh = self.heard_at(uptime);
                    if !self.heard.entry(node.id.clone()).or_insert(fresh).holds(uptime) {
                        lost.down.push(node.id.clone());
                    }
                }
                NodeState::Down => self.check_down(node, (uptime, now), &mut lost),
                // It has joined and never opened a session.
                NodeState::Unknown => {}
            }
        }
        lost
    }

    /// Where this manager itself slept, its nodes are not to blame.
    fn wake(&mut self, uptime: Uptime, now: Timestamp) {
        let awake = self.period.max(self.interval() * 3);
        let (slept, leapt) = (uptime.since(self.checked.0), now.since(self.checked.1));
        if slept > awake {
            for heard in self.heard.values_mut() {
                heard.at = heard.at.after(slept);
            }
        }
        // The steady clock stands still while a machine is suspended.
        if slept.max(leapt) > awake {
            self.fair_from = uptime.after(self.period * GRACE);
        }
        self.checked = (uptime, now);
    }

    fn check_down(&mut self, node: &Node, (uptime, now): (Uptime, Timestamp), lost: &mut Lost) {
        if self.down.insert(node.id.clone()) {
            // What was heard before says nothing any more.
            self.heard.remove(&node.id);
            return;
        }
        let is_lost = now.since(down_since(node)) > ORPHANED_AFTER;
        if is_lost && self.fair_from < uptime {
            lost.given_up.push(node.id.clone());
        }
        if self.heard.get(&node.id).is_some_and(|heard| heard.holds(uptime)) {
            lost.back.push(node.id.clone());
        }
    }
}

fn down_since(node: &Node) -> Timestamp {
    match node.status.since {
        Timestamp(0) => node.meta.updated_at,
        since => since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{NodeStatus, Version};

    const SECOND: i64 = 1_000_000_000;

    fn view(state: NodeState) -> View {
        let mut tx = Tx::new(&View::default());
        let status = NodeStatus { state, since: Timestamp(1), ..NodeStatus::default() };
        tx.put_node(Node { id: "n".into(), status, ..Node::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    fn up(second: i64) -> Uptime {
        Uptime(Duration::from_secs(second.unsigned_abs()))
    }

    /// Checks while both clocks show the same.
    fn check(liveness: &mut Liveness, view: &View, second: i64) -> Lost {
        liveness.check(view, up(second), Timestamp(second * SECOND))
    }

    fn watching(from: i64) -> Liveness {
        Liveness::new(Duration::from_secs(5), up(from), Timestamp(from * SECOND))
    }

    /// Checks every second from `from` to `to`; says when the node was lost.
    fn lost_at(liveness: &mut Liveness, view: &View, (from, to): (i64, i64)) -> Option<i64> {
        (from..=to).find(|second| {
            let lost = check(liveness, view, *second);
            !lost.down.is_empty() || !lost.given_up.is_empty()
        })
    }

    #[test]
    fn a_node_is_down_after_three_missed_heartbeats_and_not_before() {
        let mut liveness = watching(0);
        liveness.hear(&"n".into(), up(2));
        assert_eq!(lost_at(&mut liveness, &view(NodeState::Ready), (0, 60)), Some(18));
    }

    #[test]
    fn a_new_leader_gives_every_node_its_full_time() {
        let mut liveness = watching(100);
        assert_eq!(lost_at(&mut liveness, &view(NodeState::Ready), (100, 160)), Some(116));
    }

    #[test]
    fn nobody_is_lost_because_the_manager_slept() {
        let mut liveness = watching(0);
        let view = view(NodeState::Ready);
        liveness.hear(&"n".into(), up(0));
        assert_eq!(lost_at(&mut liveness, &view, (0, 4)), None);
        assert_eq!(lost_at(&mut liveness, &view, (100, 110)), None);
    }

    #[test]
    fn tasks_of_a_lost_node_are_given_up_after_a_day() {
        let mut liveness = watching(0);
        let view = view(NodeState::Down);
        let day = 24 * 60 * 60;
        let at = (0..=day + 4)
            .step_by(4)
            .find(|second| !check(&mut liveness, &view, *second).given_up.is_empty());
        assert_eq!(at, Some(day + 4));
    }

    /// A manager that starts counts on from what is stored, once nodes had the time to come back.
    #[test]
    fn a_restart_of_the_manager_does_not_begin_the_day_anew() {
        let view = view(NodeState::Down);
        let hour = 60 * 60;
        let given_up = |began: i64| {
            let mut liveness =
                Liveness::new(Duration::from_secs(5), up(0), Timestamp(began * SECOND));
            (0..24 * hour).find(|second| {
                let now = Timestamp((began + second) * SECOND);
                !liveness.check(&view, up(*second), now).given_up.is_empty()
            })
        };
        assert_eq!(given_up(23 * hour), Some(hour + 1));
        assert_eq!(given_up(48 * hour), Some(16), "three heartbeats to come back");
    }

    #[test]
    fn a_suspended_manager_gives_nodes_the_time_to_come_back() {
        let (mut liveness, view) = (watching(0), view(NodeState::Down));
        let steps = |second: i64| if second < 60 { 0 } else { 48 * 60 * 60 };
        let at = (0..120).find(|second| {
            let now = Timestamp((second + steps(*second)) * SECOND);
            !liveness.check(&view, up(*second), now).given_up.is_empty()
        });
        assert_eq!(at, Some(76));
    }

    #[test]
    fn a_node_that_is_down_is_back_only_when_it_is_heard_of_again() {
        let mut liveness = watching(0);
        let (id, down) = (NodeId::from("n"), view(NodeState::Down));
        let mut back = |second: i64, hears: bool| {
            if hears {
                liveness.hear(&id, up(second));
            }
            check(&mut liveness, &down, second).back
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
        let mut liveness = watching(0);
        let view = view(NodeState::Ready);
        let step = Duration::from_secs(1) / 8;
        let mut lost_after = |from: u32| {
            liveness.hear(&"n".into(), Uptime(step * from));
            liveness.set_period(Duration::from_millis(500));
            let is_lost = |now: &u32| {
                let (up, now) = (Uptime(step * *now), Timestamp(0).after(step * *now));
                !liveness.check(&view, up, now).down.is_empty()
            };
            (from..from + 200).find(is_lost).map(|now| now - from)
        };
        assert_eq!(lost_after(0), Some(15 * 8 + 1), "it was promised 5 s");
        assert_eq!(lost_after(15 * 8 + 1), Some(12 + 1), "it was promised 500 ms");
    }
}
