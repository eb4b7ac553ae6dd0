//! What holds for any knowledge: balancers and names agree, nothing that does not serve is offered.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use discovery::{
    Answer, Endpoint, Here, Kind, Knowledge, MeshNode, MeshPort, MeshTask, NetworkView, OrdMap,
    OrdSet, Projection, Question, Sandbox, SandboxAttachment, ServiceView, answer, project,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use types::{NodeId, Protocol, Subnet, TaskId};

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
    let net = "10.0.1.0/24".parse().unwrap();
    let subnet = Some(Subnet { net, gateway: [10, 0, 1, 1].into() });
    let mut view =
        NetworkView { name: "net".to_owned(), vni: 4097, subnet, ..NetworkView::default() };
    for (number, mode) in (0_u8..).zip(modes) {
        let vip = mode.then(|| Ipv4Addr::new(10, 0, 1, 2 + number));
        let service = ServiceView {
            name: format!("s{number}"),
            stack: String::new(),
            aliases: BTreeSet::new(),
            vip,
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
        let address = Ipv4Addr::new(10, 0, 1, 10 + *number);
        let (service, node, serving) = (format!("s{service}"), node(*at), *serving);
        let ingress = [10, 255, 1, *number].into();
        known.mesh.tasks.insert(id.clone(), MeshTask { node: node.clone(), ingress, serving });
        port.tasks.insert(id.clone());
        if *hidden {
            here.hidden.insert(id.clone());
        }
        if *at == 1 {
            here.sandboxes.insert(format!("c{number}"), sandbox(Some(&id), address, *number));
        }
        let endpoint = Endpoint {
            address,
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
        let address = [10, 0, 1, number].into();
        here.sandboxes.insert(format!("p{number}"), sandbox(None, address, number));
    }
    known.mesh.ports.insert((Protocol::Tcp, 8080), port);
    known.networks.insert("net".into(), view);
    (known, here)
}

fn sandbox(task: Option<&TaskId>, address: Ipv4Addr, number: u8) -> Sandbox {
    Sandbox {
        task: task.cloned(),
        netns: format!("/run/netns/{number}"),
        gateway_address: [172, 30, 0, number].into(),
        attachments: vec![SandboxAttachment { network: "net".into(), address, prefix: 24 }],
        dns_port: 40000,
        host_ports: Vec::new(),
        nameservers: Vec::new(),
    }
}

/// The addresses of the tasks of a service that serve, by the plain definition.
fn serving(known: &Knowledge, here: &Here, service: &str) -> BTreeSet<Ipv4Addr> {
    let endpoints = &known.networks[&"net".into()].endpoints;
    let endpoints = endpoints.iter().filter(|(task, endpoint)| {
        endpoint.service.as_str() == service && endpoint.serving && !here.hidden.contains(*task)
    });
    endpoints.map(|(_, endpoint)| endpoint.address).collect()
}

fn ask(projection: &Projection, id: &str, name: &str) -> BTreeSet<Ipv4Addr> {
    match answer(&projection.zones[id], Question { name, kind: Kind::Address }) {
        Answer::Addresses(addresses) => addresses.iter().copied().collect(),
        Answer::NxDomain | Answer::Forward => BTreeSet::new(),
        other => panic!("{name}: {other:?}"),
    }
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
                let Some(vip) = service.vip else {
                    prop_assert_eq!(&named, &wanted);
                    continue;
                };
                // A permutation: nothing lost, nothing twice.
                let backends: BTreeSet<Ipv4Addr> = rules.vips[&vip].iter().copied().collect();
                prop_assert_eq!(backends.len(), rules.vips[&vip].len());
                prop_assert_eq!(&backends, &wanted);
                let there = view.endpoints.values().any(|e| e.service.as_str() == service.name);
                prop_assert_eq!(named, there.then_some(vip).into_iter().collect());
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
        let here_addresses: BTreeSet<Ipv4Addr> =
            here.sandboxes.values().map(|sandbox| sandbox.attachments[0].address).collect();
        for endpoint in known.networks[&"net".into()].endpoints.values() {
            let local = endpoint.node == here.node || here_addresses.contains(&endpoint.address);
            prop_assert_eq!(overlay.remotes.contains_key(&endpoint.address), !local);
            prop_assert!(local || overlay.peers.contains(&endpoint.vtep));
        }
        prop_assert!(!overlay.peers.contains(&here.address));
    }

    #[test]
    fn the_mesh_leads_to_exactly_the_tasks_that_serve_and_can_be_reached((known, here) in world()) {
        let mesh = project(&known, &here).desired.mesh;
        let backends: BTreeSet<Ipv4Addr> =
            mesh.ports[&(Protocol::Tcp, 8080)].backends.iter().copied().collect();
        let target = known.mesh.ports[&(Protocol::Tcp, 8080)].target;
        for (id, task) in &known.mesh.tasks {
            let target = if task.node == here.node {
                mesh.local_tasks.get(&(task.ingress, Protocol::Tcp, target)).copied()
            } else {
                mesh.remote_tasks.get(&task.ingress).map(|_| task.ingress)
            };
            prop_assert_eq!(target.is_some(), known.mesh.nodes.contains_key(&task.node));
            let serves = task.serving && !here.hidden.contains(id);
            prop_assert_eq!(target.is_some_and(|t| backends.contains(&t)), target.is_some() && serves);
        }
    }
}
