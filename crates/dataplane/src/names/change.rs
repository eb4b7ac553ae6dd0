//! What is said to the name server: the whole state at first, then what differs.

use super::{Stamp, State};
use discovery::{Endpoint, Here, Knowledge, NetworkView, Sandbox, ServiceView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{NetworkId, ServiceId, TaskId};

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
    networks: BTreeMap<NetworkId, NetworkChange>,
    removed_networks: BTreeSet<NetworkId>,
    sandboxes: Difference<String, Sandbox>,
    /// Who this node is and what is withdrawn: all but the sandboxes.
    here: Here,
}

/// A network is large, and what changes is one endpoint at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NetworkChange {
    /// All but these two.
    view: NetworkView,
    endpoints: Difference<TaskId, Endpoint>,
    services: Difference<ServiceId, ServiceView>,
}

/// What is new or other, and what has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "K: Serialize + DeserializeOwned + Ord, V: Serialize + DeserializeOwned")]
struct Difference<K, V> {
    changed: BTreeMap<K, V>,
    gone: BTreeSet<K>,
}

impl Change {
    pub(super) fn between(old: &State, new: &State) -> Self {
        let none = NetworkView::default();
        let (old_networks, new_networks) = (&old.known.networks, &new.known.networks);
        let networks = new_networks.iter().filter(|(id, view)| old_networks.get(*id) != Some(view));
        let networks = networks.map(|(id, view)| {
            let old = old_networks.get(id).unwrap_or(&none);
            (id.clone(), NetworkChange::between(old, view))
        });
        let removed = old_networks.keys().filter(|id| !new_networks.contains_key(*id));
        let here = Here {
            node: new.here.node.clone(),
            address: new.here.address,
            data_path_port: new.here.data_path_port,
            sandboxes: BTreeMap::new(),
            withdrawn: new.here.withdrawn.clone(),
        };
        Self {
            stamp: new.stamp,
            networks: networks.collect(),
            removed_networks: removed.cloned().collect(),
            sandboxes: Difference::between(&old.here.sandboxes, &new.here.sandboxes),
            here,
        }
    }

    pub(super) fn apply(self, state: &mut State) {
        state.stamp = self.stamp;
        if !self.networks.is_empty() || !self.removed_networks.is_empty() {
            let networks = &mut Arc::make_mut(&mut state.known).networks;
            networks.retain(|id, _| !self.removed_networks.contains(id));
            for (id, change) in self.networks {
                change.apply(networks.entry(id).or_default());
            }
        }
        let mut sandboxes = std::mem::replace(&mut state.here, self.here).sandboxes;
        self.sandboxes.apply(&mut sandboxes);
        state.here.sandboxes = sandboxes;
    }
}

impl NetworkChange {
    fn between(old: &NetworkView, new: &NetworkView) -> Self {
        let view = NetworkView {
            name: new.name.clone(),
            vni: new.vni,
            subnet: new.subnet,
            internal: new.internal,
            mtu: new.mtu,
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        Self {
            view,
            endpoints: Difference::between(&old.endpoints, &new.endpoints),
            services: Difference::between(&old.services, &new.services),
        }
    }

    fn apply(self, network: &mut NetworkView) {
        let NetworkView { mut endpoints, mut services, .. } = std::mem::take(network);
        self.endpoints.apply(&mut endpoints);
        self.services.apply(&mut services);
        *network = NetworkView { endpoints, services, ..self.view };
    }
}

impl<K: Clone + Ord, V: Clone + PartialEq> Difference<K, V> {
    fn between(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
        let gone = old.keys().filter(|key| !new.contains_key(key));
        Self {
            changed: changed.map(|(key, value)| (key.clone(), value.clone())).collect(),
            gone: gone.cloned().collect(),
        }
    }

    fn apply(self, map: &mut BTreeMap<K, V>) {
        map.retain(|key, _| !self.gone.contains(key));
        map.extend(self.changed);
    }
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
        assert_eq!(change.sandboxes.changed.keys().collect::<Vec<_>>(), ["c2", "c4"]);
        let nothing = Change::between(&old, &State { stamp: new.stamp, ..old.clone() });
        assert!(nothing.networks.is_empty() && nothing.sandboxes.changed.is_empty());
    }

    /// The services of `view`, and on each an endpoint; all serve but `out`.
    fn serving(state: &State, count: u32, out: u32) -> State {
        let mut state = state.clone();
        let networks = &mut Arc::make_mut(&mut state.known).networks;
        let view = networks.entry("a".into()).or_default();
        for number in 0..count {
            let service: ServiceId = format!("s{number}").as_str().into();
            let endpoint = Endpoint {
                address: (0x0a00_0000 + number).into(),
                node: "n1".into(),
                vtep: [192, 168, 0, 1].into(),
                service: service.clone(),
                name: format!("web.{number}"),
                aliases: BTreeSet::new(),
                serving: number != out,
            };
            view.endpoints.insert(format!("t{number}").as_str().into(), endpoint);
            view.services.insert(service, ServiceView::default());
        }
        state
    }

    #[test]
    fn one_endpoint_of_a_thousand_is_said_alone() {
        let empty = state(1, &["a", "b"], &[("c1", 1)]);
        let (old, new) = (serving(&empty, 1000, 7), serving(&empty, 1000, 8));
        let less = serving(&empty, 3, 7);
        for (old, new) in [(&old, &new), (&new, &less), (&less, &new), (&empty, &new)] {
            let mut state = old.clone();
            Change::between(old, new).apply(&mut state);
            assert_eq!(state, *new);
        }
        let change = Change::between(&old, &new);
        assert_eq!(change.networks.len(), 1);
        let network = &change.networks[&"a".into()];
        let tasks = network.endpoints.changed.keys().map(TaskId::as_str);
        assert_eq!(tasks.collect::<Vec<_>>(), ["t7", "t8"]);
        assert!(network.services.changed.is_empty());
        let written = rmp_serde::to_vec_named(&Order::Change(change)).unwrap().len();
        assert!(written < 1000, "{written} bytes");
    }
}
