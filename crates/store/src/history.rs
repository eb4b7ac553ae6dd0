//! The events of the newest entries of the log, for those who follow it.
//!
//! They are part of a view, as what is stored is: they follow from the log alone, so that every manager
//! tells the same, in the same order and with the same times, whoever leads and whoever was away. A
//! snapshot has them, too.
//!
//! Invariant: after the moment that [`History::whole_after`] says, none is missing.

use crate::event::{self, Action, Attributes, Event};
use crate::{Key, View};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::sync::Arc;
use types::{Node, Timestamp, Version};

/// Events that are kept. A thousand nodes that are lost and come back are two thousand.
const KEPT: usize = 2048;

/// The newest events, by their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    events: OrdMap<Timestamp, Arc<Event>>,
    whole_after: Timestamp,
    /// Who wrote the last entry that says so, by its number; 0: none did.
    leader: u64,
}

impl History {
    /// That of a snapshot without one: nobody knows what there was.
    pub(crate) fn unknown_before(time: Timestamp) -> Self {
        Self { whole_after: time, ..Self::default() }
    }

    /// What came before this moment may have been forgotten. Nothing that came after it is.
    pub fn whole_after(&self) -> Timestamp {
        self.whole_after
    }

    /// The time of the newest event: whatever comes is later.
    pub fn newest(&self) -> Timestamp {
        self.events.get_max().map_or(self.whole_after, |(time, _)| *time)
    }

    /// The events that are kept and came after a moment, the oldest first.
    pub fn after(&self, moment: Timestamp) -> impl Iterator<Item = &Arc<Event>> {
        let later = (Bound::Excluded(moment), Bound::Unbounded);
        self.events.range(later).map(|(_, event)| event)
    }

    pub(crate) fn add(
        &mut self,
        key: Key,
        (action, attributes): (Action, Attributes),
        (version, now): (Version, Timestamp),
    ) {
        // Several changes of one entry have one time.
        let time = now.max(Timestamp(self.newest().0.saturating_add(1)));
        let event = Event { time, version, key, action, attributes };
        self.events.insert(time, Arc::new(event));
        self.forget();
    }

    fn forget(&mut self) {
        while self.events.len() > KEPT {
            let Some(oldest) = self.events.get_min().map(|(time, _)| *time) else { return };
            self.events.remove(&oldest);
            self.whole_after = oldest;
        }
    }
}

impl View {
    /// What has happened last.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Notes which manager led when this entry of the log was made: it is told where it is another one.
    /// 0: the entry does not say.
    pub fn led_by(&mut self, leader: u64, version: Version, now: Timestamp) {
        if leader == 0 || leader == self.history.leader {
            return;
        }
        let was = std::mem::replace(&mut self.history.leader, leader);
        for (number, leads) in [(was, false), (leader, true)] {
            let is_it = |node: &&Arc<Node>| {
                node.manager.as_ref().is_some_and(|manager| manager.raft_id == number)
            };
            let found = self.nodes().find(is_it).cloned();
            if let Some(node) = found {
                let told = (Action::Update, event::leads(&node, leads));
                self.history.add(Key::Node(node.id.clone()), told, (version, now));
            }
        }
    }
}

/// The history in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredHistory {
    pub whole_after: Timestamp,
    pub events: Vec<Arc<Event>>,
    pub leader: u64,
}

impl From<&History> for StoredHistory {
    fn from(history: &History) -> Self {
        let events = history.events.values().cloned().collect();
        Self { whole_after: history.whole_after, events, leader: history.leader }
    }
}

impl From<StoredHistory> for History {
    fn from(stored: StoredHistory) -> Self {
        let StoredHistory { whole_after, events, leader } = stored;
        let events = events.into_iter().map(|event| (event.time, event)).collect();
        let mut history = Self { events, whole_after, leader };
        // A later release may keep more of them.
        history.forget();
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Snapshot, Tx};
    use proptest::prelude::*;
    use types::{
        Availability, Cluster, ManagerStatus, Network, Node, NodeState, Secret, Service,
        ServiceMode, Task, UpdateState, UpdateStatus,
    };

