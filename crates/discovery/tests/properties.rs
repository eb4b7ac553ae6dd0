//! What holds for any knowledge: balancers and names agree, nothing that does not serve is offered.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use discovery::{
    Answer, Endpoint, Here, Kind, Knowledge, MeshNode, MeshPort, MeshTask, NetworkView, OrdMap,
    OrdSet, Projection, Question, Sandbox, SandboxAttachment, ServiceView, answer, project,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use types::{Addresses, NodeId, Protocol, Subnet, TaskId};

/// A task in the raw: its service, node, and whether it serves and is hidden.
type Raw = (u8, u8, bool, bool);

fn world() -> impl Strategy<Value = (Knowledge, Here)> {
    let tasks = btree_map(0..60_u8, (0..5_u8, 1..5_u8, any::<bool>(), any::<bool>()), 0..40);
    (tasks, vec(any::<bool>(), 5), 0..6_u8)
        .prop_map(|(tasks, modes, plain)| build(&tasks, &modes, plain))
}

fn node(number: u8) -> NodeId {
    format!("n{number}").into()
}

fn build(tasks: &BTreeMap<u8, Raw>, modes: &[bool], plain: u8) -> (Knowledge, Here) {
    let nets = ["10.0.1.0/24", "fd00:1::/64"].map(|net| net.parse().unwrap());
    let subnets = nets.into_iter().filter_map(Subnet::new).collect();
    let mut view =
        NetworkView { name: "net".to_owned(), vni: 4097, subnets, ..NetworkView::default() };
    for (number, mode) in (0_u8..).zip(modes) {
        let vips = mode.then(|| addresses(2 + number)).unwrap_or_default();
        let service = ServiceView {
            name: format!("s{number}"),
            stack: String::new(),
            aliases: BTreeSet::new(),
            vips,
        };
        view.services.insert(service.name.as_str().into(), service);
    }
    let mut known = Knowledge::default();
    for number in 1..4 {
        let (address, ingress) = ([192, 168, 0, number].into(), [10, 255, 0, number].into());
        known.mesh.nodes.insert(node(number), MeshNode { address, ingress });
    }
    let mut port = MeshPort { service: "s0".into(), target: 80, tasks: OrdSet::new() };
    let mut here = Here {
        node: node(1),
        address: [192, 168, 0, 1].into(),
        data_path_port: 4789,
        sandboxes: OrdMap::new(),
        hidden: OrdSet::new(),
    };
    for (number, (service, at, serving, hidden)) in tasks {
        let id = TaskId::from(format!("t{number}"));
        let addresses = addresses(10 + *number);
        let (service, node, serving) = (format!("s{service}"), node(*at), *serving);
        let ingress = [10, 255, 1, *number].into();
        known.mesh.tasks.insert(id.clone(), MeshTask { node: node.clone(), ingress, serving });
        port.tasks.insert(id.clone());
        if *hidden {
            here.hidden.insert(id.clone());
        }
        if *at == 1 {
            here.sandboxes.insert(format!("c{number}"), sandbox(Some(&id), addresses, *number));
        }
        let endpoint = Endpoint {
            addresses,
            node,
            vtep: [192, 168, 0, *at].into(),
            name: format!("{service}.{number}.{id}"),
            service: service.into(),
            aliases: BTreeSet::new(),
            serving,
        };
        view.endpoints.insert(id, endpoint);
    }
    for number in 100..100 + plain {
        let sandbox = sandbox(None, addresses(number), number);
        here.sandboxes.insert(format!("p{number}"), sandbox);
    }
    known.mesh.ports.insert((Protocol::Tcp, 8080), port);
    known.networks.insert("net".into(), view);
    (known, here)
}

/// Of both families.
fn addresses(number: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, number.into());
    Addresses { v4: Some([10, 0, 1, number].into()), v6: Some(v6) }
}

fn sandbox(task: Option<&TaskId>, addresses: Addresses, number: u8) -> Sandbox {
    Sandbox {
        task: task.cloned(),
        netns: format!("/run/netns/{number}"),
        gateway_addresses: [172, 30, 0, number].into(),
        attachments: vec![SandboxAttachment { network: "net".into(), addresses }],
        dns_port: 40000,
        host_ports: Vec::new(),
        nameservers: Vec::new(),
    }
}

