//! What a cluster has: itself, its nodes, its networks.

use super::{SECOND, both, labels, meta, seconds, subnets, time, underlay};
use std::collections::BTreeMap;
use types::{
    Addresses, Availability, Cluster, ClusterSpec, EngineInfo, JoinTokens, Network, NetworkSpec,
    Node, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus, Platform, RootCa, SecretText,
    Subnet, Timestamp,
};

pub fn cluster() -> Cluster {
    Cluster {
        id: "c1".into(),
        meta: meta(1),
        spec: ClusterSpec {
            name: "default".to_owned(),
            labels: labels("cluster"),
            task_history_limit: 4,
            heartbeat: seconds(4),
            certificate_validity: seconds(7200),
            snapshot_interval: 9000,
            kept_snapshots: 0,
            kept_entries: 500,
            log_driver: None,
            force_rotate: 0,
            autolock: true,
            external_cas: Vec::new(),
        },
        tokens: JoinTokens {
            worker: "SWMTKN-1-a-b".to_owned(),
            manager: "SWMTKN-1-a-c".to_owned(),
        },
        root_ca: RootCa { certificate: "PEM 1".to_owned(), key: "PEM 2".to_owned() },
        unlock_key: SecretText("SWMKEY-1-d".to_owned()),
        address_pools: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/48".parse().unwrap()],
        subnet_prefix: 24,
        data_path_port: 4790,
        last_raft_id: 0,
        generation: 0,
        removed: BTreeMap::new(),
        root_rotation: None,
    }
}

/// The manager, in good order.
pub fn node() -> Node {
    Node {
        id: "n1".into(),
        meta: meta(2),
        spec: NodeSpec {
            name: "first".to_owned(),
            labels: labels("node"),
            role: NodeRole::Manager,
            availability: Availability::Active,
        },
        role: NodeRole::Manager,
        manager: None,
        description: NodeDescription {
            hostname: "host-1".to_owned(),
            platform: Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() },
            nano_cpus: 2 * SECOND,
            memory_bytes: 4 << 30,
            engine: EngineInfo {
                version: "0.1.0".to_owned(),
                labels: labels("engine"),
                ..EngineInfo::default()
            },
            trust_root: "PEM 1".to_owned(),
            issuer: types::Issuer::default(),
            log_format: 0,
            generic: types::GenericResources::default(),
        },
        status: NodeStatus {
            state: NodeState::Ready,
            since: time(3),
            message: "back".to_owned(),
            address: underlay(2).into(),
            data_path_address: Some("2001:db8::2".parse().unwrap()),
            leaving: false,
        },
        ingress_addresses: [10, 255, 0, 2].into(),
        allocation_error: String::new(),
        trouble: "port 8080 is taken".to_owned(),
    }
}

/// A worker that is lost while it leaves.
pub fn worker() -> Node {
    let mut node = node();
    node.id = "n2".into();
    node.spec.role = NodeRole::Worker;
    node.spec.availability = Availability::Drain;
    node.role = NodeRole::Worker;
    node.status.state = NodeState::Down;
    node.status.address = underlay(3).into();
    node.status.data_path_address = None;
    node.status.leaving = true;
    node.ingress_addresses = [10, 255, 0, 3].into();
    node.allocation_error = "no address".into();
    node
}

pub fn network() -> Network {
    Network {
        id: "net1".into(),
        meta: meta(3),
        spec: NetworkSpec {
            name: "front".to_owned(),
            labels: labels("network"),
            driver: "overlay".to_owned(),
            driver_options: labels("option"),
            attachable: true,
            internal: true,
            ingress: false,
            ipv6: true,
            subnets: subnets(),
            ip_ranges: vec!["10.0.1.128/25".parse().unwrap(), "fd00:1::/80".parse().unwrap()],
            aux_addresses: BTreeMap::from([("router".to_owned(), both(200))]),
        },
        vni: 4097,
        subnets: subnets(),
        last_addresses: both(7),
        last_vni: 4099,
        removed: false,
    }
}

/// The routing mesh's, as it was made; it is to go.
pub fn ingress_network() -> Network {
    let spec = NetworkSpec {
        name: "ingress".to_owned(),
        driver: "overlay".to_owned(),
        ingress: true,
        ..NetworkSpec::default()
    };
    Network {
        id: "net2".into(),
        meta: types::Meta { created_at: Timestamp(0), ..meta(1) },
        spec,
        vni: 4096,
        subnets: Subnet::new("10.255.0.0/16".parse().unwrap()).into_iter().collect(),
        last_addresses: Addresses::default(),
        last_vni: 0,
        removed: true,
    }
}
