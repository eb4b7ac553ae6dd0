//! What is said to the name server: the whole state at first, then what differs.

use super::{Stamp, State};
use discovery::{Here, Knowledge, NetworkView, Sandbox};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::NetworkId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// To whoever has just connected.
    Whole(State),
    Change(Change),
}

/// What leads from one state to the next. The routing mesh has no names, so it is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    stamp: Stamp,
    networks: BTreeMap<NetworkId, NetworkView>,
    removed_networks: BTreeSet<NetworkId>,
    sandboxes: BTreeMap<String, Sandbox>,
    removed_sandboxes: BTreeSet<String>,
    /// Who this node is and what is withdrawn: all but the sandboxes.
    here: Here,
}

impl Change {
    pub(super) fn between(old: &State, new: &State) -> Self {
        let (networks, removed_networks) = difference(&old.known.networks, &new.known.networks);
        let (sandboxes, removed_sandboxes) = difference(&old.here.sandboxes, &new.here.sandboxes);
        let here = Here {
            node: new.here.node.clone(),
            address: new.here.address,
            data_path_port: new.here.data_path_port,
            sandboxes: BTreeMap::new(),
            withdrawn: new.here.withdrawn.clone(),
        };
        Self { stamp: new.stamp, networks, removed_networks, sandboxes, removed_sandboxes, here }
    }

    pub(super) fn apply(self, state: &mut State) {
        state.stamp = self.stamp;
        if !self.networks.is_empty() || !self.removed_networks.is_empty() {
            let networks = &mut Arc::make_mut(&mut state.known).networks;
            networks.retain(|id, _| !self.removed_networks.contains(id));
            networks.extend(self.networks);
        }
        let mut sandboxes = std::mem::replace(&mut state.here, self.here).sandboxes;
        sandboxes.retain(|id, _| !self.removed_sandboxes.contains(id));
        sandboxes.extend(self.sandboxes);
        state.here.sandboxes = sandboxes;
    }
}

/// What is new or other, and what has gone.
fn difference<K: Clone + Ord, V: Clone + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> (BTreeMap<K, V>, BTreeSet<K>) {
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let gone = old.keys().filter(|key| !new.contains_key(key));
    (changed.map(|(key, value)| (key.clone(), value.clone())).collect(), gone.cloned().collect())
}

/// What the name server is told of a state.
pub(super) fn told(state: &State) -> State {
    let networks = state.known.networks.clone();
    let known = Arc::new(Knowledge { networks, ..Knowledge::default() });
    State { known, ..state.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u64, names: &[&str], ports: &[(&str, u16)]) -> State {
        let mut known = Knowledge::default();
        for name in names {
            let view = NetworkView { name: (*name).to_owned(), vni: 1, ..NetworkView::default() };
            known.networks.insert(name[..1].into(), view);
        }
        let sandbox = |port| Sandbox {
            task: None,
            netns: String::new(),
            gateway_address: [172, 30, 0, 2].into(),
            attachments: Vec::new(),
            dns_port: port,
            host_ports: Vec::new(),
            nameservers: Vec::new(),
        };
        let here = Here {
            node: format!("n{number}").as_str().into(),
            address: [10, 0, 0, 1].into(),
            data_path_port: 4789,
            sandboxes: ports.iter().map(|(id, port)| ((*id).to_owned(), sandbox(*port))).collect(),
            withdrawn: BTreeSet::new(),
        };
        State { stamp: Stamp { author: 1, number }, known: Arc::new(known), here }
    }

    #[test]
    fn a_change_leads_from_any_state_to_any_other_and_says_what_differs() {
        let old = state(1, &["a", "b", "c"], &[("c1", 1), ("c2", 2), ("c3", 3)]);
        let new = state(2, &["a", "b2", "d"], &[("c1", 1), ("c2", 5), ("c4", 4)]);
        for (old, new) in [(&old, &new), (&new, &old), (&old, &old)] {
            let mut state = old.clone();
            Change::between(old, new).apply(&mut state);
            assert_eq!(state, *new);
        }
        let change = Change::between(&old, &new);
        assert_eq!(change.networks.keys().map(NetworkId::as_str).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(change.sandboxes.keys().collect::<Vec<_>>(), ["c2", "c4"]);
        let nothing = Change::between(&old, &State { stamp: new.stamp, ..old.clone() });
        assert!(nothing.networks.is_empty() && nothing.sandboxes.is_empty());
    }
}