/// The addresses of the tasks of a service that serve, by the plain definition.
fn serving(known: &Knowledge, here: &Here, service: &str) -> BTreeSet<IpAddr> {
    let endpoints = &known.networks[&"net".into()].endpoints;
    let endpoints = endpoints.iter().filter(|(task, endpoint)| {
        endpoint.service.as_str() == service && endpoint.serving && !here.hidden.contains(*task)
    });
    endpoints.flat_map(|(_, endpoint)| endpoint.addresses.iter()).collect()
}

/// What A and AAAA are answered with.
fn ask(projection: &Projection, id: &str, name: &str) -> BTreeSet<IpAddr> {
    let answers = [Kind::A, Kind::Aaaa].map(|kind| {
        match answer(&projection.zones[id], Question { name, kind }) {
            Answer::Addresses { v4, v6 } => {
                assert!(if kind == Kind::A { v6.is_empty() } else { v4.is_empty() });
                let v4 = v4.iter().copied().map(IpAddr::V4);
                v4.chain(v6.iter().copied().map(IpAddr::V6)).collect()
            }
            Answer::NxDomain | Answer::Forward => Vec::new(),
            other => panic!("{name}: {other:?}"),
        }
    });
    answers.into_iter().flatten().collect()
}

proptest! {
    #[test]
    fn balancers_and_names_lead_to_exactly_the_tasks_that_serve((known, here) in world()) {
        let projection = project(&known, &here);
        let view = &known.networks[&"net".into()];
        for (id, rules) in &projection.desired.sandboxes {
            for service in view.services.values() {
                let wanted = serving(&known, &here, &service.name);
                let tasks = ask(&projection, id, &format!("tasks.{}", service.name));
                prop_assert_eq!(&tasks, &wanted);
                let named = ask(&projection, id, &service.name);
                let Addresses { v4: Some(v4), v6: Some(v6) } = service.vips else {
                    prop_assert_eq!(&named, &wanted);
                    continue;
                };
                // A permutation: nothing lost, nothing twice.
                let (v4, v6) = (&rules.vips.v4[&v4], &rules.vips.v6[&v6]);
                let all = v4.iter().copied().map(IpAddr::V4);
                let all = all.chain(v6.iter().copied().map(IpAddr::V6));
                prop_assert_eq!(v4.len() + v6.len(), wanted.len());
                prop_assert_eq!(&all.collect::<BTreeSet<_>>(), &wanted);
                let there = view.endpoints.values().any(|e| e.service.as_str() == service.name);
                let vips = service.vips.iter().filter(|_| there).collect();
                prop_assert_eq!(named, vips);
            }
        }
    }

    #[test]
    fn projecting_twice_gives_the_same((known, here) in world()) {
        prop_assert_eq!(project(&known, &here), project(&known, &here));
    }

    #[test]
    fn every_endpoint_elsewhere_has_a_route_whether_it_serves_or_not((known, here) in world()) {
        let projection = project(&known, &here);
        let Some(overlay) = projection.desired.overlays.get(&"net".into()) else {
            prop_assert!(here.sandboxes.is_empty());
            return Ok(());
        };
        let here_addresses: BTreeSet<Addresses> =
            here.sandboxes.values().map(|sandbox| sandbox.attachments[0].addresses).collect();
        for endpoint in known.networks[&"net".into()].endpoints.values() {
            let local = endpoint.node == here.node || here_addresses.contains(&endpoint.addresses);
            prop_assert_eq!(overlay.remotes.contains_key(&endpoint.addresses), !local);
            prop_assert!(local || overlay.peers.contains(&endpoint.vtep));
        }
        prop_assert!(!overlay.peers.contains(&here.address));
    }

    #[test]
    fn the_mesh_leads_to_exactly_the_tasks_that_serve_and_can_be_reached((known, here) in world()) {
        let mesh = project(&known, &here).desired.mesh;
        let backends: BTreeSet<IpAddr> =
            mesh.ports[&(Protocol::Tcp, 8080)].backends.iter().copied().collect();
        let target = known.mesh.ports[&(Protocol::Tcp, 8080)].target;
        for (id, task) in &known.mesh.tasks {
            let target = if task.node == here.node {
                let ingress = task.ingress.primary().unwrap();
                mesh.local_tasks.get(&(ingress, Protocol::Tcp, target)).copied()
            } else {
                mesh.remote_tasks.get(&task.ingress).and_then(|_| task.ingress.primary())
            };
            prop_assert_eq!(target.is_some(), known.mesh.nodes.contains_key(&task.node));
            let serves = task.serving && !here.hidden.contains(id);
            prop_assert_eq!(target.is_some_and(|t| backends.contains(&t)), target.is_some() && serves);
        }
    }
}
