//! What is said to the name server: the whole state at first, then what differs.

use super::{Stamp, State};
use discovery::{Difference, Here, Knowledge, KnowledgeDifference, OrdMap, Sandbox};
use serde::{Deserialize, Serialize};

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
    known: KnowledgeDifference,
    sandboxes: Difference<String, Sandbox>,
    /// Who this node is and what is withdrawn: all but the sandboxes.
    here: Here,
}

impl Change {
    pub(super) fn between(old: &State, new: &State) -> Self {
        let (before, after) = (&old.known.networks, &new.known.networks);
        let known = KnowledgeDifference::between_networks(before, after);
        let here = Here {
            node: new.here.node.clone(),
            address: new.here.address,
            data_path_port: new.here.data_path_port,
            sandboxes: OrdMap::new(),
            hidden: new.here.hidden.clone(),
        };
        Self {
            stamp: new.stamp,
            known,
            sandboxes: Difference::between(&old.here.sandboxes, &new.here.sandboxes),
            here,
        }
    }

    pub(super) fn apply(self, state: &mut State) {
        state.stamp = self.stamp;
        self.known.apply(&mut state.known);
        let mut sandboxes = std::mem::replace(&mut state.here, self.here).sandboxes;
        self.sandboxes.apply(&mut sandboxes);
        state.here.sandboxes = sandboxes;
    }
}

/// What the name server is told of a state.
pub(super) fn told(state: &State) -> State {
    let networks = state.known.networks.clone();
    let known = Knowledge { networks, ..Knowledge::default() };
    State { known, ..state.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::{Endpoint, NetworkView, OrdSet, ServiceView};
    use std::collections::BTreeSet;
    use types::{NetworkId, ServiceId, TaskId};

    fn state(number: u64, names: &[&str], ports: &[(&str, u16)]) -> State {
        let mut known = Knowledge::default();
        for name in names {
            let view = NetworkView { name: (*name).to_owned(), vni: 1, ..NetworkView::default() };
            known.networks.insert(name[..1].into(), view);
        }
        let sandbox = |port| Sandbox {
            task: None,
            netns: String::new(),
            gateway_addresses: [172, 30, 0, 2].into(),
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
            hidden: OrdSet::new(),
        };
        State { stamp: Stamp { author: 1, number }, known, here }
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
        assert_eq!(
            change.known.networks.keys().map(NetworkId::as_str).collect::<Vec<_>>(),
            ["b", "d"]
        );
        assert_eq!(change.sandboxes.changed.keys().collect::<Vec<_>>(), ["c2", "c4"]);
        let nothing = Change::between(&old, &State { stamp: new.stamp, ..old.clone() });
        assert!(nothing.known.is_empty() && nothing.sandboxes.changed.is_empty());
    }

    /// The services of `view`, and on each an endpoint; all serve but `out`.
    fn serving(state: &State, count: u32, out: u32) -> State {
        let mut state = state.clone();
        let networks = &mut state.known.networks;
        let view = networks.entry("a".into()).or_default();
        for number in 0..count {
            let service: ServiceId = format!("s{number}").as_str().into();
            let endpoint = Endpoint {
                addresses: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
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
        assert_eq!(change.known.networks.len(), 1);
        let network = &change.known.networks[&"a".into()];
        let tasks = network.endpoints.changed.keys().map(TaskId::as_str);
        assert_eq!(tasks.collect::<Vec<_>>(), ["t7", "t8"]);
        assert!(network.services.changed.is_empty());
        let written = msgpack::encode(&Order::Change(change)).unwrap().len();
        assert!(written < 1000, "{written} bytes");
    }
}
