//! The first objects of a new cluster.

use crate::clock::RandomIds;
use crate::control::cluster::keep_unlock_key;
use ca::JoinToken;
use ipnet::{IpNet, Ipv4Net};
use raft::Sequencer;
use std::net::IpAddr;
use store::{Changes, Tx, View};
use types::{
    Availability, Cluster, ClusterId, ClusterSpec, DEFAULT_POOL, Fault, IdSource, JoinTokens,
    ManagerStatus, Network, NetworkId, NetworkSpec, Node, NodeDescription, NodeId, NodeRole,
    NodeSpec, NodeState, NodeStatus, RootCa, Subnet, Timestamp, Version,
};

/// The VXLAN network identifier of the routing mesh.
const INGRESS_VNI: u32 = 4096;

/// What the first node of a cluster decides.
#[derive(Clone, Debug)]
pub struct First {
    pub cluster: ClusterId,
    pub root_ca: RootCa,
    pub spec: ClusterSpec,
    /// Where subnets of networks come from; empty: 10.0.0.0/8.
    pub address_pools: Vec<IpNet>,
    /// The length of a subnet's prefix; 0: 24.
    pub subnet_prefix: u8,
    /// The UDP port of the overlay; 0: 4789.
    pub data_path_port: u16,
    pub node: NodeId,
    pub description: NodeDescription,
    pub address: IpAddr,
    /// Where managers and nodes reach it, `host:port`.
    pub manager_address: String,
    /// Its VXLAN end point, where that is another address.
    pub data_path_address: Option<IpAddr>,
    pub availability: Availability,
}

/// Writes the first objects of a new cluster: the cluster with its tokens, this node as its
/// manager, and the network of the routing mesh. All in one entry of the log.
pub async fn bootstrap(sequencer: &Sequencer, first: First) -> Result<Version, Fault> {
    let tokens = JoinTokens {
        worker: JoinToken::draw(&first.root_ca)?.render(),
        manager: JoinToken::draw(&first.root_ca)?.render(),
    };
    let network = NetworkId::draw(&mut RandomIds as &mut dyn IdSource);
    sequencer.sequence(move |view: &View, now| objects(view, first, (tokens, network), now)).await
}

/// The first objects, with the join tokens and the id of the routing mesh's network.
pub fn objects(
    view: &View,
    first: First,
    (tokens, network): (JoinTokens, NetworkId),
    now: Timestamp,
) -> Result<Changes, Fault> {
    if view.cluster().is_some() {
        return Err(Fault::unavailable("this node is already part of a swarm"));
    }
    let mut tx = Tx::new(view);
    tx.put_node(first_node(&first, now));
    let cluster = first_cluster(first, tokens);
    tx.put_network(ingress(network, &cluster));
    tx.put_cluster(cluster);
    Ok(tx.finish())
}

fn first_cluster(first: First, tokens: JoinTokens) -> Cluster {
    let mut cluster = Cluster {
        id: first.cluster,
        spec: first.spec,
        tokens,
        root_ca: first.root_ca,
        address_pools: if first.address_pools.is_empty() {
            vec![DEFAULT_POOL.into()]
        } else {
            first.address_pools
        },
        subnet_prefix: if first.subnet_prefix == 0 { 24 } else { first.subnet_prefix },
        data_path_port: if first.data_path_port == 0 { 4789 } else { first.data_path_port },
        ..Cluster::default()
    };
    keep_unlock_key(&mut cluster, false);
    cluster
}

fn first_node(first: &First, now: Timestamp) -> Node {
    Node {
        id: first.node.clone(),
        spec: NodeSpec {
            role: NodeRole::Manager,
            availability: first.availability,
            ..NodeSpec::default()
        },
        role: NodeRole::Manager,
        manager: Some(ManagerStatus {
            raft_id: raft::FIRST_MEMBER,
            address: first.manager_address.clone(),
        }),
        description: first.description.clone(),
        status: NodeStatus {
            state: NodeState::Ready,
            since: now,
            address: first.address,
            data_path_address: first.data_path_address,
            ..NodeStatus::default()
        },
        ..Node::default()
    }
}

/// The subnet of the routing mesh is the end of the first IPv4 pool, so that the first network of users
/// gets the one they expect: a quarter of the pool, a /16 at most (the lower half of an address is a
/// node's mark), and as large as other networks at least. Of 10.0.0.0/8 it is 10.255.0.0/16.
fn ingress_subnet(pool: Ipv4Net, subnet_prefix: u8) -> Ipv4Net {
    let quarter = pool.prefix_len().saturating_add(2).min(subnet_prefix);
    let prefix = quarter.max(16).max(pool.prefix_len());
    Ipv4Net::new(pool.broadcast(), prefix).unwrap_or(pool).trunc()
}

fn ingress(id: NetworkId, cluster: &Cluster) -> Network {
    let first = cluster.address_pools.iter().find_map(|pool| match pool {
        IpNet::V4(pool) => Some(*pool),
        IpNet::V6(_) => None,
    });
    let net = ingress_subnet(first.unwrap_or(DEFAULT_POOL), cluster.subnet_prefix);
    let subnets: Vec<Subnet> = Subnet::new(net.into()).into_iter().collect();
    Network {
        id,
        spec: NetworkSpec {
            name: "ingress".to_owned(),
            driver: "overlay".to_owned(),
            ingress: true,
            subnets: subnets.clone(),
            ..NetworkSpec::default()
        },
        vni: INGRESS_VNI,
        subnets,
        ..Network::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_gets_the_end_of_the_first_pool() {
        for (pool, prefix, expected) in [
            ("10.0.0.0/8", 24, "10.255.0.0/16"),
            ("10.20.0.0/16", 24, "10.20.192.0/18"),
            ("172.30.0.0/20", 26, "172.30.12.0/22"),
            ("10.9.0.0/23", 24, "10.9.1.0/24"),
            ("10.9.0.0/24", 24, "10.9.0.0/24"),
            ("10.0.0.0/8", 12, "10.255.0.0/16"),
        ] {
            let pool = pool.parse().unwrap();
            assert_eq!(ingress_subnet(pool, prefix).to_string(), expected, "{pool}");
        }
    }
}
