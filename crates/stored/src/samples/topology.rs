//! What a node knows of networks, and what it has itself.

use super::{both, subnets, underlay};
use discovery::{
    Endpoint, Knowledge, Mesh, MeshNode, MeshPort, MeshTask, NetworkView, Sandbox,
    SandboxAttachment, ServiceView,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use types::{Addresses, Protocol};

fn ingress(last: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 255, 0, 0, 0, 0, 0, last.into());
    Addresses { v4: Some(Ipv4Addr::new(10, 255, 0, last)), v6: Some(v6) }
}

pub fn knowledge() -> Knowledge {
    Knowledge {
        networks: BTreeMap::from([
            ("net1".into(), network()),
            ("net9".into(), NetworkView { name: "empty".to_owned(), ..NetworkView::default() }),
        ]),
        mesh: mesh(),
    }
}

fn network() -> NetworkView {
    let endpoint = |last, serving| Endpoint {
        addresses: both(last),
        node: "n2".into(),
        vtep: underlay(3).into(),
        service: "s1".into(),
        name: format!("shop_web.1.t{last}"),
        aliases: BTreeSet::from(["host-3".to_owned()]),
        serving,
    };
    NetworkView {
        name: "front".to_owned(),
        vni: 4097,
        subnets: subnets(),
        internal: true,
        mtu: 1400,
        endpoints: [("t1", endpoint(3, true)), ("t2", endpoint(4, false))].into_iter().collect(),
        services: [
            (
                "s1",
                ServiceView {
                    name: "shop_web".to_owned(),
                    stack: "shop".to_owned(),
                    aliases: BTreeSet::from(["www".to_owned()]),
                    vips: both(2),
                },
            ),
            ("s2", ServiceView { name: "agent".to_owned(), ..ServiceView::default() }),
        ]
        .into_iter()
        .collect(),
    }
}

fn mesh() -> Mesh {
    let port = |target, tasks: &[&str]| MeshPort {
        service: "s1".into(),
        target,
        tasks: tasks.iter().copied().collect(),
    };
    Mesh {
        mtu: 1400,
        prefix: 20,
        prefix_v6: 64,
        nodes: [
            ("n1", MeshNode { address: underlay(2).into(), ingress: ingress(2) }),
            ("n2", MeshNode { address: "2001:db8::3".parse().unwrap(), ingress: ingress(3) }),
        ]
        .into_iter()
        .collect(),
        tasks: [
            ("t1", MeshTask { node: "n2".into(), ingress: ingress(4), serving: true }),
            ("t2", MeshTask { node: "n2".into(), ingress: ingress(5), serving: false }),
        ]
        .into_iter()
        .collect(),
        ports: [
            ((Protocol::Tcp, 8080_u16), port(80, &["t1", "t2"])),
            ((Protocol::Udp, 53), port(5353, &[])),
        ]
        .into_iter()
        .collect(),
    }
}

pub fn attachment_of_sandbox() -> SandboxAttachment {
    SandboxAttachment { network: "net1".into(), addresses: both(3) }
}

pub fn sandbox() -> Sandbox {
    Sandbox {
        task: Some("t1".into()),
        netns: "/run/skep/netns/c1".to_owned(),
        gateway_addresses: [172, 30, 0, 2].into(),
        attachments: vec![attachment_of_sandbox()],
        dns_port: 40_000,
        host_ports: vec![(Protocol::Tcp, 8081, 81), (Protocol::Udp, 53, 5353)],
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53).into(), "2001:db8::53".parse().unwrap()],
    }
}