    fn apply(view: &mut View, time: i64, change: impl FnOnce(&mut Tx)) {
        let mut tx = Tx::new(view);
        change(&mut tx);
        let next = Version(view.version().0 + 1);
        view.apply(&tx.finish(), next, Timestamp(time));
    }

    /// What came after a moment, as text.
    fn told(view: &View, after: i64) -> Vec<String> {
        let line = |event: &Arc<Event>| {
            let others = event.attributes.iter().map(|(name, value)| format!(" {name}={value}"));
            let (time, version) = (event.time.0, event.version.0);
            let (action, object) = (event.action.as_str(), event.key.name());
            format!("{time} v{version} {object} {action}{}", others.collect::<String>())
        };
        view.history().after(Timestamp(after)).map(line).collect()
    }

    fn service(replicas: u64) -> Service {
        let mut service = Service { id: "s".into(), ..Service::default() };
        service.spec.name = "web".to_owned();
        service.spec.mode = ServiceMode::Replicated { replicas };
        service
    }

    #[test]
    fn what_happens_to_what_users_have_is_told_with_dockers_attributes() {
        let mut view = View::default();
        apply(&mut view, 100, |tx| {
            tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
            let mut node = Node { id: "n".into(), ..Node::default() };
            node.description.hostname = "node-1".to_owned();
            tx.put_node(node);
            tx.put_service(service(1));
            tx.put_task(Task { id: "t".into(), ..Task::default() });
            tx.put(Secret { id: "k".into(), ..Secret::default() });
        });
        apply(&mut view, 90, |tx| {
            tx.edit_service(&"s".into(), |service| {
                service.spec.mode = ServiceMode::Replicated { replicas: 3 };
                service.spec.task.container.image = "web:2".to_owned();
                let begun = UpdateStatus::begun(UpdateState::Updating, Timestamp(9), "");
                service.update = Some(begun);
            });
            tx.edit_node(&"n".into(), |node| {
                node.spec.availability = Availability::Drain;
                node.status.state = NodeState::Ready;
            });
        });
        apply(&mut view, 200, |tx| {
            tx.edit_service(&"s".into(), |service| {
                service.update.as_mut().unwrap().state = UpdateState::RollbackStarted;
            });
        });
        apply(&mut view, 300, |tx| {
            tx.remove_service(&"s".into());
            tx.remove_task(&"t".into());
            tx.remove_node(&"n".into());
        });
        assert_eq!(
            told(&view, 0),
            [
                "100 v1 node n create name=node-1",
                "101 v1 service s create name=web",
                "102 v1 secret k create name=",
                "103 v2 node n update availability.new=drain availability.old=active name=node-1 \
                 state.new=ready state.old=unknown",
                "104 v2 service s update image.new=web:2 image.old= name=web replicas.new=3 \
                 replicas.old=1 updatestate.new=updating",
                "200 v3 service s update name=web updatestate.new=rollback_started \
                 updatestate.old=updating",
                "300 v4 node n remove name=node-1",
                "301 v4 service s remove name=web",
            ]
        );
        assert_eq!(told(&view, 200).len(), 2);
        assert_eq!(view.history().newest(), Timestamp(301));
    }

    #[test]
    fn a_network_is_removed_when_users_remove_it_and_addresses_are_no_news() {
        let mut view = View::default();
        apply(&mut view, 1, |tx| {
            tx.put_network(Network { id: "x".into(), ..Network::default() });
        });
        apply(&mut view, 2, |tx| tx.edit_network(&"x".into(), |network| network.vni = 4097));
        apply(&mut view, 3, |tx| tx.edit_network(&"x".into(), |network| network.last_vni = 9));
        apply(&mut view, 4, |tx| tx.edit_network(&"x".into(), |network| network.removed = true));
        apply(&mut view, 5, |tx| tx.edit_network(&"x".into(), |network| network.vni = 0));
        apply(&mut view, 6, |tx| tx.remove_network(&"x".into()));
        let told = told(&view, 0);
        assert_eq!(told.len(), 3, "{told:?}");
        for (line, action) in told.iter().zip(["create", "update", "remove"]) {
            assert!(line.contains(action), "{told:?}");
        }
    }

