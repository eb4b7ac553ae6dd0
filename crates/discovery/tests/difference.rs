//! A difference leads from any knowledge to any other, and names what differs and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use discovery::{
    Endpoint, Knowledge, KnowledgeDifference, Mesh, MeshNode, MeshPort, MeshTask, NetworkView,
    ServiceView,
};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, Protocol, ServiceId, Subnet, TaskId};

fn endpoint(seed: u8) -> Endpoint {
    Endpoint {
        addresses: [10, 0, 1, seed].into(),
        node: "n1".into(),
        vtep: [192, 168, 0, 1].into(),
        service: "s1".into(),
        name: "web.1".into(),
        aliases: BTreeSet::new(),
        serving: seed.is_multiple_of(2),
    }
}

fn service(seed: u8) -> ServiceView {
    let vips = [10, 0, 1, seed].into();
    ServiceView { name: format!("s{seed}"), vips, ..ServiceView::default() }
}

fn network() -> impl Strategy<Value = NetworkView> {
    let endpoints = btree_map(0..8_u8, 0..4_u8, 0..8);
    let services = btree_map(0..3_u8, 0..4_u8, 0..3);
    (0..3_u8, endpoints, services).prop_map(|(seed, endpoints, services)| NetworkView {
        name: format!("net{seed}"),
        vni: seed.into(),
        subnets: ["10.0.1.0/24", "fd00:1::/64"][..seed.into()]
            .iter()
            .filter_map(|net| Subnet::new(net.parse().unwrap()))
            .collect(),
        internal: seed == 2,
        mtu: seed.into(),
        endpoints: endpoints.into_iter().map(|(id, it)| (task(id), endpoint(it))).collect(),
        services: services
            .into_iter()
            .map(|(id, it)| (ServiceId::from(format!("s{id}")), service(it)))
            .collect(),
    })
}

fn task(number: u8) -> TaskId {
    format!("t{number}").into()
}

fn mesh() -> impl Strategy<Value = Mesh> {
    let nodes = btree_map(0..3_u8, 0..3_u8, 0..3);
    let tasks = btree_map(0..8_u8, 0..3_u8, 0..8);
    let ports = btree_map(0..3_u16, (0..3_u16, btree_set(0..8_u8, 0..8)), 0..3);
    (0..3_u8, nodes, tasks, ports).prop_map(|(seed, nodes, tasks, ports)| Mesh {
        mtu: seed.into(),
        prefix: seed,
        prefix_v6: seed,
        nodes: nodes
            .into_iter()
            .map(|(id, it)| {
                let (address, ingress) = ([192, 168, 0, it].into(), [10, 255, 0, it].into());
                (NodeId::from(format!("n{id}")), MeshNode { address, ingress })
            })
            .collect(),
        tasks: tasks
            .into_iter()
            .map(|(id, it)| {
                let ingress = [10, 255, 1, it].into();
                (task(id), MeshTask { node: "n1".into(), ingress, serving: it == 0 })
            })
            .collect(),
        ports: ports
            .into_iter()
            .map(|(id, (target, tasks))| {
                let tasks = tasks.into_iter().map(task).collect();
                ((Protocol::Tcp, id), MeshPort { service: "s1".into(), target, tasks })
            })
            .collect(),
    })
}

fn knowledge() -> impl Strategy<Value = Knowledge> {
    (btree_map(0..4_u8, network(), 0..4), mesh()).prop_map(|(networks, mesh)| Knowledge {
        networks: networks.into_iter().map(|(id, it)| (format!("net{id}").into(), it)).collect(),
        mesh,
    })
}

/// How many keys two maps differ in, by the plain definition.
fn differing<K: Clone + Ord, V: Clone + PartialEq>(
    old: impl IntoIterator<Item = (K, V)>,
    new: impl IntoIterator<Item = (K, V)>,
) -> usize {
    let old: BTreeMap<K, V> = old.into_iter().collect();
    let new: BTreeMap<K, V> = new.into_iter().collect();
    let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(key) != new.get(key)).count()
}

proptest! {
    #[test]
    fn a_difference_leads_from_any_knowledge_to_any_other(old in knowledge(), new in knowledge()) {
        let mut known = old.clone();
        KnowledgeDifference::between(&old, &new).apply(&mut known);
        prop_assert_eq!(known, new);
    }

    #[test]
    fn between_equal_ones_there_is_nothing(known in knowledge()) {
        let difference = KnowledgeDifference::between(&known, &known.clone());
        prop_assert!(difference.is_empty());
        prop_assert_eq!(difference, KnowledgeDifference::default());
    }

    #[test]
    fn whatever_differs_is_named_and_nothing_else(old in knowledge(), new in knowledge()) {
        let difference = KnowledgeDifference::between(&old, &new);
        prop_assert_eq!(difference.is_empty(), old == new);
        let networks = difference.networks.len() + difference.removed_networks.len();
        prop_assert_eq!(networks, differing(old.networks.clone(), new.networks.clone()));
        let nothing = NetworkView::default();
        for (id, said) in &difference.networks {
            let (old, new) = (old.networks.get(id).unwrap_or(&nothing), &new.networks[id]);
            let endpoints = said.endpoints.changed.len() + said.endpoints.gone.len();
            prop_assert_eq!(endpoints, differing(old.endpoints.clone(), new.endpoints.clone()));
            let services = said.services.changed.len() + said.services.gone.len();
            prop_assert_eq!(services, differing(old.services.clone(), new.services.clone()));
        }
        let (said, old, new) = (&difference.mesh, &old.mesh, &new.mesh);
        prop_assert_eq!(said.nodes.changed.len() + said.nodes.gone.len(), differing(old.nodes.clone(), new.nodes.clone()));
        prop_assert_eq!(said.tasks.changed.len() + said.tasks.gone.len(), differing(old.tasks.clone(), new.tasks.clone()));
        prop_assert_eq!(said.ports.len() + said.removed_ports.len(), differing(old.ports.clone(), new.ports.clone()));
        for (key, port) in &said.ports {
            let before = old.ports.get(key).map(|port| port.tasks.clone()).unwrap_or_default();
            let both = before.symmetric_difference(new.ports[key].tasks.clone());
            prop_assert_eq!(port.tasks.added.len() + port.tasks.gone.len(), both.len());
        }
    }
}