    #[test]
    fn it_is_told_once_when_another_manager_leads() {
        let mut view = View::default();
        apply(&mut view, 1, |tx| {
            for raft_id in [1, 2] {
                let id = format!("n{raft_id}");
                let manager = Some(ManagerStatus { raft_id, ..ManagerStatus::default() });
                tx.put_node(Node { id: id.as_str().into(), manager, ..Node::default() });
            }
        });
        for leader in [1, 1, 2, 2] {
            view.led_by(leader, Version(7), Timestamp(10));
            view = View::try_from(Snapshot::from(&view)).unwrap();
        }
        assert_eq!(
            told(&view, 9),
            [
                "10 v7 node n1 update leader.new=true leader.old=false name=",
                "11 v7 node n1 update leader.new=false leader.old=true name=",
                "12 v7 node n2 update leader.new=true leader.old=false name=",
            ]
        );
    }

    #[test]
    fn a_limited_number_is_kept_and_it_is_known_from_when_on_none_is_missing() {
        let mut view = View::default();
        for count in 0..=KEPT as u64 {
            apply(&mut view, 0, |tx| tx.put_service(service(count)));
        }
        let history = view.history();
        assert_eq!(history.after(Timestamp(0)).count(), KEPT);
        assert_eq!(
            (history.whole_after(), history.newest().0),
            (Timestamp(1), 1 + i64::try_from(KEPT).unwrap())
        );
    }

    #[test]
    fn a_snapshot_without_a_history_says_that_nobody_knows_what_came_before() {
        let mut view = View::default();
        apply(&mut view, 100, |tx| tx.put_service(service(1)));
        let mut former = Snapshot::from(&view);
        former.history = None;
        let mut read = View::try_from(former).unwrap();
        assert_eq!(read.history().whole_after(), Timestamp(100));
        assert_eq!(read.history().newest(), Timestamp(100));
        apply(&mut read, 100, |tx| tx.put_service(service(2)));
        assert_eq!(
            told(&read, 100),
            ["101 v2 service s update name=web replicas.new=2 replicas.old=1"]
        );
    }

    proptest! {
        /// Whoever follows gets the same, wherever it goes on from a snapshot.
        #[test]
        fn every_manager_tells_the_same(
            writes in prop::collection::vec((0..4u8, 0..3u64, 0..5i64), 0..60),
            restarts in prop::collection::btree_set(0..60usize, 0..5),
        ) {
            let (mut one, mut other) = (View::default(), View::default());
            let (mut told, mut position) = (Vec::new(), Timestamp(0));
            for (at, (id, replicas, time)) in writes.into_iter().enumerate() {
                let mut tx = Tx::new(&one);
                let id = format!("s{id}");
                if replicas == 0 {
                    tx.remove_service(&id.as_str().into());
                } else {
                    tx.put_service(Service { id: id.as_str().into(), ..service(replicas) });
                }
                let (changes, next) = (tx.finish(), Version(one.version().0 + 1));
                one.apply(&changes, next, Timestamp(time));
                other.apply(&changes, next, Timestamp(time));
                if restarts.contains(&at) {
                    other = View::try_from(Snapshot::from(&other)).unwrap();
                }
                prop_assert_eq!(one.history(), other.history());
                let more: Vec<_> = other.history().after(position).cloned().collect();
                prop_assert_eq!(more.len(), changes.changes.len());
                position = other.history().newest();
                told.extend(more);
            }
            prop_assert_eq!(told, one.history().after(Timestamp(0)).cloned().collect::<Vec<_>>());
        }
    }
}
